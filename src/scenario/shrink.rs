//! A scenario that fails, with fewer steps: delta debugging over the steps of its file. What is tried is the caller's business.
//!
//! The algorithm is `ddmin` (Zeller, Hildebrandt: "Simplifying and Isolating Failure-Inducing Input", 2002). What belongs together goes
//! together: a step with a label, and all that name it.

use super::include::Shelf;
use super::names::{SCENARIO, SHRINK};
use super::raw::{RawScenario, Table, Value};
use super::suite::{Options, Worlds, run_all, vocabulary};
use super::{Rules, Scenario, parse};
use crate::error::Result;
use crate::files::Home;
use crate::spec::{Lab, decode};
use crate::verify::{ScenarioReport, Verdict};
use std::collections::BTreeSet;
use std::ops::Range;

/// Keys whose values name other steps.
const NAMING: [&str; 3] = ["heal", "release", "since"];

/// What shrinking has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shrunk {
    /// The text of the file that still fails.
    pub text: String,
    /// How many steps it has, and how many there were.
    pub steps: (usize, usize),
    /// How often a candidate was tried.
    pub tried: usize,
    /// Whether nothing of it can be left out; false where the tries were used up.
    pub is_least: bool,
}

/// Runs a scenario that has failed with fewer and fewer steps, each time with the seed that it failed with; `failed` is one of the run
/// of these options. At most `tries` candidates are run.
///
/// # Errors
/// As of [`run_all`].
pub fn shrink_failed(
    worlds: &dyn Worlds,
    lab: &Lab,
    scenario: &Scenario,
    failed: &ScenarioReport,
    options: &Options,
    tries: usize,
) -> Result<Option<Shrunk>> {
    let pack = vocabulary(lab)?;
    // The run has kept what it includes.
    let shelf = Shelf::beside(&options.folder.join(failed.name()).join(SCENARIO));
    let rules = Rules {
        host_names: true,
        lab,
        pack: &pack,
        set: &scenario.parameters,
        shelf: Some(&shelf),
    };
    let read = |text: &str| parse(&scenario.id, text, rules);
    let folder = options.folder.join(SHRINK);
    Home::private_dir(&folder)?;
    let mut number = 0;
    shrink(
        &scenario.text,
        tries,
        |text| read(text).is_ok(),
        |text| {
            number += 1;
            let options = Options {
                seed: options.seed.wrapping_add(u64::from(failed.turn - 1)),
                repeat: 1,
                folder: folder.join(number.to_string()),
                ..options.clone()
            };
            let report = run_all(worlds, lab, &[read(text)?], &options)?;
            Ok(report.scenarios.iter().any(|s| is_same(failed, s)))
        },
    )
}

/// Whether both fail, and what failed first in the one did in the other. The number of a step says nothing where others are left out.
fn is_same(one: &ScenarioReport, other: &ScenarioReport) -> bool {
    let failures = |s: &ScenarioReport| -> Vec<String> {
        let checks = s.checks.iter().filter(|c| c.verdict == Verdict::Fail);
        let checks = checks.map(|c| match c.id.starts_with("step ") {
            true => c.text.clone(),
            false => c.id.clone(),
        });
        let invariants = s.invariants.iter().filter(|i| i.verdict == Verdict::Fail);
        checks.chain(invariants.map(|i| i.id.clone())).collect()
    };
    let first = failures(one).into_iter().next();
    first.is_some_and(|first| failures(other).contains(&first))
}

