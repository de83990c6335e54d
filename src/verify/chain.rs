//! I5 and I6: what a copy has is what its source closed, in one unbroken chain, and of one history only.

use super::evidence::Evidence;
use super::finding::Finding;
use ccr_contract::dump::{Dump, Group, Log};
use ccr_contract::event::EventKind;
use ccr_contract::status::Copy;
use std::collections::{BTreeMap, BTreeSet};

/// A generation as its source closed it: group, stream, number, epoch.
type Place<'a> = (&'a str, &'a str, u64, u64);

/// The final reads of the members, or who did not answer.
pub(super) fn of_the_members<'a>(e: &Evidence<'a>) -> Result<Vec<&'a Dump>, String> {
    let dump = |node: &String| {
        let found = e.history.dumps.iter().find(|d| d.node == *node);
        found.ok_or_else(|| format!("there is no final read of {node}"))
    };
    e.context.members.iter().map(dump).collect()
}

/// I5: in every look the marks of a copy are in order; in the final reads each member's logs are a chain, and what their source closed.
pub(super) fn logs(e: &Evidence<'_>) -> Finding {
    let (mut wrong, copies) = marks(e);
    let closed = match announced(e) {
        Ok(closed) => closed,
        Err(twice) => return Finding::fail(twice),
    };
    let dumps = of_the_members(e);
    let (mut compared, mut unannounced) = (0u64, 0u64);
    for (dump, group) in dumps
        .iter()
        .flatten()
        .flat_map(|d| d.groups.iter().map(move |g| (d, g)))
    {
        wrong.extend(breaks(group).map(|how| format!("{how} on {}", dump.node)));
        for log in &group.logs {
            match closed.get(&place(&group.group, log)) {
                Some(checksum) if same(checksum, &log.checksum) => compared += 1,
                Some(_) => wrong.push(format!(
                    "generation {} of {} on {} is not what its source closed",
                    log.generation, group.group, dump.node
                )),
                None => unannounced += 1,
            }
        }
    }
    if !wrong.is_empty() {
        return Finding::of(&wrong, String::new);
    }
    match dumps {
        Err(why) => Finding::unknown(why),
        Ok(_) if copies == 0 => Finding::unknown("no copy was ever seen"),
        Ok(_) if compared == 0 => Finding::unknown("of no log that is there it is known what its source closed"),
        Ok(_) if unannounced > 0 => {
            Finding::unknown(format!("of {unannounced} logs nobody told what their source closed"))
        }
        Ok(_) => Finding::pass(format!(
            "{copies} copies looked at, {compared} logs as their source closed them"
        )),
    }
}

/// What is out of order in the marks of the copies, each of which its own node says; and how many were looked at.
fn marks(e: &Evidence<'_>) -> (Vec<String>, u64) {
    let mut wrong = BTreeSet::new();
    let mut looked = 0;
    for look in e.history.observations.iter().filter(|o| o.t_us >= e.history.from_us) {
        for (node, status) in look.statuses() {
            for copy in status.copies.iter().filter(|c| c.node == node) {
                looked += 1;
                if !in_order(copy) {
                    wrong.insert(format!("{node} said of {}: {}", copy.group, shown(copy)));
                }
            }
        }
    }
    (wrong.into_iter().collect(), looked)
}

fn in_order(c: &Copy) -> bool {
    let marks = [c.replayed, c.inspected, c.copied, c.notified, c.generated];
    marks.windows(2).all(|w| w[0] <= w[1])
        && c.copy_queue == c.generated - c.inspected
        && c.replay_queue == c.inspected - c.replayed
}

fn shown(c: &Copy) -> String {
    format!(
        "generated {} notified {} copied {} inspected {} replayed {}, queues {} and {}",
        c.generated, c.notified, c.copied, c.inspected, c.replayed, c.copy_queue, c.replay_queue
    )
}

fn place<'a>(group: &'a str, log: &'a Log) -> Place<'a> {
    (group, &log.stream, log.generation, log.epoch)
}

