//! A lab as a person watches it: its picture, its newest events, and what is known of whoever tells of it.
//!
//! [`live`] is a client of the lab's supervisor, [`Replay`] reads the folder of a run. The terminal (`watch`) and the page (`web`)
//! draw the same [`View`].

#[cfg(test)]
pub(crate) mod fake;
pub mod live;
mod replay;
#[cfg(test)]
pub(crate) mod tests;

pub use replay::{Moment, Replay};

use crate::event::{Event, Severity};
use crate::lab::protocol::{LabStatus, Networks};
use crate::picture::text::is_quiet;
use crate::picture::{Input, Picture, fault_of};
use crate::spec::Lab;
use crate::verify::{FaultRecord, Observation};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// A look and the journal may tell of a fault in either order: within this they agree, in microseconds.
const SETTLE_US: u64 = 1_000_000;

/// What came of a lab that is up.
#[derive(Debug, Clone)]
pub enum News {
    /// A look at all of it.
    Look(Box<LabStatus>),
    /// The networks' rules and counters.
    Networks(Box<Networks>),
    /// A line of the journal.
    Event(Box<Event>),
    /// Lines of the journal that cannot be told: the first and the last number.
    Gap {
        /// The first.
        from: u64,
        /// The last.
        to: u64,
    },
    /// Whoever told of the lab does not, and why.
    Silent(String),
    /// The lab is down.
    Down,
}

/// Whoever hears of a lab: says whether it wants to hear more.
pub type Tell = Arc<dyn Fn(News) -> bool + Send + Sync>;

/// Whether what is shown is still so.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// Nothing was heard yet.
    Asking,
    /// It is.
    Live,
    /// Nobody tells of the lab any more: since when, in microseconds since the journal began, and why.
    Silent(u64, String),
    /// The lab is down: what is shown is how it was.
    Down,
    /// It is a run that ended.
    Replay,
}

/// A line of the list of events.
#[derive(Debug, Clone, PartialEq)]
pub enum Line {
    /// Something happened.
    Event(Box<Event>),
    /// These are missing: the first and the last number.
    Gap(u64, u64),
}

/// A lab at one moment, with what led to it.
#[derive(Debug, Clone)]
pub struct View {
    /// The lab or fork, or the scenario of a run.
    pub name: String,
    /// What it is, in words.
    pub title: String,
    /// The lab.
    pub lab: Arc<Lab>,
    /// Times are told behind this, in microseconds since the journal began.
    pub from_us: u64,
    /// Its picture.
    pub picture: Picture,
    /// The newest lines of the journal, oldest first.
    pub lines: VecDeque<Line>,
    /// The last look; none of a run.
    pub status: Option<Box<LabStatus>>,
    /// The last word of the networks; none of a run.
    pub networks: Option<Box<Networks>>,
    /// Whether that is still so.
    pub link: Link,
    /// How many lines are kept.
    kept: usize,
    /// Faults that are over, and since when.
    over: BTreeMap<u64, u64>,
}

impl View {
    /// Of a lab of which nothing was heard yet; it keeps the newest `kept` lines of the journal.
    pub fn new(name: &str, lab: Arc<Lab>, kept: usize) -> Self {
        Self {
            name: name.to_owned(),
            title: lab.title.clone(),
            from_us: 0,
            picture: Picture::new(lab.clone()),
            lines: VecDeque::new(),
            status: None,
            networks: None,
            link: Link::Asking,
            kept,
            over: BTreeMap::new(),
            lab,
        }
    }

    /// Takes in what came.
    pub fn take(&mut self, news: News) {
        match news {
            News::Look(status) => self.look(status),
            News::Networks(networks) => {
                let t_us = self.picture.t_us;
                let (rules, counters) = (&networks.rules, &networks.counters);
                self.picture.apply(Input::Counters(t_us, rules, counters));
                self.networks = Some(networks);
            }
            News::Event(event) => self.event(event),
            News::Gap { from, to } => self.keep(Line::Gap(from, to)),
            News::Silent(why) => {
                let since = match &self.link {
                    Link::Silent(since, _) => *since,
                    _ => self.picture.t_us,
                };
                self.link = Link::Silent(since, why);
            }
            News::Down => self.link = Link::Down,
        }
    }

    fn look(&mut self, status: Box<LabStatus>) {
        let now = status.t_us;
        for f in status.faults.iter().filter(|f| !f.pending) {
            let over = self.over.get(&f.id).is_some_and(|end| now < end + SETTLE_US);
            if self.picture.faults.contains_key(&f.id) {
                self.picture.proven(f);
            } else if !over {
                self.picture.apply(Input::Injected(f));
            }
        }
        let in_force = |id: u64| status.faults.iter().any(|f| f.id == id);
        let faults = self.picture.faults.iter();
        let gone = faults.filter(|(id, f)| !in_force(**id) && f.begin_us + SETTLE_US < now);
        let gone: Vec<FaultRecord> = gone
            .map(|(id, f)| FaultRecord {
                id: *id,
                kind: f.kind.clone(),
                target: f.target.clone(),
                begin_us: f.begin_us,
                end_us: Some(now),
                proof: serde_json::Value::Null,
                effective: f.effective,
                pending: false,
            })
            .collect();
        for f in &gone {
            self.picture.apply(Input::Healed(f));
        }
        self.picture.apply(Input::Look(&Observation::from((*status).clone())));
        // Its supervisor knows what probes say too.
        self.picture.unhealthy = Some(status.unhealthy.iter().cloned().collect());
        self.title.clone_from(&status.title);
        self.status = Some(status);
        self.link = Link::Live;
    }

    fn event(&mut self, event: Box<Event>) {
        match fault_of(&event) {
            Some(f) if event.kind == "fault.end" => {
                self.over.insert(f.id, f.end_us.unwrap_or(event.t_us));
                self.picture.apply(Input::Healed(&f));
            }
            Some(f) => self.picture.apply(Input::Injected(&f)),
            None => self.picture.apply(Input::Event(&event)),
        }
        self.keep(Line::Event(event));
    }

    fn keep(&mut self, line: Line) {
        self.lines.push_back(line);
        if self.lines.len() > self.kept {
            self.lines.pop_front();
        }
    }
}

/// Whether a person wants to see it in a short list: no detail, and not the traffic of logs and mail.
pub fn is_news(event: &Event) -> bool {
    event.severity > Severity::Debug && !is_quiet(event)
}
