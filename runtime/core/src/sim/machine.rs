//! The machines of a run: power, pauses, clocks, and the lives of their daemons.

use super::disk::Disk;
use super::streams::STREAM_DIES_US;
use super::world::{SimEvent, World};
use crate::io::{Boot, Input, Node, Now};
use crate::node;
use crate::rng::Rng;
use ccr_contract::config::Config;
use serde::{Deserialize, Serialize};

/// Two ways to stand still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pause {
    /// The machine: its boot-time clock stands still, only the RTC goes on, its kernel answers nothing.
    Machine,
    /// The process: clocks and kernel go on.
    Process,
}

/// The moment at which the power of a machine goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// In the middle of a write to a log.
    Write,
    /// In the middle of an operation that changes which files there are.
    Change,
    /// Between two parts of a message that spans generations.
    Message,
}

/// One machine.
#[derive(Debug)]
pub struct Machine {
    /// Its configuration.
    pub config: Config,
    /// Its disk.
    pub disk: Disk,
    /// The daemon; none while it is down.
    pub node: Option<Box<dyn Node + Send>>,
    /// Counts the lives of the daemon.
    pub life: u64,
    /// Whether the power is on.
    pub powered: bool,
    /// The pause it is in, and since when.
    pub paused: Option<(Pause, u64)>,
    /// When it was switched on.
    pub(super) on_since: u64,
    /// How long its boot-time clock has stood still since.
    pub(super) stood_us: u64,
    /// How fast its clock is, in parts per million.
    pub skew_ppm: i64,
    /// By how much its RTC is off.
    pub rtc_offset_us: i64,
    pub(super) inbox: Vec<Input>,
    /// When the power goes.
    pub doomed: Option<Moment>,
    /// Whether the service address is up here.
    pub has_address: bool,
    /// Whether it has the cluster's.
    pub has_cluster_address: bool,
    pub(super) session: u64,
    pub(super) wake: u64,
}

impl Machine {
    /// A machine that is switched off; its clock drifts by at most `drift_ppm` parts per million.
    pub(super) fn new(config: Config, drift_ppm: u64, rng: &mut Rng) -> Self {
        Self {
            config,
            disk: Disk::default(),
            node: None,
            life: 0,
            powered: false,
            paused: None,
            on_since: 0,
            stood_us: 0,
            skew_ppm: rng.range(0, 2 * drift_ppm + 1) as i64 - drift_ppm as i64,
            rtc_offset_us: rng.range(0, 7_200_000_000) as i64 - 3_600_000_000,
            inbox: Vec::new(),
            doomed: None,
            has_address: false,
            has_cluster_address: false,
            session: 0,
            wake: 0,
        }
    }
}

impl World {
    /// A node's clocks now.
    pub fn clocks(&self, i: usize) -> Now {
        let m = &self.machines[i];
        let until = match m.paused {
            Some((Pause::Machine, since)) => since,
            _ => self.now,
        };
        let real = (until - m.on_since - m.stood_us) as i64;
        let boot = real + real * m.skew_ppm / 1_000_000;
        let rtc = 1_800_000_000_000_000_i64 + self.now as i64 + m.rtc_offset_us;
        Now {
            boot_us: boot as u64 + 1_000_000,
            rtc_us: (rtc / 1_000_000 * 1_000_000) as u64,
        }
    }

    /// Whether the machine's kernel answers.
    pub fn kernel_runs(&self, i: usize) -> bool {
        let m = &self.machines[i];
        m.powered && !matches!(m.paused, Some((Pause::Machine, _)))
    }
    /// Whether the daemon runs and is not standing still.
    pub fn runs(&self, i: usize) -> bool {
        self.machines[i].node.is_some() && self.machines[i].paused.is_none()
    }

    /// Switches a machine on.
    pub fn power_on(&mut self, i: usize) {
        if self.machines[i].powered {
            return;
        }
        let m = &mut self.machines[i];
        m.powered = true;
        m.on_since = self.now;
        m.stood_us = 0;
        m.paused = None;
        self.note(|| format!("machine {i} on"));
        self.start_daemon(i);
    }

    pub(super) fn start_daemon(&mut self, i: usize) {
        let entropy = self.rng.bits();
        let m = &mut self.machines[i];
        m.life += 1;
        let boot = Boot {
            entropy,
            version: "sim".into(),
            planted: self.planted,
        };
        m.node = Some(node(m.config.clone(), boot));
        let life = m.life;
        self.share.started(i);
        self.look();
        self.at(1_000, SimEvent::Input(i, life, Input::Start));
    }

    /// The daemon ends. Its peers hear of it at once where the kernel goes on and packets get through.
    pub fn stop_daemon(&mut self, i: usize, power: bool) {
        self.trouble();
        let mut rng = self.rng.fork();
        let m = &mut self.machines[i];
        if m.node.take().is_none() && !power {
            self.trouble();
            return;
        }
        self.checks.counters.cut_in_a_message += u64::from(m.disk.is_in_a_message());
        m.life += 1;
        m.paused = None;
        m.doomed = None;
        m.inbox.clear();
        m.session += 1;
        m.has_address = m.has_address && !power;
        m.has_cluster_address = m.has_cluster_address && !power;
        if power {
            m.powered = false;
            let torn = m.disk.power_lost(&mut rng);
            self.checks.counters.torn_files += torn;
        } else {
            m.disk.process_died();
            if self.reaches_share(i) {
                self.share.hung_up(i);
            }
        }
        for s in 0..self.streams.len() {
            if self.streams[s].open && self.streams[s].ends.iter().any(|e| e.0 == i) {
                if power {
                    // The other end finds out by itself.
                    self.at(STREAM_DIES_US, SimEvent::StreamDies(s));
                } else {
                    self.close_stream(s, "connection reset");
                }
            }
        }
        self.drop_waiters(i);
        self.checks.forgot(i);
        self.truths.ended(self.now, i);
        self.look();
    }

    /// Stops a machine or a daemon without ending it.
    pub fn pause(&mut self, i: usize, kind: Pause) {
        let m = &mut self.machines[i];
        if m.powered && m.node.is_some() && m.paused.is_none() {
            m.paused = Some((kind, self.now));
        }
        self.look();
    }
    /// Lets it go on: what queued meanwhile comes at once, in any order of sources.
    pub fn resume(&mut self, i: usize) {
        let m = &mut self.machines[i];
        let Some((kind, since)) = m.paused.take() else { return };
        if kind == Pause::Machine {
            m.stood_us += self.now - since;
        }
        let life = m.life;
        let mut inbox = std::mem::take(&mut m.inbox);
        self.look();
        // Clients first, as often as not: theirs is the answer that must not leave.
        if self.rng.chance(60) {
            inbox.sort_by_key(|input| !matches!(input, Input::Client { .. } | Input::DiskDone { .. }));
        }
        for input in inbox {
            self.input(i, life, input);
        }
        self.input(i, life, Input::Tick);
    }

    pub(super) fn session(&mut self, i: usize, new: bool) -> u64 {
        let m = &mut self.machines[i];
        if new {
            m.session += 1;
        }
        m.session
    }
}