/// Leaves out steps of the text as long as `fails` says that the rest fails in the same way; at most `tries` candidates are asked. A
/// candidate that makes no sense, by `reads`, is not asked. None where the steps cannot be told apart in the text.
///
/// # Errors
/// Those of `fails`.
fn shrink(
    text: &str,
    tries: usize,
    reads: impl Fn(&str) -> bool,
    mut fails: impl FnMut(&str) -> Result<bool>,
) -> Result<Option<Shrunk>> {
    let Some(pieces) = pieces(text) else {
        return Ok(None);
    };
    let all: Vec<usize> = (0..pieces.len()).collect();
    let of = |kept: &[usize]| without(text, &pieces, kept);
    let mut tried = 0;
    let mut oracle = |kept: &[usize]| {
        let candidate = of(kept);
        if kept.is_empty() || !reads(&candidate) {
            return Ok(Some(false));
        }
        if tried == tries {
            return Ok(None);
        }
        tried += 1;
        fails(&candidate).map(Some)
    };
    let (kept, is_least) = least(all, &mut oracle)?;
    let count = |kept: &[usize]| kept.iter().map(|i| pieces[*i].len()).sum();
    let steps = (count(&kept), pieces.iter().map(Vec::len).sum());
    Ok(Some(Shrunk {
        text: of(&kept),
        steps,
        tried,
        is_least,
    }))
}

/// The least part of `all` of which the oracle says that it fails, where no single piece more can be left out; `all` fails. An oracle
/// that says nothing ends it.
fn least(all: Vec<usize>, oracle: &mut impl FnMut(&[usize]) -> Result<Option<bool>>) -> Result<(Vec<usize>, bool)> {
    let (mut kept, mut parts) = (all, 2);
    while kept.len() > 1 {
        let size = kept.len().div_ceil(parts);
        let mut smaller = None;
        for begin in (0..kept.len()).step_by(size) {
            let end = (begin + size).min(kept.len());
            let rest = [&kept[..begin], &kept[end..]].concat();
            match oracle(&rest)? {
                None => return Ok((kept, false)),
                Some(true) => {
                    smaller = Some(rest);
                    break;
                }
                Some(false) => {}
            }
        }
        match smaller {
            Some(rest) => {
                kept = rest;
                parts = (parts - 1).max(2);
            }
            None if size == 1 => break,
            None => parts = (parts * 2).min(kept.len()),
        }
    }
    Ok((kept, true))
}

/// The steps of a file, by their places in the text, those together that are of no use without each other; in the file's order.
fn pieces(text: &str) -> Option<Vec<Vec<Range<usize>>>> {
    let raw: RawScenario = decode(text).ok()?;
    let tables = raw.steps.iter().map(|s| &s.value);
    let labels: Vec<Option<&str>> = tables.clone().map(|t| text_of(t, "as")).collect();
    let mut piece_of: Vec<usize> = (0..raw.steps.len()).collect();
    for (i, table) in tables.enumerate() {
        for named in NAMING.iter().filter_map(|key| text_of(table, key)) {
            let Some(first) = labels.iter().position(|l| *l == Some(named)) else {
                continue;
            };
            // Both belong to what either belongs to.
            let (from, to) = (piece_of[i], piece_of[first]);
            piece_of.iter_mut().filter(|p| **p == from).for_each(|p| *p = to);
        }
    }
    let numbers: BTreeSet<usize> = piece_of.iter().copied().collect();
    let places = |number: &usize| {
        let members = piece_of.iter().zip(&raw.steps).filter(|(p, _)| *p == number);
        members.map(|(_, step)| step.span.clone()).collect()
    };
    let all: Vec<Vec<Range<usize>>> = numbers.iter().map(places).collect();
    // Inline tables only: one that is left out is a table in braces.
    let inline = |r: &Range<usize>| {
        text.get(r.clone())
            .is_some_and(|t| t.starts_with('{') && t.ends_with('}'))
    };
    all.iter().flatten().all(inline).then_some(all)
}

fn text_of<'a>(table: &'a Table, key: &str) -> Option<&'a str> {
    match &table.get(key)?.value {
        Value::Text(text) => Some(text),
        _ => None,
    }
}

