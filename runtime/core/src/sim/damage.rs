//! Damage to files behind a node's back, under an atlas: never the last good copy of what must survive.

use super::disk::{How, Kind};
use super::world::World;
use crate::cluster::CLUSTER_FILE;
use crate::durable;
use crate::io::Obstacle;
use crate::record::PersistentState;
use crate::store::log;
use crate::wire;
use ccr_contract::status::{ClusterState, CopyStatus};
use std::collections::BTreeMap;

/// Whose copy of what was hurt in this run: the other one's is spared until the end.
#[derive(Debug, Default)]
pub(super) struct Atlas {
    /// By storage group.
    groups: BTreeMap<usize, usize>,
    pub(super) cluster: Option<usize>,
}

impl World {
    /// Damages a file of this kind on a machine, where that takes nothing for good. Whether it did.
    pub(super) fn damage(&mut self, i: usize, kind: Kind, how: How) -> bool {
        let found = match kind {
            Kind::Cluster => self
                .cluster_known_elsewhere(i, how)
                .then(|| (CLUSTER_FILE.to_owned(), usize::MAX)),
            Kind::Hub => Some(("hub.json".to_owned(), usize::MAX)),
            Kind::Queue | Kind::Dumpster => self.any_message(i, kind),
            _ => self.any_of_group(i, kind),
        };
        let open = found.as_ref().filter(|_| kind == Kind::Open).and_then(|(name, _)| {
            let header = log::scan(self.machines[i].disk.file(name)?).ok()?.header;
            Some((group_of(name), header.epoch, header.generation))
        });
        let mut rng = self.more.fork();
        let hurt = found.filter(|(name, most)| self.machines[i].disk.damage(name, how, *most, &mut rng));
        let Some((name, _)) = hurt else {
            self.checks.counters.spared += 1;
            return false;
        };
        self.note(|| format!("damage on {i}: {how:?} of {name}"));
        self.hurt(i, kind, &name);
        // What is in no closed log is nowhere else.
        self.checks.only_there.extend(open);
        let c = &mut self.checks.counters;
        *match kind {
            Kind::Cluster => &mut c.damaged_cluster_files,
            Kind::Checkpoint => &mut c.damaged_checkpoints,
            Kind::Known => &mut c.damaged_notes,
            Kind::Open => &mut c.damaged_open_logs,
            Kind::Closed => &mut c.damaged_closed_logs,
            Kind::Segment => &mut c.damaged_segments,
            Kind::Hub => &mut c.damaged_hub_files,
            Kind::Queue => &mut c.damaged_queue_files,
            Kind::Dumpster => &mut c.damaged_dumpster_files,
            Kind::Arrival | Kind::Seed | Kind::Other => &mut c.hurt_logs,
        } += 1;
        *match how {
            How::Flip => &mut c.flips,
            How::Truncate => &mut c.truncations,
            How::Zero => &mut c.zeroed_sectors,
            How::Older => &mut c.older_copies,
            How::Delete => &mut c.deletions,
        } += 1;
        true
    }

    /// An operator takes away a file that keeps a daemon from starting: a hub's, or a member's where the other one is in a cluster,
    /// or was evicted and can neither serve nor take this one back.
    pub(super) fn take_away_what_is_not_understood(&mut self) {
        for i in 0..self.machines.len() {
            let file = if i < 2 { CLUSTER_FILE } else { "hub.json" };
            let bad = |b: &[u8]| durable::decode::<serde_json::Value>(u64::MAX, b).is_err();
            if !self.machines[i].disk.file(file).is_some_and(bad) {
                continue;
            }
            if i > 1 || self.cluster_state(1 - i) == Some(ClusterState::Up) || self.is_evicted(1 - i) {
                self.machines[i].disk.remove(file);
                self.note(|| format!("an operator removes {file} of {i}"));
            }
        }
    }

    /// A member that goes on by an operator's force only, its cluster's record being lost: what the witness voted for last is in that
    /// of the other one, whose daemon does not start with it, or that alone knows whether it agreed to another witness; or its own
    /// is gone, and the other one was evicted.
    pub(super) fn needs_force(&mut self) -> Option<usize> {
        let bad = |b: &[u8]| PersistentState::decode(b).is_err();
        (0..2).find(|i| {
            let obstacles = self.ask_what_is_wrong(*i).map(|(_, found)| found).unwrap_or_default();
            let other_is_bad = self.machines[1 - i].disk.file(CLUSTER_FILE).is_some_and(bad);
            let ends_with_the_other = [Obstacle::NewerCluster, Obstacle::WitnessUnsettled];
            (obstacles.iter().any(|o| ends_with_the_other.contains(o)) && other_is_bad)
                || (obstacles.contains(&Obstacle::RecordLost) && self.is_evicted(1 - i))
        })
    }

