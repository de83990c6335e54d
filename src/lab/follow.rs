//! Followers: each receives the events of one node's runtime and puts them into the lab's journal, once each, for as long as the lab lives.
//!
//! A follower goes on from where the journal ends: one of a supervisor that adopted the lab knows by the journal what its predecessor had
//! received. A number that is missing is an event [`kind::GAP`].

use super::halt::Halt;
use crate::deploy::{self, Pack};
use crate::error::Result;
use crate::event::{Draft, Event, Journal, Read, Reader, Severity, Source, kind};
use crate::guest::Remote;
use crate::lock::lock;
use crate::wait::{Deadline, Slowness};
use ccr_contract::event::NodeEvent;
use ccr_contract::status::EventsMark;
use serde_json::json;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The longest that a handshake and a look at the clock may take, on a fast host.
pub(super) const CONNECT: Duration = Duration::from_secs(15);

/// Pause before what lost its machine, a follower or a watch, tries again.
pub(super) const AGAIN: Duration = Duration::from_millis(500);

/// How long a lab that has just become healthy is left alone before its events are followed: nothing is missed, and the handshakes
/// would take the processors from whoever waited for the lab.
const SETTLE: Duration = Duration::from_secs(2);

/// Numbers that are remembered of a node: more than its runtime keeps, so that what comes again is known.
const REMEMBERED: usize = 16_384;

/// What a follower's thread shares with the engine.
#[derive(Debug, Default)]
pub(super) struct Follower {
    halt: Halt,
    clock: Clock,
    journaled: Mutex<Journaled>,
}

impl Follower {
    /// The machine's boot-time clock stood still or began anew: events of before and after are aligned apart.
    pub fn clock_jumped(&self) {
        self.clock.jumps.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the journal has every event up to here.
    pub fn has(&self, mark: &EventsMark) -> bool {
        lock(&self.journaled).has(mark)
    }

    /// Ends the thread as soon as it sees the flag.
    pub fn stop(&self) {
        self.halt.tell();
    }
}

/// Where a node's boot-time clock lies on the journal's: `t_us = node_t_us + offset_us`.
#[derive(Debug, Default)]
struct Clock {
    /// Counts the times that the machine's clock stood still or began anew: the offset of before is void.
    jumps: AtomicU64,
    alignment: Mutex<Option<ClockAlignment>>,
}

#[derive(Debug, Clone, Copy)]
struct ClockAlignment {
    offset_us: i64,
    skew_us: u64,
    jumps: u64,
}

/// Follows one node until it is told to stop.
pub(super) struct Thread {
    pub node: String,
    /// A way into it.
    pub connect: Box<dyn Fn(Deadline) -> Result<Box<dyn Remote>> + Send>,
    pub pack: Pack,
    pub journal: Journal,
    /// The journal's file: what was received before this follower.
    pub before: PathBuf,
    pub follower: Arc<Follower>,
    pub slowness: Slowness,
}

/// Begins to follow.
pub(super) fn begin(thread: Thread) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name(format!("follow {}", thread.node))
        .stack_size(256 << 10)
        .spawn(move || thread.run())
        .map(drop)
}

impl Thread {
    fn run(self) {
        match Journaled::in_journal(&self.before, &self.node) {
            // Events that are in the journal are not journalled again.
            Ok(journaled) => *lock(&self.follower.journaled) = journaled,
            Err(e) => self.tell("follow.failed", Severity::Error, &e.to_string()),
        }
        self.follower.halt.wait(SETTLE);
        while !self.follower.halt.told() {
            if let Err(e) = self.once() {
                self.tell("follow.lost", Severity::Debug, &e.to_string());
            }
            self.follower.halt.wait(AGAIN);
        }
    }

    fn tell(&self, kind: &str, severity: Severity, text: &str) {
        let draft = Draft::new(Source::Tool, kind).node(&self.node).severity(severity);
        self.journal.emit(draft.data(json!({ "text": text })));
    }

    fn once(&self) -> Result<()> {
        let mut remote = (self.connect)(Deadline::scaled(CONNECT, self.slowness))?;
        self.align_clock(&mut *remote)?;
        deploy::follow_events(&mut *remote, &self.pack, &mut |event| {
            // Kept until the journal has it: what was received is there.
            let mut journaled = lock(&self.follower.journaled);
            let dedup = journaled.note(event.seq, event.node_t_us);
            if let Dedup::New { missing } = dedup {
                let draft = self.draft(event);
                if let Some((from, to)) = missing {
                    self.journal.emit(gap(&self.node, from, to, draft.t_us));
                }
                self.journal.emit(draft);
            }
            drop(journaled);
            !self.follower.halt.told()
        })
    }