/// What the nodes told of the logs that they closed, before the run too; or that one was closed twice and is not the same.
fn announced<'a>(e: &'a Evidence<'_>) -> Result<BTreeMap<Place<'a>, &'a str>, String> {
    let mut closed: BTreeMap<Place<'a>, &'a str> = BTreeMap::new();
    for told in &e.runtime_events {
        let EventKind::LogClosed {
            group,
            stream,
            generation,
            epoch,
            checksum,
        } = &told.what
        else {
            continue;
        };
        let before = closed.insert((group, stream, *generation, *epoch), checksum);
        if before.is_some_and(|before| !same(before, checksum)) {
            return Err(format!(
                "generation {generation} of {group} was closed twice in epoch {epoch}, and is not the same"
            ));
        }
    }
    Ok(closed)
}

/// Checksums are hexadecimal numbers; leading zeros mean nothing.
fn same(a: &str, b: &str) -> bool {
    match (u64::from_str_radix(a, 16), u64::from_str_radix(b, 16)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}

/// Where the chain of a group's logs breaks.
fn breaks(group: &Group) -> impl Iterator<Item = String> {
    group.logs.windows(2).filter_map(|w| {
        let (before, log) = (&w[0], &w[1]);
        let how = if log.generation != before.generation + 1 {
            format!("comes behind {}", before.generation)
        } else if !same(&log.previous, &before.checksum) {
            "does not follow the one before it".to_owned()
        } else if log.stream != before.stream {
            "is of another stream than the one before it".to_owned()
        } else {
            return None;
        };
        Some(format!("generation {} of {} {how}", log.generation, group.group))
    })
}

/// I6: everything that a member has at the end, logs and messages, is of the history that survived.
///
/// Each epoch opens its first log where it goes on from what was there: what lies behind that and is of an older epoch is of another
/// history.
pub(super) fn history(e: &Evidence<'_>) -> Finding {
    let dumps = match of_the_members(e) {
        Ok(dumps) => dumps,
        Err(why) => return Finding::unknown(why),
    };
    let mut begun: BTreeMap<&str, BTreeMap<u64, u64>> = BTreeMap::new();
    for told in &e.runtime_events {
        if let EventKind::LogOpened {
            group,
            generation,
            epoch,
            ..
        } = &told.what
        {
            let first = begun.entry(group).or_default().entry(*epoch).or_insert(*generation);
            *first = (*first).min(*generation);
        }
    }
    let (mut wrong, mut unclear, mut looked) = (BTreeSet::new(), BTreeSet::new(), 0u64);
    let mut logs: BTreeMap<(&str, &str, u64), (&Log, &str)> = BTreeMap::new();
    for (node, group) in dumps
        .iter()
        .flat_map(|d| d.groups.iter().map(move |g| (d.node.as_str(), g)))
    {
        let name = group.group.as_str();
        let begun = begun.get(name);
        let in_logs = group.logs.iter().map(|l| (l.generation, l.epoch));
        for (generation, epoch) in in_logs.chain(group.messages.iter().map(|m| (m.generation, m.epoch))) {
            looked += 1;
            let survived = begun.and_then(|b| b.iter().rev().find(|(_, first)| **first <= generation));
            match survived {
                Some((survived, _)) if *survived == epoch => {}
                Some((survived, _)) => {
                    wrong.insert(format!(
                        "{node} has generation {generation} of {name} from epoch {epoch}, and that of epoch {survived} survived"
                    ));
                }
                None => {
                    unclear.insert(format!("nobody told who opened generation {generation} of {name}"));
                }
            }
        }
        for log in &group.logs {
            let (other, at) = *logs.entry((name, &log.stream, log.generation)).or_insert((log, node));
            if other.epoch != log.epoch || !same(&other.checksum, &log.checksum) {
                let generation = log.generation;
                wrong.insert(format!(
                    "generation {generation} of {name} is another one on {at} and on {node}"
                ));
            }
        }
    }
    let wrong: Vec<String> = wrong.into_iter().collect();
    match (wrong.is_empty(), unclear.into_iter().next()) {
        (false, _) => Finding::of(&wrong, String::new),
        (true, Some(why)) => Finding::unknown(why),
        (true, None) if looked == 0 => Finding::unknown("no member has a log or a message"),
        (true, None) => Finding::pass(format!("{looked} logs and messages, all of the history that survived")),
    }
}
