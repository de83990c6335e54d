//! A run that ended, at any of its moments.

use super::{Line, Link, View};
use crate::error::{Error, Problem, Result};
use crate::picture::{Extent, Input, Picture, Place, Tracks, order};
use crate::runs::Run;
use crate::spec::Lab;
use crate::verify::{History, ScenarioReport, takeovers};
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::Arc;

/// Inputs between two pictures that are kept: going back makes none from the begin.
const KEYS: usize = 500;

/// A scenario of a run.
#[derive(Debug)]
pub struct Replay {
    /// Its name in the run: `F05`.
    pub name: String,
    /// Its verdict.
    pub report: ScenarioReport,
    /// The lab.
    pub lab: Arc<Lab>,
    /// What it rests on.
    pub history: History,
    /// From when until when.
    pub extent: Extent,
    /// All that was so.
    pub tracks: Tracks,
    /// What stands out, in time.
    pub moments: Vec<Moment>,
    order: Vec<Place>,
    /// A picture before each of these inputs.
    keys: Vec<(usize, Picture)>,
}

/// Something that stands out.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Moment {
    /// When, in microseconds since the journal began.
    pub t_us: u64,
    /// What, in words.
    pub what: String,
}

impl Replay {
    /// Every scenario of a run in which anything happened.
    ///
    /// # Errors
    /// [`Error::Usage`] where the folder has none, or not the lab that it is of.
    pub fn all(run: Run) -> Result<Vec<Self>> {
        let problem = || Problem::new("show the run").on(run.folder.display());
        let remedy = "name the folder of a run of `verify`, as a whole";
        let Some(lab) = run.lab.clone() else {
            let seen = run.missing.join("; ");
            return Err(Error::Usage(problem().observed(seen).remedy(remedy)));
        };
        let none = problem().observed("nothing happened in any of its scenarios");
        let lab = Arc::new(lab);
        let all = run.scenarios.into_iter();
        let all: Vec<Self> = all.filter_map(|s| Self::of(lab.clone(), s.report, s.history)).collect();
        match all.is_empty() {
            true => Err(Error::Usage(none.remedy(remedy))),
            false => Ok(all),
        }
    }

    /// The same from a folder.
    ///
    /// # Errors
    /// As [`Replay::all`], and where it is no folder of a run.
    pub fn read(folder: &Path) -> Result<Vec<Self>> {
        Self::all(crate::runs::read(folder)?)
    }

    /// Of a scenario; none where nothing happened.
    pub fn of(lab: Arc<Lab>, report: ScenarioReport, history: History) -> Option<Self> {
        let (tracks, _) = Tracks::of(&lab, &history)?;
        let order = order(&history);
        let mut picture = Picture::of_run(lab.clone());
        let mut keys = Vec::new();
        for (i, place) in order.iter().enumerate() {
            if i % KEYS == 0 {
                keys.push((i, picture.clone()));
            }
            picture.apply(place.of(&history));
        }
        Some(Self {
            name: report.name(),
            moments: moments(&history),
            extent: tracks.extent,
            report,
            lab,
            tracks,
            history,
            order,
            keys,
        })
    }

    /// The run as it was at `t_us`, with the newest `kept` lines of its journal.
    pub fn at(&self, t_us: u64, kept: usize) -> View {
        let t_us = t_us.clamp(self.extent.from_us, self.extent.to_us);
        let past = self.order.partition_point(|p| p.of(&self.history).t_us() <= t_us);
        let key = self.keys.iter().rev().find(|(at, _)| *at <= past);
        let (from, mut picture) = key.cloned().unwrap_or_else(|| (0, Picture::of_run(self.lab.clone())));
        for place in &self.order[from..past] {
            picture.apply(place.of(&self.history));
        }
        picture.pass(t_us);
        let events = self.order[..past]
            .iter()
            .rev()
            .filter_map(|p| match p.of(&self.history) {
                Input::Event(e) => Some(Line::Event(Box::new(e.clone()))),
                _ => None,
            });
        let mut lines: VecDeque<Line> = events.take(kept).collect();
        lines.make_contiguous().reverse();
        View {
            name: self.name.clone(),
            title: self.report.title.clone(),
            lab: self.lab.clone(),
            from_us: self.extent.from_us,
            picture,
            lines,
            status: None,
            networks: None,
            link: Link::Replay,
            kept,
            over: BTreeMap::new(),
        }
    }

    /// The moment after `t_us`, or before it.
    pub fn moment(&self, t_us: u64, later: bool) -> Option<&Moment> {
        match later {
            true => self.moments.iter().find(|m| m.t_us > t_us),
            false => self.moments.iter().rev().find(|m| m.t_us < t_us),
        }
    }
}

/// Faults, heals and takeovers, in time.
fn moments(history: &History) -> Vec<Moment> {
    let fault = |f: &crate::verify::FaultRecord| {
        let text = format!("{} {}", f.kind, crate::picture::text::fault_target(f));
        let healed = f.end_us.map(|t_us| Moment {
            t_us,
            what: format!("healed: {text}"),
        });
        [
            Some(Moment {
                t_us: f.begin_us,
                what: text,
            }),
            healed,
        ]
    };
    let mut all: Vec<Moment> = history.faults.iter().flat_map(fault).flatten().collect();
    all.extend(takeovers(history).into_iter().map(|t| Moment {
        t_us: t.t_us,
        what: format!("{} serves", t.node),
    }));
    all.sort_by_key(|m| m.t_us);
    all
}