    /// Measures where the node's boot-time clock lies: it was read between two readings of ours.
    fn align_clock(&self, remote: &mut dyn Remote) -> Result<()> {
        let jumps = self.follower.clock.jumps.load(Ordering::Relaxed);
        let deadline = Deadline::scaled(CONNECT, self.slowness);
        let before = self.journal.now_us();
        let uptime = remote.boottime(deadline)?;
        let after = self.journal.now_us();
        let node_us = uptime.as_micros() as i64;
        let alignment = ClockAlignment {
            offset_us: (before + (after - before) / 2) as i64 - node_us,
            // The kernel counts hundredths.
            skew_us: (after - before) / 2 + 10_000,
            jumps,
        };
        *lock(&self.follower.clock.alignment) = Some(alignment);
        Ok(())
    }

    fn draft(&self, event: NodeEvent) -> Draft {
        // No event is received before it happened: the node's clock lies no later than this on the journal's.
        let latest_us = self.journal.now_us() as i64 - event.node_t_us as i64;
        let clock = &self.follower.clock;
        let jumps = clock.jumps.load(Ordering::Relaxed);
        let mut alignment = lock(&clock.alignment);
        let p = alignment.get_or_insert(ClockAlignment {
            offset_us: latest_us,
            skew_us: 1_000_000,
            jumps,
        });
        if p.jumps != jumps {
            // The first event after a jump came at once: its delay is the new skew's bound.
            *p = ClockAlignment {
                offset_us: latest_us,
                skew_us: p.skew_us.max(500_000),
                jumps,
            };
        }
        p.offset_us = p.offset_us.min(latest_us);
        let t_us = (event.node_t_us as i64 + p.offset_us).max(0) as u64;
        Draft {
            t_us: Some(t_us),
            skew_us: Some(p.skew_us),
            ..Draft::of_runtime(&self.node, event)
        }
    }
}

/// That events of a node are missing, at the time of the first one behind them.
fn gap(node: &str, from: u64, to: u64, t_us: Option<u64>) -> Draft {
    let text = format!("events {from} to {to} of {node} were lost on their way");
    let mut draft = Draft::new(Source::Tool, kind::GAP)
        .node(node)
        .severity(Severity::Warning)
        .data(json!({"from": from, "to": to, "text": text}));
    draft.t_us = t_us;
    draft
}

/// Which events of a node are in the journal: number → the node's clock. A daemon that began anew counts from 0, on another clock.
#[derive(Debug, Default)]
struct Journaled(BTreeMap<u64, u64>);

/// What an event is to the journal.
#[derive(Debug, PartialEq, Eq)]
enum Dedup {
    /// It is there already.
    Again,
    /// It is new; and the first and last number between it and the one before, where there are some.
    New { missing: Option<(u64, u64)> },
}

impl Journaled {
    /// What the journal at `path` has of `node`.
    fn in_journal(path: &Path, node: &str) -> Result<Self> {
        let mut journaled = Self::default();
        let mut journal = Reader::open(path, 0)?;
        while let Some(read) = journal.read()? {
            if let Read::Event(event) = read {
                journaled.remember(&event, node);
            }
        }
        Ok(journaled)
    }

    fn remember(&mut self, event: &Event, node: &str) {
        let ours = event.src == Source::Node && event.node.as_deref() == Some(node);
        if let (true, Some(seq), Some(t)) = (ours, event.node_seq, event.node_t_us) {
            self.note(seq, t);
        }
    }

    fn note(&mut self, seq: u64, node_t_us: u64) -> Dedup {
        match self.0.get(&seq) {
            Some(t) if *t == node_t_us => return Dedup::Again,
            // The same number on another clock: a daemon that began anew, or a machine that came back to an earlier instant.
            Some(_) => drop(self.0.split_off(&seq)),
            // Below everything that is remembered: it began anew.
            None if self.0.first_key_value().is_some_and(|(first, _)| seq < *first) => self.0.clear(),
            None => {}
        }
        let next = self.0.last_key_value().map_or(0, |(last, _)| last + 1);
        self.0.insert(seq, node_t_us);
        while self.0.len() > REMEMBERED {
            self.0.pop_first();
        }
        Dedup::New {
            missing: (seq > next).then(|| (next, seq - 1)),
        }
    }

