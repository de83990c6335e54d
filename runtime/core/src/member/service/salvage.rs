//! What the old node still has is taken before anything is mounted with a loss: the logs that it has closed, and the one that
//! it had open, which it closes as soon as it has read its disk (`store/tail.rs`).

use super::{Round, Service, Stage};

/// How long a new owner looks for logs that it misses at the old one, in microseconds.
const SALVAGE_US: u64 = 2_000_000;
/// How long it does so in all, as long as logs come in, in microseconds.
const SALVAGE_ALL_US: u64 = 8_000_000;

impl Service {
    /// The promises of before are kept; then what is missing here is looked for, where somebody may have it.
    pub(super) fn waiting(&mut self, r: &mut Round<'_>) {
        let recovered = r.groups.stores().all(|s| s.recovered() && s.quiet());
        if !recovered || r.groups.copies_busy() || !r.ctx.due(r.cluster.safe_to_serve_at) {
            return;
        }
        let missing = r
            .groups
            .stores()
            .any(|s| s.source_state.generated > s.last().generation);
        // After a handoff nothing can be left over there.
        let left = !r.cluster.record.clean && !r.groups.have_all(&r.cluster);
        let somewhere = (missing || left) && r.cluster.reaches_peer(r.ctx);
        let now = r.ctx.now.boot_us;
        let until = now + if somewhere { SALVAGE_US } else { 0 };
        self.stage = Stage::Salvaging {
            until,
            have: r.groups.generations(),
            end: now + SALVAGE_ALL_US,
        };
        r.ctx.wake_at(now);
    }

    /// What the other member still has is taken before anything is mounted with a loss.
    pub(super) fn salvaging(&mut self, r: &mut Round<'_>, until: u64, have: u64, end: u64) {
        let salvaged = r.groups.iter().all(|g| g.copy.salvaged(&g.store));
        let done = salvaged && (r.cluster.record.clean || r.groups.have_all(&r.cluster));
        let now = r.groups.generations();
        if done || r.ctx.due(until) {
            self.mount_all(r);
        } else if now > have {
            let until = end.min(r.ctx.now.boot_us + SALVAGE_US);
            self.stage = Stage::Salvaging { until, have: now, end };
            r.ctx.wake_at(until);
        }
    }

    /// Whether a mount waits: the other member is heard and has more, and may give it yet.
    pub(super) fn spares(&mut self, r: &mut Round<'_>) -> bool {
        let more = r.groups.iter().any(|g| !g.store.mounted() && !g.has_all(&r.cluster));
        if !more || self.accepts_loss() || !r.cluster.reaches_peer(r.ctx) {
            return false;
        }
        let until = r.ctx.now.boot_us + SALVAGE_US;
        let until = *self.appointment().spare_until.get_or_insert(until);
        !r.ctx.due(until)
    }
}
