//! What the old node still has is taken before anything is mounted with a loss: the logs that it has closed, and the one that
//! it had open, which it closes as soon as it has read its disk (`store/tail.rs`).

use super::Member;
use super::stage::Stage;

/// How long a new owner looks for logs that it misses at the old one, in microseconds.
pub(super) const SALVAGE_US: u64 = 2_000_000;
/// How long it does so in all, as long as logs come in, in microseconds.
pub(super) const SALVAGE_ALL_US: u64 = 8_000_000;

impl Member {
    pub(super) fn generations(&self) -> u64 {
        self.stores.iter().map(|s| s.last().generation).sum()
    }

    /// Whether the other member, as it said last, has nothing of a group that is not here: no open log, and no later one.
    pub(super) fn has_all(&self, g: usize) -> bool {
        let view = self.cluster.last_heartbeat().and_then(|v| v.groups.get(g));
        view.is_some_and(|v| v.open == Some(false) && v.inspected <= self.stores[g].last().generation)
    }

    /// What the other member still has is taken before anything is mounted with a loss.
    pub(super) fn salvaging(&mut self, until: u64, have: u64, end: u64) {
        let salvaged = self.stores.iter().zip(&self.copies).all(|(s, c)| c.salvaged(s));
        let clean = self.cluster.record().clean;
        let done = salvaged && (clean || (0..self.stores.len()).all(|g| self.has_all(g)));
        let now = self.generations();
        if done || self.ctx.due(until) {
            self.mount_all();
        } else if now > have {
            let until = end.min(self.ctx.now.boot_us + SALVAGE_US);
            self.service.stage = Stage::Salvaging { until, have: now, end };
            self.ctx.wake_at(until);
        }
    }

    /// Whether the service was stopped in order on the other member before this one had everything, and still has not.
    pub(super) fn held_elsewhere(&self, g: usize) -> bool {
        let there = self.cluster.record().sole_copy(g) == Some(self.cluster.peer_name());
        there && !(self.cluster.peer_up() && self.has_all(g))
    }

    /// Whether a mount waits: the other member is heard and has more, and may give it yet.
    pub(super) fn spares(&mut self) -> bool {
        let more = (0..self.stores.len()).any(|g| !self.stores[g].mounted() && !self.has_all(g));
        if !more || self.service.accepts_loss() || !self.cluster.reaches_peer(&mut self.ctx) {
            return false;
        }
        let until = self.ctx.now.boot_us + SALVAGE_US;
        let until = *self.service.spare_until.get_or_insert(until);
        !self.ctx.due(until)
    }
}
