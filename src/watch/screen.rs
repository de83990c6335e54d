//! What is on the screen, and what keys do to it. No terminal here.

use super::lines;
use crate::event::monotonic_us;
use crate::picture::Extent;
use crate::view::{Link, News, Replay, View};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// Lines of the journal that are kept for the list.
const KEPT: usize = 1_000;
/// A small step in a run, and a large one, in microseconds.
const STEP_US: u64 = 1_000_000;
const LEAP_US: u64 = 10_000_000;

/// What is shown.
#[derive(Debug)]
pub(super) struct Screen {
    pub view: View,
    /// The lab's clock, in microseconds since its journal began.
    pub now_us: u64,
    /// Where in the run it is; none of a lab that is up.
    pub scrub: Option<Scrub>,
    /// How many of the newest events are left out.
    pub back: usize,
    /// Whether the keys are told.
    pub help: bool,
    source: Source,
}

/// A place in a run.
#[derive(Debug)]
pub(super) struct Scrub {
    pub extent: Extent,
    pub playing: bool,
    /// What happened last, in words.
    pub moment: Option<String>,
    pub scenarios: usize,
}

#[derive(Debug)]
enum Source {
    /// The host's clock at the journal's zero; none before it is known.
    Live(Option<u64>),
    Run(Vec<Replay>, usize),
}

impl Screen {
    /// Of a lab that is up.
    pub fn live(view: View) -> Self {
        Self {
            view,
            now_us: 0,
            scrub: None,
            back: 0,
            help: false,
            source: Source::Live(None),
        }
    }

    /// Of a run, at the begin of its first scenario.
    ///
    /// # Panics
    /// Where it has none: [`Replay::all`] makes no such.
    pub fn of_run(all: Vec<Replay>) -> Self {
        let first = &all[0];
        let mut screen = Self {
            view: first.at(first.extent.from_us, KEPT),
            now_us: first.extent.from_us,
            scrub: None,
            back: 0,
            help: false,
            source: Source::Run(all, 0),
        };
        screen.open(0);
        screen
    }

    /// Lines of the journal that a view of a lab keeps.
    pub const KEPT: usize = KEPT;

    /// Something came of the lab.
    pub fn take(&mut self, news: News) {
        if let News::Look(status) = &news {
            self.source = Source::Live(Some(monotonic_us().saturating_sub(status.t_us)));
        }
        self.view.take(news);
    }

    /// So much time has passed.
    pub fn pass(&mut self, us: u64) {
        match (&self.source, &mut self.scrub) {
            (Source::Run(..), Some(scrub)) if scrub.playing => {
                let to = (self.now_us + us).min(scrub.extent.to_us);
                scrub.playing = to < scrub.extent.to_us;
                self.go(to);
            }
            (Source::Live(Some(zero_us)), _) if self.view.link != Link::Down => {
                self.now_us = monotonic_us().saturating_sub(*zero_us).max(self.view.picture.t_us);
                self.view.picture.pass(self.now_us);
            }
            _ => self.now_us = self.now_us.max(self.view.picture.t_us),
        }
    }

    /// Opens a scenario of the run, at its begin.
    fn open(&mut self, which: usize) {
        let Source::Run(all, chosen) = &mut self.source else {
            return;
        };
        *chosen = which;
        let extent = all[which].extent;
        self.scrub = Some(Scrub {
            extent,
            playing: false,
            moment: None,
            scenarios: all.len(),
        });
        self.go(extent.from_us);
    }

    /// Goes to a moment of the run.
    fn go(&mut self, t_us: u64) {
        let (Source::Run(all, chosen), Some(scrub)) = (&self.source, &mut self.scrub) else {
            return;
        };
        let replay = &all[*chosen];
        self.now_us = t_us.clamp(replay.extent.from_us, replay.extent.to_us);
        scrub.moment = replay.moment(self.now_us + 1, false).map(|m| m.what.clone());
        self.view = replay.at(self.now_us, KEPT);
        self.back = 0;
    }

    /// What a key does; whether to stay.
    pub fn key(&mut self, key: KeyEvent) -> bool {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return false,
            KeyCode::Esc | KeyCode::Char('q') if self.help => self.help = false,
            KeyCode::Esc | KeyCode::Char('q') => return false,
            KeyCode::Char('?') => self.help = !self.help,
            KeyCode::Up => self.back = (self.back + 1).min(lines::event_count(&self.view).saturating_sub(1)),
            KeyCode::Down => self.back = self.back.saturating_sub(1),
            KeyCode::End if self.scrub.is_none() => self.back = 0,
            code => self.scrubs(code),
        }
        true
    }

    fn scrubs(&mut self, code: KeyCode) {
        let (Source::Run(all, chosen), Some(scrub)) = (&self.source, &mut self.scrub) else {
            return;
        };
        let (now, count) = (self.now_us, all.len());
        let moment = |later| all[*chosen].moment(now, later).map(|m| m.t_us);
        let to = match code {
            KeyCode::Left => now.saturating_sub(STEP_US),
            KeyCode::Right => now + STEP_US,
            KeyCode::PageUp => now.saturating_sub(LEAP_US),
            KeyCode::PageDown => now + LEAP_US,
            KeyCode::Home => 0,
            KeyCode::End => scrub.extent.to_us,
            KeyCode::Char('n') => moment(true).unwrap_or(scrub.extent.to_us),
            KeyCode::Char('p') => moment(false).unwrap_or(0),
            KeyCode::Char(' ') => {
                let at_end = now >= scrub.extent.to_us;
                scrub.playing = !scrub.playing;
                if at_end && scrub.playing { 0 } else { now }
            }
            KeyCode::Char('s') => {
                let next = (*chosen + 1) % count;
                return self.open(next);
            }
            KeyCode::Char('S') => {
                let before = (*chosen + count - 1) % count;
                return self.open(before);
            }
            _ => return,
        };
        self.go(to);
    }
}
