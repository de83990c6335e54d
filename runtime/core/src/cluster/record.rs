//! The cluster's shared record: what a majority must agree on before anybody acts on it.
//!
//! Votes are the two members and the witness. A record counts once it is durable at two of the three: any two majorities
//! meet in one voter, so whoever gathers a majority later has seen every record that counted before. Within one epoch only
//! one node (`by`) changes the record; a new leader begins with a higher epoch. A leader saves first, then asks the second
//! voter, and has one change under way at a time.

use crate::durable::{self, NotUnderstood};
use ccr_contract::status::Intent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Order and identity of a record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RecordId {
    /// Rises with each change of leader or of the service's owner.
    pub epoch: u64,
    /// The configuration tag: rises with each change.
    pub tag: u64,
    /// The node that made it.
    pub by: String,
}

impl RecordId {
    /// Whether this record came after `other`. Two records of one epoch by different nodes are not ordered: at most one
    /// of them ever counted.
    pub fn newer_than(&self, other: &RecordId) -> bool {
        (self.epoch, self.tag) > (other.epoch, other.tag) && (self.epoch != other.epoch || self.by == other.by)
    }
    /// Whether a node that holds `self` may go on although a majority has agreed on `seen`: it must have been part of it.
    pub fn covers(&self, seen: &RecordId) -> bool {
        self == seen || self.newer_than(seen)
    }
    /// Whether nothing was ever agreed.
    pub fn is_fresh(&self) -> bool {
        self.epoch == 0
    }
}

/// Who served when the service was stopped in order. It counts for the groups that were mounted last in that epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The member.
    pub node: String,
    /// The epoch in which it served.
    pub epoch: u64,
}

/// What the cluster agrees on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Order and identity.
    pub id: RecordId,
    /// Owner of the Cluster Group with the quorum resource: the leader.
    pub quorum_owner: String,
    /// Owner of the service group.
    pub owner: String,
    /// The epoch with which the owner serves: that of its last appointment.
    pub owner_epoch: u64,
    /// Whether the owner was appointed after its predecessor had handed everything over.
    pub clean: bool,
    /// For each storage group the appointment under which it was mounted last; 0 before the first time. A node whose copy
    /// was never compared with the logs of that epoch does not know what it lacks.
    #[serde(default)]
    pub served: Vec<u64>,
    /// Whether the hubs must deliver again what a predecessor may have lost: not all of them have said yet that they will.
    #[serde(default)]
    pub redeliver: bool,
    /// What the operator wants of the service.
    pub intent: Intent,
    /// Who alone has all that was acknowledged before an operator stopped the service; none as soon as both have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<Holder>,
    /// The member that an operator evicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evicted: Option<String>,
    /// The witness in force, where it is not the configuration file's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub witness: Option<String>,
    /// Live settings that differ from the configuration file.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub settings: BTreeMap<String, String>,
}

impl Record {
    /// Before the first cluster was formed.
    pub fn fresh() -> Self {
        Self {
            id: RecordId::default(),
            quorum_owner: String::new(),
            owner: String::new(),
            owner_epoch: 0,
            clean: false,
            served: Vec::new(),
            redeliver: false,
            intent: Intent::Started,
            holder: None,
            evicted: None,
            witness: None,
            settings: BTreeMap::new(),
        }
    }
    /// The next record of the leader `me`; a leader that the last one appointed begins an epoch of its own.
    pub fn next(&self, me: &str) -> Self {
        let mut next = self.clone();
        next.id.tag += 1;
        if next.id.by != me {
            next.id.epoch += 1;
            me.clone_into(&mut next.id.by);
        }
        next
    }
    /// The first record of a new leader, above everything it has seen.
    pub fn claimed_by(&self, leader: &str, seen: &RecordId) -> Self {
        let mut next = self.clone();
        next.id = RecordId {
            epoch: self.id.epoch.max(seen.epoch) + 1,
            tag: self.id.tag.max(seen.tag) + 1,
            by: leader.to_owned(),
        };
        next.quorum_owner = leader.to_owned();
        next
    }
    /// The same with another owner of the service, in a new epoch.
    pub fn appoint(mut self, owner: &str, clean: bool) -> Self {
        self.id.epoch += 1;
        self.owner = owner.to_owned();
        self.owner_epoch = self.id.epoch;
        self.clean = clean;
        self.redeliver |= !clean;
        self
    }
    /// The member that alone has what was acknowledged in a group before the service was stopped.
    pub fn holder(&self, group: usize) -> Option<&str> {
        let holder = self.holder.as_ref().filter(|h| h.epoch == self.served(group));
        holder.map(|h| h.node.as_str())
    }
    /// Nobody serves from now on, as an operator wants it. Until it is known better, only the owner has everything.
    pub fn stopped(mut self) -> Self {
        self.intent = Intent::Stopped;
        if self.served.contains(&self.owner_epoch) {
            self.holder = Some(Holder {
                node: self.owner.clone(),
                epoch: self.owner_epoch,
            });
        }
        self
    }
    /// Both have everything.
    pub fn shipped(mut self) -> Self {
        self.holder = None;
        self
    }
    /// The appointment under which a group was mounted last.
    pub fn served(&self, group: usize) -> u64 {
        self.served.get(group).copied().unwrap_or(0)
    }
}

/// What a member keeps in `cluster.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    /// The record.
    pub record: Record,
    /// Whether this node knows that a majority has it.
    pub committed: bool,
    /// The last record that this node knows a majority to have had. An own record that was not agreed on yet proves
    /// nothing: what this node has seen of the cluster is this.
    pub base: RecordId,
    /// The highest epoch that this node has ever seen or tried: a new leader goes above it.
    pub seen: u64,
    /// Whether it is not known if the other member has agreed to the witness that the record names: then neither it nor its
    /// predecessor proves anything.
    #[serde(default)]
    pub unsettled: bool,
}

/// The schema of `cluster.json`. The first one had no schema and no `saved` around it. A ccrd that knows that one only takes
/// files of a storage group that it does not understand for none, and deletes them: it must not start where they are.
const SCHEMA: u64 = 2;

#[derive(Serialize)]
struct Written<'a> {
    saved: &'a Saved,
}
#[derive(Deserialize)]
struct Read {
    saved: Saved,
}

impl Saved {
    /// The file.
    pub fn encode(&self) -> Vec<u8> {
        durable::encode(SCHEMA, &Written { saved: self })
    }
    /// Reads the file.
    pub fn decode(bytes: &[u8]) -> Result<Self, NotUnderstood> {
        match durable::schema(bytes)? {
            1 => durable::decode(1, bytes),
            _ => durable::decode::<Read>(SCHEMA, bytes).map(|r| r.saved),
        }
    }
    /// Whether a file is to be written anew, so that a ccrd that would do harm does not start on it.
    pub fn is_dated(bytes: &[u8]) -> bool {
        durable::schema(bytes).is_ok_and(|s| s < SCHEMA)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(epoch: u64, tag: u64, by: &str) -> RecordId {
        RecordId {
            epoch,
            tag,
            by: by.into(),
        }
    }

    #[test]
    fn an_uncommitted_record_does_not_cover_another_leaders_of_the_same_epoch() {
        assert!(id(3, 5, "a").covers(&id(3, 5, "a")));
        assert!(id(3, 6, "a").covers(&id(3, 5, "a")));
        assert!(id(4, 1, "b").covers(&id(3, 5, "a")));
        assert!(!id(3, 9, "a").covers(&id(3, 5, "b")));
        assert!(!id(2, 9, "a").covers(&id(3, 5, "a")));
    }
}