/// The text without the pieces that are not kept: each step with the comma behind it, and its line where nothing else is on it.
fn without(text: &str, pieces: &[Vec<Range<usize>>], kept: &[usize]) -> String {
    let mut gone: Vec<&Range<usize>> = (0..pieces.len())
        .filter(|i| !kept.contains(i))
        .flat_map(|i| &pieces[i])
        .collect();
    gone.sort_by_key(|r| r.start);
    let (mut out, mut behind) = (String::new(), 0);
    for place in gone {
        let blank = |c: char| c == ' ' || c == '\t';
        let rest = &text[place.end..];
        let comma = rest.trim_start().starts_with(',');
        let mut end = match comma {
            true => text.len() - rest.trim_start().len() + 1,
            false => place.end,
        };
        let mut start = place.start;
        let line = text[..start].trim_end_matches(blank);
        let after = text[end..].trim_start_matches(blank);
        if line.ends_with('\n') && after.starts_with('\n') {
            start = line.len();
            end = text.len() - after.len() + 1;
        }
        out += &text[behind..start.max(behind)];
        behind = end.max(behind);
    }
    out + &text[behind..]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;

    /// A file with one step a line, `n` waits of different lengths.
    fn file(steps: &[String]) -> String {
        let steps: String = steps.iter().map(|s| format!("  {s}, # why\n")).collect();
        format!("id = \"X\" # its id\ntitle = \"x\"\nsteps = [\n{steps}]\ninvariants = [\"I1\"]\n")
    }

    fn waits(n: usize) -> Vec<String> {
        (1..=n).map(|i| format!("{{ wait = \"{i}s\" }}")).collect()
    }

    proptest! {
        /// Whatever is needed for the failure: that is left, and nothing else.
        #[test]
        fn what_is_needed_is_left_and_nothing_else(n in 1usize..40, needed in proptest::collection::btree_set(0usize..40, 1..6)) {
            let steps = waits(n);
            let needed: Vec<&String> = needed.iter().filter_map(|i| steps.get(*i)).collect();
            prop_assume!(!needed.is_empty());
            let asked = Cell::new(0);
            let fails = |text: &str| {
                asked.set(asked.get() + 1);
                Ok(needed.iter().all(|s| text.contains(s.as_str())))
            };
            let shrunk = shrink(&file(&steps), usize::MAX, |_| true, fails).unwrap().unwrap();
            prop_assert!(shrunk.is_least && shrunk.tried == asked.get());
            prop_assert_eq!(shrunk.steps, (needed.len(), n));
            let raw: RawScenario = decode(&shrunk.text).unwrap();
            prop_assert_eq!(raw.steps.len(), needed.len());
            let mut behind = 0;
            for step in needed {
                let at = shrunk.text.find(step.as_str()).unwrap();
                prop_assert!(at >= behind, "the order stays");
                behind = at;
            }
            prop_assert!(shrunk.text.contains("# its id") && shrunk.text.contains("invariants"));
        }

        /// Whatever fails and whatever does not, the end fails, and no single step more can be left out of it.
        #[test]
        fn the_end_fails_and_is_least(n in 1usize..12, failing in proptest::collection::vec(any::<bool>(), 4096)) {
            let steps = waits(n);
            let mask = |text: &str| steps.iter().enumerate().filter(|(_, s)| text.contains(s.as_str())).map(|(i, _)| 1 << i).sum::<usize>();
            let whole = (1 << n) - 1;
            let fails = |mask: usize| mask == whole || failing[mask];
            let shrunk = shrink(&file(&steps), usize::MAX, |_| true, |text| Ok(fails(mask(text)))).unwrap().unwrap();
            let end = mask(&shrunk.text);
            prop_assert!(fails(end));
            let one_less = (0..n).filter(|i| end & (1 << i) != 0).map(|i| end & !(1 << i)).filter(|m| *m != 0);
            prop_assert!(one_less.into_iter().all(|m| !fails(m)));
        }
    }

    #[test]
    fn what_belongs_together_goes_together() {
        let steps = [
            r#"{ fault = "freeze", on = "a", as = "one" }"#,
            r#"{ fault = "freeze", on = "b", as = "two" }"#,
            r#"{ wait = "1s" }"#,
            r#"{ heal = "one" }"#,
            r#"{ heal = "two" }"#,
        ]
        .map(str::to_owned);
        let mut seen = Vec::new();
        let fails = |text: &str| {
            for label in ["one", "two"] {
                let made = text.contains(&format!("as = \"{label}\""));
                assert_eq!(made, text.contains(&format!("heal = \"{label}\"")), "{text}");
            }
            seen.push(text.to_owned());
            Ok(text.contains("two"))
        };
        let shrunk = shrink(&file(&steps), 50, |_| true, fails).unwrap().unwrap();
        assert_eq!(shrunk.steps, (2, 5));
        assert!(
            !shrunk.text.contains("one") && shrunk.text.contains("# why"),
            "{}",
            shrunk.text
        );
        assert!(!seen.is_empty());
    }

    #[test]
    fn candidates_that_make_no_sense_are_not_run_and_tries_are_bounded() {
        let steps = waits(8);
        let reads = |text: &str| text.contains("\"1s\"");
        let fails = |text: &str| {
            assert!(text.contains("\"1s\""));
            Ok(true)
        };
        let shrunk = shrink(&file(&steps), 50, reads, fails).unwrap().unwrap();
        assert_eq!(shrunk.steps, (1, 8));
        let shrunk = shrink(&file(&steps), 3, |_| true, |text| Ok(text.contains("\"7s\"")))
            .unwrap()
            .unwrap();
        assert_eq!((shrunk.tried, shrunk.is_least), (3, false));
        assert!(shrunk.text.contains("\"7s\""));
        let broken = shrink(&file(&steps), 3, |_| true, |_| Err(crate::error::Error::Interrupted));
        assert!(broken.is_err());
    }

    /// Steps on one line, without a last comma, and those that are no inline tables.
    #[test]
    fn every_layout_of_a_file_is_cut_or_left_alone() {
        let one_line = "id = \"X\"\ntitle = \"x\"\nsteps = [{ wait = \"1s\" }, { wait = \"2s\" }, { wait = \"3s\" }]\n";
        for needed in ["1s", "2s", "3s"] {
            let shrunk = shrink(one_line, 50, |_| true, |text| Ok(text.contains(needed)))
                .unwrap()
                .unwrap();
            let raw: RawScenario = decode(&shrunk.text).unwrap_or_else(|e| panic!("{}: {e:?}", shrunk.text));
            assert_eq!(raw.steps.len(), 1, "{}", shrunk.text);
        }
        let tables = "id = \"X\"\ntitle = \"x\"\n[[steps]]\nwait = \"1s\"\n[[steps]]\nwait = \"2s\"\n";
        assert_eq!(shrink(tables, 50, |_| true, |_| Ok(true)).unwrap(), None);
        assert_eq!(shrink("what?", 50, |_| true, |_| Ok(true)).unwrap(), None);
    }

    #[test]
    fn the_same_failure_is_the_same_check() {
        let report = |checks: &[(&str, &str, Verdict)]| {
            let mut r = ScenarioReport::empty("X", "x", Verdict::Fail);
            r.checks = checks
                .iter()
                .map(|(id, text, verdict)| crate::verify::Check {
                    id: (*id).to_owned(),
                    text: (*text).to_owned(),
                    verdict: *verdict,
                    detail: String::new(),
                })
                .collect();
            r
        };
        use Verdict::{Fail, Pass, Unknown};
        let one = report(&[
            ("step 1", "a", Pass),
            ("step 9", "expect", Fail),
            ("service", "s", Fail),
        ]);
        assert!(is_same(&one, &report(&[("step 2", "expect", Fail)])));
        assert!(!is_same(&one, &report(&[("step 9", "another", Fail)])));
        assert!(!is_same(&one, &report(&[("step 9", "expect", Unknown)])));
        assert!(!is_same(&one, &report(&[("service", "s", Fail)])));
    }
}
