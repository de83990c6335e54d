//! Events on stderr: bars on a terminal, plain lines elsewhere. The only writer to stderr while a command runs.

use crate::event::{Event, Severity};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// A consumer of the event stream for a person.
#[derive(Debug)]
pub struct Terminal {
    bars: Option<MultiProgress>,
    running: HashMap<(String, Option<String>), ProgressBar>,
    finished: Vec<Finished>,
}

/// A step that ended, for the table at the end.
#[derive(Debug, Clone)]
pub struct Finished {
    /// Its name.
    pub step: String,
    /// The node it was about.
    pub node: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Whether it ended well.
    pub ok: bool,
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Terminal {
    /// Bars where stderr is a terminal, plain lines elsewhere.
    pub fn new() -> Self {
        let bars = std::io::stderr()
            .is_terminal()
            .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr()));
        Self {
            bars,
            running: HashMap::new(),
            finished: Vec::new(),
        }
    }

    /// Shows one event.
    pub fn show(&mut self, event: &Event) {
        let text = event.data["text"].as_str().unwrap_or_default();
        let step = event.data["step"].as_str().unwrap_or_default().to_owned();
        let key = (step.clone(), event.node.clone());
        match event.kind.as_str() {
            "step.begin" => self.begin(key, text),
            "step.progress" => self.progress(&key, text, event),
            "step.end" => {
                let ok = event.data["ok"].as_bool().unwrap_or(false);
                let seconds = event.data["seconds"].as_f64().unwrap_or(0.0);
                self.end(&key, text, ok, seconds);
                self.finished.push(Finished {
                    step,
                    node: event.node.clone(),
                    seconds,
                    ok,
                });
            }
            kind if event.severity >= Severity::Warning => {
                let node = event.node.as_deref().map(|n| format!(" {n}")).unwrap_or_default();
                self.line(&format!(
                    "! {kind}{node}: {}",
                    if text.is_empty() {
                        event.data.to_string()
                    } else {
                        text.into()
                    }
                ));
            }
            _ => {}
        }
    }

    /// Prints a line above the bars.
    pub fn line(&self, line: &str) {
        match &self.bars {
            // One line at a time: several leave zombie bars (indicatif #474).
            Some(bars) => line.lines().for_each(|l| drop(bars.println(l))),
            None => drop(writeln!(std::io::stderr(), "{line}")),
        }
    }

    /// The steps that ended, in order.
    pub fn finished(&self) -> &[Finished] {
        &self.finished
    }

    /// Takes the bars away.
    pub fn clear(&mut self) {
        for (_, bar) in self.running.drain() {
            bar.finish_and_clear();
        }
    }

    fn begin(&mut self, key: (String, Option<String>), text: &str) {
        let title = title(&key);
        match &self.bars {
            Some(bars) => {
                let bar = bars.add(ProgressBar::new_spinner());
                bar.set_style(spinner());
                bar.set_prefix(title);
                bar.set_message(text.to_owned());
                bar.enable_steady_tick(Duration::from_millis(120));
                self.running.insert(key, bar);
            }
            None => self.line(&format!("· {title}: {text}")),
        }
    }

    fn progress(&mut self, key: &(String, Option<String>), text: &str, event: &Event) {
        if let Some(bar) = self.running.get(key) {
            let (done, total) = (event.data["done"].as_u64(), event.data["total"].as_u64());
            if let (Some(done), Some(total)) = (done, total) {
                bar.set_style(counted());
                bar.set_length(total);
                bar.set_position(done);
            }
            bar.set_message(text.to_owned());
        }
    }

    fn end(&mut self, key: &(String, Option<String>), text: &str, ok: bool, seconds: f64) {
        if let Some(bar) = self.running.remove(key) {
            bar.finish_and_clear();
        }
        self.line(&format!(
            "{} {}: {text} ({seconds:.1} s)",
            if ok { "✓" } else { "✗" },
            title(key)
        ));
    }
}

fn title((step, node): &(String, Option<String>)) -> String {
    match node {
        Some(n) => format!("{step} {n}"),
        None => step.clone(),
    }
}

fn spinner() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix}: {wide_msg} {elapsed}").expect("a constant template")
}

fn counted() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {prefix}: {msg} {wide_bar} {percent}% {elapsed}")
        .expect("a constant template")
}
