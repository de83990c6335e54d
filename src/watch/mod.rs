//! A lab in a terminal, as it is now or as it was in a run: what `watch` shows.

mod draw;
mod lines;
mod screen;
#[cfg(test)]
mod tests;

use crate::error::{Error, IoContext, Problem, Result};
use crate::view::{News, Replay, Tell, View};
use ratatui::crossterm::event::{self, Event, KeyEvent, KeyEventKind};
use screen::Screen;
use std::io::IsTerminal;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// The longest time between two drawings: clocks go on.
const TICK: Duration = Duration::from_millis(250);

/// What may happen while it is shown.
enum Happened {
    News(News),
    Key(KeyEvent),
    /// The terminal has another size.
    Resized,
    /// The process was told to end.
    Told,
}

/// Refuses what is no terminal; `instead` are the commands for that.
///
/// # Errors
/// [`Error::Usage`].
pub fn check_terminal(instead: &str) -> Result<()> {
    if std::io::stdout().is_terminal() && std::io::stdin().is_terminal() {
        return Ok(());
    }
    let seen = "input or output is no terminal: there is nothing to draw on";
    Err(Error::Usage(
        Problem::new("watch the lab").observed(seen).remedy(instead),
    ))
}

/// Shows a lab until the person leaves. `follow` begins to tell of it.
///
/// # Errors
/// The terminal cannot be drawn on.
pub fn live(view: View, follow: impl FnOnce(Tell) -> std::io::Result<()>) -> Result<()> {
    let (tell, happened) = mpsc::channel();
    let news = tell.clone();
    follow(Arc::new(move |n| news.send(Happened::News(n)).is_ok())).tried("follow the lab", &view.name)?;
    show(Screen::live(view), tell, &happened)
}

/// Shows the scenarios of a run until the person leaves.
///
/// # Errors
/// The terminal cannot be drawn on.
pub fn replay(all: Vec<Replay>) -> Result<()> {
    let (tell, happened) = mpsc::channel();
    show(Screen::of_run(all), tell, &happened)
}

/// How many lines of its journal a view keeps.
pub const KEPT: usize = Screen::KEPT;

fn show(mut screen: Screen, tell: mpsc::Sender<Happened>, happened: &mpsc::Receiver<Happened>) -> Result<()> {
    // A panic gives the terminal back before it is told.
    let mut terminal = ratatui::try_init().tried("draw on the terminal", "")?;
    let listening = listen(tell);
    let shown = listening.and_then(|()| run(&mut screen, &mut terminal, happened));
    ratatui::try_restore().tried("give the terminal back", "")?;
    shown.tried("draw on the terminal", "")
}

fn run(
    screen: &mut Screen,
    terminal: &mut ratatui::DefaultTerminal,
    happened: &mpsc::Receiver<Happened>,
) -> std::io::Result<()> {
    let mut drawn = Instant::now();
    loop {
        screen.pass(drawn.elapsed().as_micros() as u64);
        drawn = Instant::now();
        terminal.draw(|frame| draw::draw(frame, screen))?;
        // All that is there already is one drawing.
        let mut next = happened.recv_timeout(TICK).ok();
        while let Some(what) = next {
            match what {
                Happened::News(news) => screen.take(news),
                Happened::Key(key) if !screen.key(key) => return Ok(()),
                Happened::Told => return Ok(()),
                Happened::Key(_) | Happened::Resized => {}
            }
            next = happened.try_recv().ok();
        }
    }
}

/// Hears keys and signals, each on a thread that ends with the process.
fn listen(tell: mpsc::Sender<Happened>) -> std::io::Result<()> {
    let keys = tell.clone();
    std::thread::Builder::new().name("keys".into()).spawn(move || {
        while let Ok(heard) = event::read() {
            let what = match heard {
                Event::Key(key) if key.kind != KeyEventKind::Release => Happened::Key(key),
                Event::Resize(..) => Happened::Resized,
                _ => continue,
            };
            if keys.send(what).is_err() {
                return;
            }
        }
        // Nobody can leave by a key any more.
        let _ = keys.send(Happened::Told);
    })?;
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        use tokio::signal::unix::{SignalKind, signal};
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { return };
        runtime.block_on(async {
            let all = [SignalKind::terminate(), SignalKind::hangup(), SignalKind::interrupt()];
            let [Ok(mut terminate), Ok(mut hangup), Ok(mut interrupt)] = all.map(signal) else {
                return;
            };
            tokio::select! {
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
            }
            let _ = tell.send(Happened::Told);
        });
    })?;
    Ok(())
}
