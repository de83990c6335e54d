//! Steps of a plan that wait for their moment, and datagrams that are held back for a later one.

use super::act::around;
use super::plan::{Then, What};
use super::world::{PRIVATE, PUBLIC, SimEvent, World};
use crate::command::Command;
use crate::io::Input;
use crate::wire;

/// Most datagrams that are delayed.
const MOST_DELAYED: usize = 40;

/// Datagrams of one life of a member's daemon, and to whom they go.
#[derive(Debug)]
pub(super) struct DelayedDatagrams {
    pub from: usize,
    pub life: u64,
    pub datagrams: Vec<(usize, Input)>,
}

impl World {
    /// A datagram may be delayed, beside the one that arrives.
    pub(super) fn hold(&mut self, i: usize, j: usize, datagram: &Input) {
        let life = self.machines[i].life;
        let Some(delayed) = &mut self.delayed else { return };
        if delayed.from == i && delayed.life == life && delayed.datagrams.len() < MOST_DELAYED && self.more.chance(30) {
            delayed.datagrams.push((j, datagram.clone()));
        }
    }

    /// What is delayed arrives, over a while.
    pub(super) fn let_go(&mut self) {
        let Some(delayed) = self.delayed.take() else { return };
        if self.machines[delayed.from].life == delayed.life {
            return;
        }
        for (j, datagram) in delayed.datagrams {
            self.checks.counters.held_datagrams += 1;
            let us = self.more.range(0, 40_000_000);
            let life = self.machines[j].life;
            self.at(us, SimEvent::Input(j, life, datagram));
        }
    }

    /// A service came online on a member: what waits for that follows.
    pub(super) fn came_online(&mut self, i: usize) {
        for n in std::mem::take(&mut self.waiting) {
            let what = &self.plan.steps[n].what;
            if matches!(what, What::BehindOnline(Then::MoveAtReturn) | What::CutAtNoLease) {
                self.waiting.push(n);
                continue;
            }
            let us = match self.plan.steps[n].what {
                What::BehindOnline(Then::Move) => self.more.range(0, 500_000),
                _ => self.more.range(0, 50_000),
            };
            self.at(us, SimEvent::Behind(n, i));
        }
    }

    /// A member heard a heartbeat: what waits for one that asks for no lease, from a member that serves, cuts the two off from each
    /// other until its end.
    pub(super) fn hears_of_no_lease(&mut self, i: usize, datagram: &Input) {
        let waits = |n: &usize| self.plan.steps[*n].what == What::CutAtNoLease;
        let Some(at) = self
            .waiting
            .iter()
            .position(waits)
            .filter(|_| self.truths.serves(1 - i))
        else {
            return;
        };
        let Input::Datagram { bytes, .. } = datagram else {
            return;
        };
        if wire::decode_heartbeat(bytes).is_ok_and(|h| h.lease) {
            return;
        }
        let n = self.waiting.remove(at);
        self.note(|| format!("CUT {n}: between the members"));
        let cuts = [PUBLIC, PRIVATE].into_iter().flat_map(|n| [(n, 0, 1), (n, 1, 0)]);
        self.done[n].cuts = cuts.collect();
        self.cuts.extend(self.done[n].cuts.iter().copied());
        self.checks.counters.cuts_at_no_lease += 1;
        self.share_contact();
        self.look();
    }

    /// A member that serves sees the other one again.
    pub(super) fn came_back(&mut self, i: usize) {
        let returns = |w: &What| *w == What::BehindOnline(Then::MoveAtReturn);
        let at = self.waiting.iter().position(|n| returns(&self.plan.steps[*n].what));
        if let Some(at) = at.filter(|_| self.truths.serves(i)) {
            let n = self.waiting.remove(at);
            let us = self.more.range(0, 400_000);
            self.at(us, SimEvent::Behind(n, i));
        }
    }

    pub(super) fn behind_online(&mut self, n: usize, i: usize) {
        let what = self.plan.steps[n].what.clone();
        self.note(|| format!("BEHIND {n} {what:?}: {i}"));
        let us = self.more.range(100_000, 3_000_000);
        match what {
            What::Hold(_) => return self.kill_for(i, us / 4),
            What::BehindOnline(Then::Move | Then::MoveAtReturn) => {
                self.checks.counters.moves_behind_online += 1;
                let to = self.machines[1 - i].config.node.clone();
                let comment = "right away".into();
                return self.order(
                    n,
                    i,
                    Command::Move {
                        to,
                        comment,
                        ignore_dismounted: false,
                    },
                );
            }
            What::BehindOnline(Then::Kill) => self.kill_for(i, us),
            What::BehindOnline(Then::KillOther) => self.kill_for(1 - i, us),
            What::BehindOnline(Then::PowerOff) => {
                self.stop_daemon(i, true);
                self.at(us + 5_000_000, SimEvent::PowerOn(i));
            }
            _ => return,
        }
        self.checks.counters.ends_behind_online += 1;
    }

    /// The cuts of a step that waited for its moment.
    pub(super) fn cut_off(&mut self, n: usize, i: usize) {
        self.note(|| format!("CUT {n}: everything of {i}"));
        self.cuts.extend(around(i));
        self.done[n].cuts = around(i);
        self.share_contact();
        self.look();
        // Long enough for the other one to take over, short enough for the hub to wait.
        let us = self.rng.range(8_700_000, 9_700_000);
        self.at(us, SimEvent::Undo(n));
    }
}
