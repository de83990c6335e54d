//! The cluster's shared record: what a majority must agree on before anybody acts on it.
//!
//! Votes are the two members and the witness. A record counts once it is durable at two of the three: any two majorities
//! meet in one voter, so whoever gathers a majority later has seen every record that counted before. A leader saves first, then
//! asks the second voter, and has one change under way at a time.
//!
//! Each epoch belongs to one member by its number ([`EpochOwner`]), and only that member (`by`) makes records of it; a new leader
//! begins with a higher epoch. So no two members share an epoch, not even where an operator forced each of them while it could
//! not hear the other one; and an epoch that an answer carries was lived in by one node only.

use crate::durable::{self, NotUnderstood};
use ccr_contract::status::Intent;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A member as the one who makes records: its epochs are those whose number leaves its position, in the order of the members'
/// names, when divided by how many there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochOwner {
    /// Its name.
    pub name: String,
    position: u64,
    members: u64,
}

impl EpochOwner {
    /// The member `name` of these.
    pub fn new<'a>(name: &str, members: impl Iterator<Item = &'a str>) -> Self {
        let (mut position, mut count) = (0, 0);
        for member in members {
            count += 1;
            position += u64::from(member < name);
        }
        let name = name.to_owned();
        let members = std::cmp::max(count, 1);
        Self {
            name,
            position,
            members,
        }
    }
    /// Whether an epoch belongs to it. Before there was this rule they belonged to whoever was first.
    pub fn owns(&self, epoch: u64) -> bool {
        epoch % self.members == self.position
    }
    /// Its first epoch after `epoch`.
    pub fn epoch_after(&self, epoch: u64) -> u64 {
        let after = epoch + 1;
        after + (self.position + self.members - after % self.members) % self.members
    }
}

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
    /// Whether this record came after `other`. Two records of one epoch by different nodes are not ordered by this: at most
    /// one of them ever counted, where nobody was forced.
    pub fn newer_than(&self, other: &RecordId) -> bool {
        (self.epoch, self.tag) > (other.epoch, other.tag) && (self.epoch != other.epoch || self.by == other.by)
    }
    /// Whether a node that holds `self` may go on although a majority has agreed on `other`: it must have been part of it.
    pub fn covers(&self, other: &RecordId) -> bool {
        self == other || self.newer_than(other)
    }
    /// The same for two records that were both agreed to. Where both are of one epoch and different nodes, an operator had forced
    /// each of them (with a ccrd that did not know whose an epoch is): the one of the later name counts.
    pub fn covers_agreed(&self, agreed: &RecordId) -> bool {
        self.rank() >= agreed.rank()
    }
    /// The order of records that were agreed to.
    pub fn rank(&self) -> (u64, &str, u64) {
        (self.epoch, &self.by, self.tag)
    }
    /// Whether nothing was ever agreed.
    pub fn is_fresh(&self) -> bool {
        self.epoch == 0
    }
}

/// Who served when the service was stopped in order. It counts for the groups that were mounted last in that epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SoleCopy {
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
    #[serde(rename = "holder", default, skip_serializing_if = "Option::is_none")]
    pub sole_copy: Option<SoleCopy>,
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
            sole_copy: None,
            evicted: None,
            witness: None,
            settings: BTreeMap::new(),
        }
    }
    /// The next record of the leader `me`; a leader that the last one appointed begins an epoch of its own.
    pub fn next(&self, me: &EpochOwner) -> Self {
        let mut next = self.clone();
        next.id.tag += 1;
        if next.id.by != me.name || !me.owns(next.id.epoch) {
            next.id.epoch = me.epoch_after(next.id.epoch);
            next.id.by.clone_from(&me.name);
        }
        next
    }
    /// The first record of a new leader, above its own and above `floor`, all that it has heard of.
    pub fn claimed_by(&self, leader: &EpochOwner, floor: &RecordId) -> Self {
        let mut next = self.clone();
        next.id = RecordId {
            epoch: leader.epoch_after(self.id.epoch.max(floor.epoch)),
            tag: self.id.tag.max(floor.tag) + 1,
            by: leader.name.clone(),
        };
        next.quorum_owner.clone_from(&leader.name);
        next
    }
    /// The same with another owner of the service, in a new epoch of `me`.
    pub fn appoint(mut self, me: &EpochOwner, owner: &str, clean: bool) -> Self {
        self.id.epoch = me.epoch_after(self.id.epoch);
        self.owner = owner.to_owned();
        self.owner_epoch = self.id.epoch;
        self.clean = clean;
        self.redeliver |= !clean;
        self
    }
    /// The member that alone has what was acknowledged in a group before the service was stopped.
    pub fn sole_copy(&self, group: usize) -> Option<&str> {
        let sole_copy = self.sole_copy.as_ref().filter(|h| h.epoch == self.served(group));
        sole_copy.map(|h| h.node.as_str())
    }
    /// Nobody serves from now on, as an operator wants it. Until it is known better, only the owner has everything.
    pub fn stopped(mut self) -> Self {
        self.intent = Intent::Stopped;
        if self.served.contains(&self.owner_epoch) {
            self.sole_copy = Some(SoleCopy {
                node: self.owner.clone(),
                epoch: self.owner_epoch,
            });
        }
        self
    }
    /// Both have everything.
    pub fn shipped(mut self) -> Self {
        self.sole_copy = None;
        self
    }
    /// The appointment under which a group was mounted last.
    pub fn served(&self, group: usize) -> u64 {
        self.served.get(group).copied().unwrap_or(0)
    }
}

