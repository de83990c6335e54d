//! Who may agree to a record, lead, commit, and form a cluster. Pure: nothing here looks at a clock, or sends anything.
//!
//! There are three votes: the two members and the witness. A record counts once two of them have it. Why two majorities cannot pass
//! each other by is in [`crate::record`]; what each question answers is in `votes.txt`, case by case.

use crate::record::RecordId;

/// What a member has of the cluster's record.
#[derive(Debug, Clone, Copy)]
pub struct Stand<'a> {
    /// Its record.
    pub id: &'a RecordId,
    /// Whether it knows that a majority has it.
    pub committed: bool,
    /// The last record of which it knows that.
    pub last_committed: &'a RecordId,
}

impl Stand<'_> {
    /// Whether a member with this stand was part of what led to `id`, which may not have been agreed to.
    pub fn knows(&self, id: &RecordId) -> bool {
        self.last_committed.covers(id) || self.id == id
    }
    /// The same of a record that was agreed to.
    pub fn knows_agreed(&self, id: &RecordId) -> bool {
        self.last_committed.covers_agreed(id) || self.id == id
    }
}

/// Whether a member may agree to the other one's record. What may not count yet must come after its own: two members that each took
/// over what the other one is just giving up would both believe that a majority has it.
pub fn agrees(ours: Stand<'_>, theirs: Stand<'_>) -> bool {
    let later = theirs.committed || theirs.id.newer_than(ours.id);
    theirs.id != ours.id && later && theirs.last_committed.covers_agreed(ours.last_committed)
}

/// Whether a member leads, of two that look for a cluster: the one that knows more; of two equal ones, the `first` in the list.
pub fn leads(ours: (&str, Stand<'_>), theirs: (&str, Stand<'_>), first: bool) -> bool {
    let ((me, ours), (peer, theirs)) = (ours, theirs);
    // A follower that has just saved the leader's record holds the same id, and follows on.
    if ours.id == theirs.id && !ours.id.is_fresh() {
        return ours.id.by == me || (ours.id.by != peer && first);
    }
    let (mine, other) = (ours.last_committed.rank(), theirs.last_committed.rank());
    mine > other || (mine == other && first)
}

/// Whether the member that leads must claim a new epoch before the other one, which has seen epochs up to `seen`, can agree.
pub fn must_claim(me: &str, ours: Stand<'_>, theirs: Stand<'_>, seen: u64) -> bool {
    let claimed = ours.id.by == me && (!ours.committed || theirs.id == ours.id);
    // Two claims of one epoch are not ordered: neither would be agreed to.
    let clash = theirs.id.epoch == ours.id.epoch && theirs.id.by != ours.id.by;
    !claimed || clash || seen > ours.id.epoch
}

/// The other member's vote for this node's record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerVote {
    /// It is not heard, or has another record.
    None,
    /// It has the same record, and is in no cluster.
    Apart,
    /// It has the same record, and is in a cluster.
    Up,
}

/// The votes for a record of this node.
#[derive(Debug, Clone, Copy)]
pub struct Votes {
    /// Whether this node is in a cluster.
    pub up: bool,
    /// The other member's.
    pub peer: PeerVote,
    /// Whether the witness, held now, has this record.
    pub witness: bool,
    /// Whether an operator's force stands in for the second vote.
    pub forced: bool,
    /// Whether the other member was evicted: this node is the whole cluster.
    pub single_member: bool,
    /// Whether it is not known which witness counts: then none does, nor what stands in for it.
    pub witness_change_pending: bool,
}

/// Whether a second vote is there, so that the record counts.
pub fn commits(v: Votes) -> bool {
    // A cluster that goes on is joined, not formed a second time.
    let peer = match v.peer {
        PeerVote::None => false,
        PeerVote::Apart => true,
        PeerVote::Up => v.up,
    };
    peer || ((v.witness || v.forced || v.single_member) && !v.witness_change_pending)
}

/// What a node has in hand that may become a second vote, or is one.
#[derive(Debug, Clone, Copy)]
pub struct Hold {
    /// The other member: part of this cluster, or heard by a node that would lead.
    pub peer: bool,
    /// The witness file is held.
    pub witness: bool,
    /// An operator has forced the quorum.
    pub forced: bool,
    /// The other member was evicted.
    pub single_member: bool,
}