    fn cluster_state(&mut self, i: usize) -> Option<ClusterState> {
        Some(self.ask_status(i)?.cluster?.state)
    }
    fn is_evicted(&mut self, i: usize) -> bool {
        self.cluster_state(i) == Some(ClusterState::Stopped)
    }

    /// What the checks must know.
    fn hurt(&mut self, i: usize, kind: Kind, name: &str) {
        match kind {
            Kind::Cluster => self.atlas.cluster = Some(i),
            Kind::Queue | Kind::Dumpster => {
                let id = name.rsplit('/').next().unwrap_or_default();
                self.checks.spoilt.insert(id.to_owned());
            }
            Kind::Hub => {}
            _ => {
                let g = group_of(name);
                self.atlas.groups.insert(g, i);
                let group = self.checks.groups[g].clone();
                self.checks.hurt(i, &group);
            }
        }
    }

    /// A message of a hub, all of it.
    fn any_message(&mut self, i: usize, kind: Kind) -> Option<(String, usize)> {
        let disk = &self.machines[i].disk;
        let all: Vec<&String> = disk.names().filter(|n| Kind::of(n) == kind).collect();
        let name = (*all.get(self.more.range(0, all.len() as u64) as usize)?).clone();
        Some((name, usize::MAX))
    }

    /// A file of a storage group of which the other member has everything.
    fn any_of_group(&mut self, i: usize, kind: Kind) -> Option<(String, usize)> {
        let g = self.more.range(0, self.checks.groups.len() as u64) as usize;
        if self.atlas.groups.get(&g).is_some_and(|victim| *victim != i) || !self.whole_elsewhere(i, g) {
            return None;
        }
        let disk = &self.machines[i].disk;
        let all: Vec<&String> = disk
            .names()
            .filter(|n| Kind::of(n) == kind && group_of(n) == g)
            .collect();
        let name = (*all.get(self.more.range(0, all.len() as u64) as usize)?).clone();
        let most = if kind == Kind::Open {
            disk.flushed(&name)
        } else {
            usize::MAX
        };
        Some((name, most))
    }

    /// Whether the other member serves this group, or has all that this one has closed.
    fn whole_elsewhere(&mut self, i: usize, g: usize) -> bool {
        let (j, group) = (1 - i, self.checks.groups[g].clone());
        if self.truths.serves(j) {
            return true;
        }
        let status = self.ask_status(j);
        let copies = status.into_iter().flat_map(|s| s.copies);
        let node = self.machines[j].config.node.clone();
        copies
            .filter(|c| c.node == node && c.group == group)
            .any(|c| c.status == CopyStatus::Healthy && c.copy_queue == 0)
    }

    /// Whether what this member's record says is not lost with the file: the other member, whose file is spared from then on, has
    /// it, or the witness knows which one counts. Of an older copy, which looks like a good one, only the witness can tell; and a file
    /// that is gone tells nobody that there was one.
    fn cluster_known_elsewhere(&self, i: usize, how: How) -> bool {
        let record = |i: usize| {
            let file = self.machines[i].disk.file(CLUSTER_FILE)?;
            PersistentState::decode(file).ok().map(|s| s.record.id)
        };
        let spared = self.atlas.cluster.is_none_or(|victim| victim == i);
        let Some(ours) = record(i).filter(|_| spared) else {
            return false;
        };
        let contents = self.share.contents();
        let mut known = contents.filter_map(|c| wire::decode_witness(c).ok().flatten());
        let voted = known.any(|w| w.id == ours);
        let other = record(1 - i).is_some_and(|theirs| theirs == ours);
        (voted && how != How::Delete) || (other && how != How::Older)
    }

    /// A closed log of a member is hurt, one that the other one has as well: otherwise no cluster could bring it back.
    pub(super) fn hurt_log(&mut self, i: usize, delete: bool) {
        let (disk, other) = (&self.machines[i].disk, &self.machines[1 - i].disk);
        let shared = |n: &&String| n.len() == 19 && n.ends_with(".log") && disk.file(n) == other.file(n);
        let Some(name) = disk.names().filter(shared).last().cloned() else {
            return;
        };
        let g = group_of(&name);
        if self.atlas.groups.get(&g).is_some_and(|victim| *victim != i) {
            self.checks.counters.spared += 1;
            return;
        }
        if delete {
            self.machines[i].disk.remove(&name);
        } else {
            self.machines[i].disk.flip(&name, 100);
        }
        self.checks.counters.hurt_logs += 1;
        self.hurt(i, Kind::Closed, &name);
        self.note(|| format!("hurt {name} on {i}"));
    }
}

/// The group in the name of a file.
fn group_of(name: &str) -> usize {
    name.get(1..3)
        .and_then(|n| usize::from_str_radix(n, 16).ok())
        .unwrap_or(0)
}