    fn has(&self, mark: &EventsMark) -> bool {
        match (mark.next.checked_sub(1), mark.last_us) {
            (None, _) => true,
            (Some(last), Some(t)) => self.0.get(&last) == Some(&t),
            (Some(_), None) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Dedup = Dedup::New { missing: None };

    #[test]
    fn an_event_that_comes_again_is_known_and_a_new_daemon_is_followed() {
        let mut journaled = Journaled::default();
        assert_eq!([journaled.note(0, 10), journaled.note(1, 20)], [NEW, NEW]);
        assert_eq!(
            [journaled.note(0, 10), journaled.note(1, 20)],
            [Dedup::Again, Dedup::Again]
        );
        assert_eq!(journaled.note(2, 20), NEW);
        // The machine booted again: its clock and its numbers begin anew.
        assert_eq!([journaled.note(0, 5), journaled.note(1, 6)], [NEW, NEW]);
        // A machine that came back to an earlier instant goes on from there; what it had before is still known.
        assert_eq!([journaled.note(2, 30), journaled.note(1, 40)], [NEW, NEW]);
        assert_eq!(journaled.note(0, 5), Dedup::Again);
    }

    #[test]
    fn a_number_that_is_left_out_is_missed() {
        let mut journaled = Journaled::default();
        let found: Vec<Dedup> = [0, 1, 9000, 9001]
            .iter()
            .map(|n| journaled.note(*n, 1000 + n))
            .collect();
        let gap = Dedup::New {
            missing: Some((2, 8999)),
        };
        assert_eq!(found, [NEW, NEW, gap, NEW]);
        // So is the beginning of a stream, of the first daemon and of a later one.
        let late = Dedup::New { missing: Some((0, 6)) };
        assert_eq!(Journaled::default().note(7, 1), late);
        assert_eq!(
            [journaled.note(0, 1), journaled.note(9000, 2)],
            [
                NEW,
                Dedup::New {
                    missing: Some((1, 8999))
                }
            ]
        );
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut journaled = Journaled::default();
        for n in 0..3 * REMEMBERED as u64 {
            assert_eq!(journaled.note(n, n), NEW);
        }
        assert_eq!(journaled.0.len(), REMEMBERED);
        assert_eq!(
            journaled.note(0, 1),
            NEW,
            "a new daemon, though the number was forgotten"
        );
        assert_eq!(journaled.0.len(), 1);
    }

    #[test]
    fn a_follower_goes_on_from_where_the_journal_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let journal = Journal::open(&path, 7).unwrap();
        let emit = |node: &str, seq, t| {
            let draft = Draft::new(Source::Node, "x").node(node);
            journal.emit(Draft {
                node_seq: Some(seq),
                node_t_us: Some(t),
                ..draft
            });
        };
        emit("node1", 0, 10);
        emit("node2", 0, 11);
        emit("node1", 1, 20);
        journal.emit(Draft::new(Source::Tool, kind::ADOPTED));
        let mut journaled = Journaled::in_journal(&path, "node1").unwrap();
        assert_eq!(
            [journaled.note(0, 10), journaled.note(1, 20)],
            [Dedup::Again, Dedup::Again]
        );
        // What the node lost while no follower ran is reported.
        assert_eq!(journaled.note(3, 40), Dedup::New { missing: Some((2, 2)) });
        assert!(Journaled::in_journal(&dir.path().join("none"), "node1").is_err());
    }

    #[test]
    fn a_mark_is_reached_with_its_last_event_and_in_the_same_life() {
        let mut journaled = Journaled::default();
        let mark = |next, last_us| EventsMark { next, last_us };
        assert!(journaled.has(&mark(0, None)));
        assert!(!journaled.has(&mark(1, Some(10))));
        journaled.note(0, 10);
        journaled.note(1, 20);
        assert!(journaled.has(&mark(1, Some(10))) && journaled.has(&mark(2, Some(20))));
        // A daemon that began anew has fewer events than were received of the one before.
        assert!(!journaled.has(&mark(1, Some(3))) && !journaled.has(&mark(2, None)));
    }
}