/// Whether a node stays in its cluster, or can have a record agreed to.
pub fn has_majority(h: Hold) -> bool {
    h.peer || h.witness || h.forced || h.single_member
}

/// Whether a node may form a cluster with the witness alone. A new cluster is formed by the `first` member only, and none by a node
/// whose record was lost: its logs tell of a cluster that it does not know.
pub fn may_form_alone(ours: Stand<'_>, lost_record: bool, first: bool) -> bool {
    !lost_record && (!ours.id.is_fresh() || first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// `EPOCH.TAG.BY`, or `-` where nothing was ever agreed.
    fn id(text: &str) -> RecordId {
        if text == "-" {
            return RecordId::default();
        }
        let mut parts = text.splitn(3, '.');
        let mut next = || parts.next().unwrap_or_else(|| panic!("{text} is EPOCH.TAG.BY"));
        RecordId {
            epoch: next().parse().unwrap(),
            tag: next().parse().unwrap(),
            by: next().to_owned(),
        }
    }

    /// `ID!` is committed; `ID/LAST` is not, and LAST was before it.
    fn stand(text: &str) -> (RecordId, bool, RecordId) {
        match text.split_once('/') {
            Some((own, last)) => (id(own), false, id(last)),
            None => {
                let own = id(text.trim_end_matches('!'));
                (own.clone(), text.ends_with('!'), own)
            }
        }
    }

    fn view((id, committed, last_committed): &(RecordId, bool, RecordId)) -> Stand<'_> {
        Stand {
            id,
            committed: *committed,
            last_committed,
        }
    }

    fn answer(words: &[&str]) -> bool {
        let has = |word: &str| words[1..].contains(&word);
        let at = |n: usize| stand(words[n]);
        match words[0] {
            "knows" => view(&at(1)).knows(&id(words[2])),
            "knows-agreed" => view(&at(1)).knows_agreed(&id(words[2])),
            "agrees" => agrees(view(&at(1)), view(&at(2))),
            "leads" => leads(("a", view(&at(1))), ("b", view(&at(2))), has("first")),
            "must-claim" => must_claim("a", view(&at(1)), view(&at(2)), words[3].parse().unwrap()),
            "commits" => commits(Votes {
                up: has("up"),
                peer: match (has("peer-apart"), has("peer-up")) {
                    (true, _) => PeerVote::Apart,
                    (_, true) => PeerVote::Up,
                    _ => PeerVote::None,
                },
                witness: has("witness"),
                forced: has("forced"),
                single_member: has("single"),
                witness_change_pending: has("witness-changes"),
            }),
            "has-majority" => has_majority(Hold {
                peer: has("peer"),
                witness: has("witness"),
                forced: has("forced"),
                single_member: has("single"),
            }),
            "may-form-alone" => may_form_alone(view(&at(1)), has("lost"), has("first")),
            other => panic!("no question is called {other}"),
        }
    }

    #[test]
    fn the_cases_of_the_table() {
        let mut seen: BTreeMap<&str, [u32; 2]> = BTreeMap::new();
        let lines = include_str!("votes.txt").lines();
        for (n, line) in lines.enumerate() {
            let case = line.split('#').next().unwrap_or_default().trim();
            if case.is_empty() {
                continue;
            }
            let (question, expected) = case
                .split_once(" = ")
                .unwrap_or_else(|| panic!("line {}: {line}", n + 1));
            let words: Vec<&str> = question.split_whitespace().collect();
            let expected = match expected.trim() {
                "yes" => true,
                "no" => false,
                other => panic!("line {}: {other} is neither yes nor no", n + 1),
            };
            assert_eq!(answer(&words), expected, "line {}: {line}", n + 1);
            seen.entry(words[0]).or_default()[usize::from(expected)] += 1;
        }
        assert_eq!(seen.len(), 8, "{seen:?}");
        assert!(seen.values().all(|[no, yes]| *no > 0 && *yes > 0), "{seen:?}");
    }
}
