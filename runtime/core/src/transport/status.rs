//! What an operator is told of a hub.

use super::Hub;
use super::queue::State;
use crate::mailbox::mailbox_of;
use ccr_contract::{dump, status};

impl Hub {
    pub(super) fn status(&self) -> status::Status {
        status::Status {
            schema: 1,
            node: self.config.node.clone(),
            version: self.version.clone(),
            epoch: self.saved.epoch_seen,
            cluster: None,
            service: None,
            copies: Vec::new(),
            hub: Some(status::Hub {
                queued: self.queue.queued().count() as u64,
                dumpster: self.queue.dumpster_len() as u64,
                dumpster_bytes: self.queue.dumpster_bytes(),
                redeliveries: self.queue.queued().filter(|m| m.again).count() as u64,
                epoch_seen: self.saved.epoch_seen,
                set_aside: self.set_aside,
                refused: self.refused,
            }),
            events: None,
            node_t_us: None,
            facts: Default::default(),
            unread: Default::default(),
            wrong: Vec::new(),
        }
    }

    pub(super) fn dump(&self) -> dump::Dump {
        let some = |s: &String| (!s.is_empty()).then(|| s.clone());
        let queued = self.queue.queued().flat_map(|m| {
            let waiting = m
                .states
                .iter()
                .zip(&m.head.recipients)
                .filter(|(s, _)| !matches!(s, State::Done { .. }));
            waiting.map(move |(_, r)| dump::Queued {
                key: some(&m.head.key),
                hub_id: m.head.id.clone(),
                mailbox: mailbox_of(r).unwrap_or_default(),
            })
        });
        dump::Dump {
            schema: 1,
            node: self.config.node.clone(),
            groups: Vec::new(),
            queued: queued.collect(),
        }
    }
}
