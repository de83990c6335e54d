//! `status` and `dump` of a member.

use super::Member;
use crate::store::Store;
use ccr_contract::dump::Dump;
use ccr_contract::status::{self, CopyStatus, ServiceState, Status};

impl Member {
    pub(super) fn status(&self) -> Status {
        let record = self.cluster.record();
        let owner = (!record.owner.is_empty()).then(|| record.owner.clone());
        let mine = owner.as_deref() == Some(&self.config.node);
        let said = self.cluster.peer_view();
        let state = if mine || self.service_state() != ServiceState::Offline {
            Some(self.service_state())
        } else {
            said.map(|v| v.service)
        };
        let active = match state {
            Some(ServiceState::Online | ServiceState::PartiallyOnline) => owner.clone(),
            _ => None,
        };
        let service = self
            .cluster
            .is_up()
            .then_some(state)
            .flatten()
            .map(|state| status::Service {
                name: self.config.service.clone(),
                state,
                active,
                owner: owner.clone(),
                epoch: (record.owner_epoch != 0).then_some(record.owner_epoch),
                intent: record.intent,
                address: self.config.service_address.to_string(),
            });
        Status {
            schema: 1,
            node: self.config.node.clone(),
            version: self.version.clone(),
            epoch: record.id.epoch,
            cluster: Some(self.cluster.status(self.ctx.now)),
            service,
            copies: self.copies(),
            hub: None,
            // The shell has the stream.
            events: None,
        }
    }

    /// The copies: this node answers for its own; where it is the active one, for what the other one said last.
    fn copies(&self) -> Vec<status::Copy> {
        let probe_us = self.config.settings.status_probe_ms * 1000;
        let now = self.ctx.now.boot_us;
        let (said, last_said) = (self.cluster.peer_view(), self.cluster.peer_said());
        let mut out = Vec::new();
        for (g, (store, copy)) in self.stores.iter().zip(&self.copies).enumerate() {
            if store.mounted() {
                let generated = store.last().generation;
                let status = match said.and_then(|v| v.groups.get(g)) {
                    Some(view) => view.status,
                    None if self.cluster.peer_evicted() => CopyStatus::Disabled,
                    None => CopyStatus::ServiceDown,
                };
                let view = last_said.and_then(|v| v.groups.get(g));
                // What it said may be older than what this node has closed, or of logs that are not this node's.
                let inspected = view.map_or(0, |v| v.inspected).min(generated);
                let replayed = view.map_or(0, |v| v.replayed).min(inspected);
                out.push(status::Copy {
                    group: store.name.clone(),
                    node: self.cluster.peer_name().to_owned(),
                    status,
                    generated,
                    notified: view.map_or(0, |v| v.generated).clamp(inspected, generated),
                    copied: inspected,
                    inspected,
                    replayed,
                    copy_queue: generated - inspected,
                    replay_queue: inspected - replayed,
                    error: None,
                });
            } else if self.cluster.is_evicted() {
                out.push(self.own_copy(store, copy, CopyStatus::Disabled));
            } else {
                out.push(self.own_copy(store, copy, copy.status(now, store, probe_us)));
            }
        }
        out
    }

    fn own_copy(&self, store: &Store, copy: &super::Copy, status: CopyStatus) -> status::Copy {
        let inspected = store.last().generation;
        let generated = store.known.generated.max(inspected);
        let replayed = store.checkpoint.generation;
        status::Copy {
            group: store.name.clone(),
            node: self.config.node.clone(),
            status,
            generated,
            notified: generated,
            copied: copy.copied.clamp(inspected, generated),
            inspected,
            replayed,
            copy_queue: generated - inspected,
            replay_queue: inspected.saturating_sub(replayed),
            error: (store.damage.clone())
                .or_else(|| copy.error.clone())
                .or_else(|| store.open_damage.clone()),
        }
    }

    pub(super) fn dump(&self) -> Dump {
        Dump {
            schema: 1,
            node: self.config.node.clone(),
            groups: self.stores.iter().map(Store::dump).collect(),
            queued: Vec::new(),
        }
    }
}