/// What a member keeps in `cluster.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersistentState {
    /// The record.
    pub record: Record,
    /// Whether this node knows that a majority has it.
    pub committed: bool,
    /// The last record that this node knows a majority to have had. An own record that was not agreed on yet proves
    /// nothing: what this node has seen of the cluster is this.
    #[serde(rename = "base")]
    pub last_committed: RecordId,
    /// The highest epoch that this node has ever seen or tried: a new leader goes above it.
    #[serde(rename = "seen")]
    pub highest_epoch: u64,
    /// Whether it is not known if the other member has agreed to the witness that the record names: then neither it nor its
    /// predecessor proves anything.
    #[serde(rename = "unsettled", default)]
    pub witness_change_pending: bool,
}

/// The schema of `cluster.json`. The first one had no schema and no `saved` around it. A ccrd that knows that one only takes
/// files of a storage group that it does not understand for none, and deletes them: it must not start where they are.
const SCHEMA: u64 = 2;

#[derive(Serialize)]
struct Written<'a> {
    saved: &'a PersistentState,
}
#[derive(Deserialize)]
struct Read {
    saved: PersistentState,
}

impl PersistentState {
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

    #[test]
    fn two_agreed_records_are_always_ordered() {
        let ids = [id(3, 5, "a"), id(3, 9, "a"), id(3, 5, "b"), id(4, 1, "a")];
        for (i, x) in ids.iter().enumerate() {
            for (j, y) in ids.iter().enumerate() {
                assert_eq!(x.covers_agreed(y), i >= j, "{x:?} {y:?}");
            }
        }
    }

    #[test]
    fn an_epoch_belongs_to_one_member() {
        let names = ["node2", "node1"];
        let owners = names.map(|n| EpochOwner::new(n, names.into_iter()));
        for epoch in 0..20 {
            assert_eq!(owners.iter().filter(|m| m.owns(epoch)).count(), 1, "{epoch}");
            for epoch_owner in &owners {
                let next = epoch_owner.epoch_after(epoch);
                assert!(
                    epoch_owner.owns(next) && next > epoch && next <= epoch + 2,
                    "{epoch} {next}"
                );
            }
        }
        // Whatever the order in which a configuration lists them.
        assert_eq!(EpochOwner::new("node1", ["node1", "node2"].into_iter()), owners[1]);
    }

    #[test]
    fn records_of_one_owner_stay_in_its_epochs() {
        let names = ["a", "b"];
        let [a, b] = names.map(|n| EpochOwner::new(n, names.into_iter()));
        let first = Record::fresh().claimed_by(&a, &RecordId::default());
        let second = first.next(&a).appoint(&a, "b", false);
        assert!(a.owns(first.id.epoch) && a.owns(second.id.epoch) && a.owns(second.owner_epoch));
        assert_eq!(second.next(&a).id.epoch, second.id.epoch, "no new epoch without need");
        let taken = second.next(&b);
        assert!(b.owns(taken.id.epoch) && taken.id.newer_than(&second.id));
    }
}
