//! Going offline in order: an operator stops the service, or moves it without any check. What is open is closed, so that the
//! other member can have it; a stop is done when that one has inspected everything. Where it cannot, the record goes on saying
//! who alone has everything, and the service starts only with that (`Record::sole_copy`).

use super::Member;
use super::handoff::HANDOFF_US;
use super::operator::Asker;
use super::stage::Stage;
use crate::io::{AddressKind, Effect, Reply};
use crate::op::Pending;
use crate::planted::Bug;
use ccr_contract::status::{CopyStatus, Intent, ServiceState};

/// How long the disk may take to close what is open, in microseconds.
const CLOSE_US: u64 = 5_000_000;
/// How long a stop waits for a copy that is there and not Healthy, in microseconds.
const UNWELL_US: u64 = 5_000_000;
/// How long an operator waits for a stop that was agreed to, in microseconds.
const STOP_US: u64 = HANDOFF_US + 15_000_000;

/// An operator who waits until the service is offline.
#[derive(Debug)]
pub(super) struct Stopping {
    pub asker: Asker,
    pub text: String,
    pub since: u64,
}

impl Member {
    /// The service is not this node's any more, or shall not run: goes offline in order where there is the time.
    pub(super) fn leave(&mut self) {
        let up = self.cluster.is_up();
        match self.service.stage.clone() {
            Stage::Closing { .. } if up => {}
            Stage::Online if up => self.begin_closing(),
            Stage::Draining { asker, .. } if up => {
                let text = "the move was broken off: another owner, or stopped".to_owned();
                self.service.finished = Some((asker, Reply::Denied(text)));
                self.begin_closing();
            }
            _ if up => self.go_offline("another owner, or stopped"),
            _ => self.go_offline("no majority"),
        }
    }

    pub(super) fn begin_closing(&mut self) {
        self.ctx.emit(Effect::CloseClients);
        self.clients.forget();
        let which = AddressKind::Service;
        self.ctx.address(Pending::Address(which, false), which, false);
        let since = self.ctx.now.boot_us;
        self.service.stage = Stage::Closing { since };
        self.ctx.wake_at(since);
    }

    pub(super) fn closing(&mut self, since: u64) {
        for store in &mut self.stores {
            store.roll(&mut self.ctx);
        }
        let record = self.cluster.record();
        let mine = record.owner == self.config.node && record.owner_epoch == self.service.epoch();
        let stopped = mine && record.intent == Intent::Stopped;
        // Whoever ends leaves nothing that the other one needs.
        let ships = stopped || (mine && self.ending.is_some());
        let closed = self.stores.iter().all(crate::store::Store::is_drained);
        let (healthy, shipped) = self.shipped();
        let done = closed && (shipped || !ships);
        let patience = match ships {
            _ if !closed => CLOSE_US,
            true if healthy => HANDOFF_US,
            true if self.cluster.peer_up() => UNWELL_US,
            _ => 0,
        };
        if done && ships && !stopped && !self.service.partially() {
            let to = self.cluster.peer_name().to_owned();
            self.release(to, Asker::Nobody, since);
        } else if done || self.ctx.due(since + patience) {
            let why = match (stopped, ships) {
                (true, _) if done => "stopped; the copy has everything",
                (true, _) => "stopped; the copy has not everything",
                (_, true) if done => "the daemon ends; the copy has everything",
                (_, true) => "the daemon ends; the copy has not everything",
                _ => "another owner",
            };
            if let Some(ending) = &mut self.ending {
                ending.given = closed && shipped;
            }
            self.go_offline_so(why, stopped || (done && ships));
            if stopped && done {
                self.service.stage = Stage::Shipped;
            }
        }
    }

    /// Whether the copies of what is mounted here are Healthy, and whether they have inspected every closed log.
    pub(super) fn shipped(&self) -> (bool, bool) {
        let Some(view) = self.cluster.member_heartbeat() else {
            return (false, false);
        };
        let mounted = || self.stores.iter().zip(&view.groups).filter(|(s, _)| s.mounted());
        let healthy = mounted().all(|(_, g)| g.status == CopyStatus::Healthy);
        let inspected = mounted().all(|(s, g)| g.inspected >= s.last().generation);
        let inspected = inspected || self.ctx.plays(Bug::GiveUninspected);
        (healthy, healthy && inspected)
    }

    /// Answers operators whose stop has been carried out, or takes too long.
    pub(super) fn drive_stopping(&mut self) {
        let mut waiting = std::mem::take(&mut self.operators.stopping);
        waiting.retain(|w| match self.stop_outcome(w.since) {
            Some(more) => {
                self.answer(w.asker.clone(), Reply::Done(format!("{}{more}", w.text)));
                false
            }
            None => true,
        });
        self.operators.stopping.append(&mut waiting);
    }

    /// What there is to say of a stop; nothing as long as it is under way.
    fn stop_outcome(&mut self, since: u64) -> Option<String> {
        let late = self.ctx.due(since + STOP_US);
        let record = self.cluster.record();
        if record.intent != Intent::Stopped {
            return Some("; it was started again meanwhile".into());
        }
        let view = self.cluster.member_heartbeat();
        let (offline, shipped) = if record.owner == self.config.node {
            (!self.service.is_engaged(), self.service.has_given_all())
        } else {
            let view = view.filter(|v| v.id == record.id);
            let offline = view.is_some_and(|v| {
                v.service_epoch == 0 && matches!(v.service, ServiceState::Offline | ServiceState::Failed)
            });
            (offline, view.is_some_and(|v| v.handed_over))
        };
        match &record.sole_copy {
            // That both have everything must be known to a majority.
            None if offline && self.cluster.committed() => Some(String::new()),
            Some(sole_copy) if offline && !shipped => Some(format!(
                "; only {} has all that was acknowledged: the service starts with it, or dismounted until `mount` accepts the loss",
                sole_copy.node
            )),
            _ if late => Some("; it is not offline yet".into()),
            _ => None,
        }
    }

    /// How far the copies on a member are, for whoever moves the service without a check.
    pub(super) fn lag_on(&self, to: &str) -> String {
        let heartbeat = self.cluster.last_heartbeat();
        let here = to == self.config.node;
        let lag = |g: usize| {
            let store = &self.stores[g];
            let view = heartbeat.and_then(|v| v.groups.get(g));
            let (status, behind) = if here {
                let status =
                    self.copies[g].status(self.ctx.now.boot_us, store, self.config.settings.status_probe_ms * 1000);
                (
                    Some(status),
                    store.source_state.generated.saturating_sub(store.last().generation),
                )
            } else {
                let generated = store.source_state.generated.max(store.last().generation);
                let inspected = view.map_or(0, |v| v.inspected);
                (view.map(|v| v.status), generated.saturating_sub(inspected))
            };
            let status = status.map_or_else(|| "unknown".to_owned(), |s| format!("{s:?}"));
            format!("{} there is {status}, {behind} logs behind", store.name)
        };
        (0..self.stores.len()).map(lag).collect::<Vec<_>>().join("; ")
    }
}
