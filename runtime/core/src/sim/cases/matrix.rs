//! Every durable file in every condition: what a node makes of it at its start, and that nothing acknowledged is lost by it.

use super::super::clients::Kind as Operation;
use super::super::disk::{How, Kind, Unreadable};
use super::fixture::{HUB, Lab};
use crate::rng::Rng;
use ccr_contract::status::CopyStatus;

/// What became of a file before its node starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Missing,
    /// The first read of it fails.
    Failed,
    Flipped,
    Truncated,
    Zeroed,
    /// It is what it was before it was replaced last.
    Older,
    /// Of a newer ccrd: one schema, or version, more.
    Newer,
}
use Condition::{Failed, Flipped, Missing, Newer, Older, Truncated, Zeroed};

const CONDITIONS: [Condition; 7] = [Missing, Failed, Flipped, Truncated, Zeroed, Older, Newer];

/// What becomes of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CaseOutcome {
    /// It does not start, or ended itself; what is there is untouched.
    Halts,
    /// It runs, and its copy is Failed with a cause.
    Failed,
    /// It runs, and is well.
    Well,
    /// It runs, and has kept the file under a name that says so.
    SetAside,
}

const HALTS: Option<CaseOutcome> = Some(CaseOutcome::Halts);
const FAILED: Option<CaseOutcome> = Some(CaseOutcome::Failed);
const WELL: Option<CaseOutcome> = Some(CaseOutcome::Well);
const ASIDE: Option<CaseOutcome> = Some(CaseOutcome::SetAside);

/// Makes it so; false where the file cannot be in this condition.
fn make(lab: &mut Lab, i: usize, name: &str, kind: Kind, condition: Condition) -> bool {
    let mut rng = Rng::new(11);
    let mut hurt = |how| lab.disk(i).damage(name, how, usize::MAX, &mut rng);
    match condition {
        Missing => hurt(How::Delete),
        Flipped => hurt(How::Flip),
        Truncated => hurt(How::Truncate),
        Zeroed => hurt(How::Zero),
        Older => hurt(How::Older),
        Failed => {
            let (listing, times) = (false, 1);
            lab.disk(i).unreadable = Some(Unreadable { kind, listing, times });
            true
        }
        Newer => {
            let mut bytes = lab.disk(i).file(name).expect("the file is there").to_vec();
            match kind {
                // Version and checksum of the header (docs/runtime.md, log format).
                Kind::Closed | Kind::Segment => {
                    bytes[8] += 1;
                    bytes[12..16].fill(0);
                    let crc = crc32c::crc32c(&bytes[..64]);
                    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
                    lab.disk(i).put(name, bytes);
                }
                Kind::Queue | Kind::Dumpster => return false,
                _ => lab.rewrite(i, name, |json| {
                    let schema = json["schema"].as_u64().expect("a schema");
                    json["schema"] = (schema + 1).into();
                }),
            }
            true
        }
    }
}

/// A file of this kind on a machine: the last in order of names, which is the newest.
fn one(lab: &mut Lab, i: usize, kind: Kind) -> String {
    let names: Vec<String> = lab.disk(i).names().filter(|n| Kind::of(n) == kind).cloned().collect();
    names
        .into_iter()
        .next_back()
        .unwrap_or_else(|| panic!("no file of {kind:?}"))
}

/// What the passive member, or the hub, makes of a file of this kind.
fn outcome(kind: Kind, condition: Condition) -> Option<CaseOutcome> {
    let mut lab = Lab::new(1, 300);
    let hub = matches!(kind, Kind::Hub | Kind::Queue | Kind::Dumpster);
    lab.secs(if hub { 20 } else { 46 });
    let i = if hub { HUB } else { lab.passive() };
    if kind == Kind::Queue {
        // So that something is queued.
        (0..2).for_each(|member| lab.power_off(member));
        lab.secs(10);
    }
    lab.kill(i);
    let name = one(&mut lab, i, kind);
    let good = lab.disk(i).file(&name).expect("it is there").to_vec();
    if !make(&mut lab, i, &name, kind, condition) {
        return None;
    }
    if matches!(kind, Kind::Queue | Kind::Dumpster) {
        // A hub's own disk that takes a message is no loss of the cluster's.
        let id = name.rsplit('/').next().unwrap_or_default().to_owned();
        lab.world.checks.spoilt.insert(id);
    }
    let (before, mark) = (lab.disk(i).file(&name).map(<[u8]>::to_vec), lab.mark());
    lab.start(i);
    lab.secs(6);
    let halts = !lab.since(mark, "halts").is_empty();
    if halts && condition != Failed {
        assert_eq!(
            lab.disk(i).file(&name),
            before.as_deref(),
            "{kind:?} {condition:?}: it is written over"
        );
    }
    let aside = lab.disk(i).names().any(|n| n.starts_with(&name) && n.contains(".bad"));
    let node = lab.world.machines[i].config.node.clone();
    let status = lab.world.ask_status(i);
    let copy = status.into_iter().flat_map(|s| s.copies).find(|c| c.node == node);
    let outcome = match copy.map(|c| c.status) {
        _ if halts => CaseOutcome::Halts,
        Some(CopyStatus::Failed) => CaseOutcome::Failed,
        _ if aside => CaseOutcome::SetAside,
        _ => CaseOutcome::Well,
    };
    if halts && condition == Newer {
        // The ccrd that wrote it is installed again.
        lab.disk(i).put(&name, good);
    }
    lab.world.heal();
    // Until the clients have done.
    lab.secs(30);
    lab.converges();
    let submitted = lab
        .world
        .workload
        .ops
        .iter()
        .filter(|o| o.kind == Operation::Submit)
        .count();
    assert!(submitted > 20, "the clients did something");
    Some(outcome)
}

/// What comes out, in the order of [`CONDITIONS`]; none where the file cannot be in that condition: it is written once, or has no schema.
const TABLE: [(Kind, [Option<CaseOutcome>; 7]); 8] = [
    (Kind::Cluster, [WELL, HALTS, HALTS, HALTS, HALTS, WELL, HALTS]),
    (Kind::Checkpoint, [FAILED, HALTS, FAILED, FAILED, FAILED, WELL, FAILED]),
    (Kind::Known, [WELL, HALTS, FAILED, FAILED, FAILED, WELL, FAILED]),
    (Kind::Closed, [WELL, HALTS, ASIDE, ASIDE, ASIDE, None, FAILED]),
    (Kind::Segment, [FAILED, HALTS, FAILED, FAILED, FAILED, None, FAILED]),
    (Kind::Hub, [WELL, HALTS, HALTS, HALTS, HALTS, None, HALTS]),
    (Kind::Queue, [WELL, HALTS, ASIDE, ASIDE, ASIDE, None, None]),
    // Of a message in the dumpster the head is read at the start, its body when it is delivered again.
    (Kind::Dumpster, [WELL, HALTS, WELL, WELL, ASIDE, None, None]),
];

#[test]
fn every_file_in_every_condition() {
    let mut others = Vec::new();
    for (kind, row) in TABLE {
        for (condition, expected) in CONDITIONS.into_iter().zip(row) {
            let found = outcome(kind, condition);
            if found != expected {
                others.push((kind, condition, found, expected));
            }
        }
    }
    assert!(others.is_empty(), "{others:#?}");
}
