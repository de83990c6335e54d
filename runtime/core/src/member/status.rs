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
        let heartbeat = self.cluster.member_heartbeat();
        let state = if mine || self.service_state() != ServiceState::Offline {
            Some(self.service_state())
        } else {
            heartbeat.map(|v| v.service)
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
                cause: self.service_cause(),
                intent: record.intent,
                address: self.config.service_address.to_string(),
                redelivery_due: record.redeliver,
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
            node_t_us: None,
        }
    }

    /// The groups that are not mounted here although the service is, with the logs that are lost.
    pub(super) fn losses(&self) -> String {
        let dismounted = (0..self.stores.len()).filter(|g| !self.stores[*g].mounted());
        let lost = |g: usize| format!("{} with {} logs lost", self.stores[g].name, self.dial(g).0);
        dismounted.map(lost).collect::<Vec<_>>().join(", ")
    }

    /// Why a group is not mounted here although the service is.
    fn dismounted(&self, g: usize) -> Option<String> {
        let (lost, verdict) = self.dial(g);
        let out = self.service.partially() && !self.stores[g].mounted();
        let why = verdict.err().filter(|_| out)?;
        Some(format!("dismounted, {lost} logs lost: {why}"))
    }

    /// What is wrong with the databases of the service here, or under way.
    fn service_cause(&self) -> Option<String> {
        let mut causes = Vec::new();
        for (g, store) in self.stores.iter().enumerate() {
            causes.extend(self.dismounted(g).map(|why| format!("{} is {why}", store.name)));
            if !store.mounted() {
                continue;
            }
            for why in store.scrub.corrupt.values() {
                let peer = self.cluster.peer_name();
                let gives = self.repairs[g].why.as_ref();
                let gives = gives.map_or_else(String::new, |why| format!("; {peer} cannot give it: {why}"));
                causes.push(format!("{}: {why}{gives}", store.name));
            }
        }
        if let Some(v) = &self.service.verifying {
            let far = v
                .done
                .map_or_else(String::new, |(done, all)| format!(": {done} of {all} files"));
            causes.push(format!("{} verifies its databases for a move{far}", v.to));
        }
        (!causes.is_empty()).then(|| causes.join("; "))
    }

    /// The copies: this node answers for its own; where it is the active one, for what the other one said last.
    fn copies(&self) -> Vec<status::Copy> {
        let probe_us = self.config.settings.status_probe_ms * 1000;
        let now = self.ctx.now.boot_us;
        let (heartbeat, last) = (self.cluster.member_heartbeat(), self.cluster.last_heartbeat());
        let mut out = Vec::new();
        for (g, (store, copy)) in self.stores.iter().zip(&self.copies).enumerate() {
            if store.mounted() {
                let generated = store.last().generation;
                let status = match heartbeat.and_then(|v| v.groups.get(g)) {
                    Some(view) => view.status,
                    None if self.cluster.peer_evicted() => CopyStatus::Disabled,
                    None => CopyStatus::ServiceDown,
                };
                let view = last.and_then(|v| v.groups.get(g));
                // What it said may be older than what this node has closed, or of logs that are not this node's.
                let inspected = view.map_or(0, |v| v.inspected).min(generated);
                // What it wrote itself while it served counts as far as this node began with it.
                let served = view.is_some_and(|v| v.mounted || v.status == CopyStatus::Stopped);
                let inspected = inspected.min(if served { store.begun } else { u64::MAX });
                let inspected = inspected.min(view.and_then(|v| v.common).unwrap_or(u64::MAX));
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
        let common = store.source_state.common.unwrap_or(u64::MAX);
        let inspected = store.last().generation.min(common);
        let generated = store.source_state.generated.max(inspected);
        let replayed = store.checkpoint.generation.min(common);
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
                .or_else(|| self.dismounted(store.at))
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
