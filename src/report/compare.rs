//! Two runs beside each other: verdicts, times, losses, and where what happened parts. Roles stand for names.

use super::table::word;
use crate::event::Source;
use crate::picture::text::is_quiet;
use crate::spec::{Lab, NodeRole};
use crate::verify::{History, RunReport, ScenarioReport, Verdict};
use serde::Serialize;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

/// One of the two runs.
#[derive(Debug, Clone, Copy)]
pub struct Side<'a> {
    /// Its verdicts.
    pub report: &'a RunReport,
    /// Its lab, where it is known.
    pub lab: Option<&'a Lab>,
    /// Digest of its lab file; empty where it is not known.
    pub digest: &'a str,
    /// The histories of its scenarios, by name.
    pub histories: &'a BTreeMap<String, &'a History>,
}

/// What a comparison found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Comparison {
    /// What makes it weak, in words: another lab file, seed, acceleration, a slower host.
    pub weak: Vec<String>,
    /// Each scenario of either.
    pub scenarios: Vec<Pair>,
    /// Whether the second run is worse; null where no scenario is in both.
    pub worse: Option<bool>,
}

/// A scenario of both, or of one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Pair {
    /// Its name.
    pub name: String,
    /// The verdicts; null where it was not run.
    pub verdicts: [Option<Verdict>; 2],
    /// Times and losses that differ.
    pub figures: Vec<Figure>,
    /// Invariants and checks whose verdicts differ: id and both words.
    pub checks: Vec<(String, [String; 2])>,
    /// For each role the place at which its events part: role, number from 1, what each has there.
    pub parts: Vec<(String, usize, [String; 2])>,
    /// Kinds of events that only one of them has, as `role kind`.
    pub only: [Vec<String>; 2],
}

/// A figure that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Figure {
    /// What it is.
    pub name: &'static str,
    /// Both values; null where one has none.
    pub values: [Option<u64>; 2],
    /// The second by the first.
    pub ratio: Option<f64>,
    /// The same with the hosts' slowness taken out.
    pub scaled: Option<f64>,
}

impl Comparison {
    /// Exit code: 0 the same or better, 1 worse, 3 not comparable.
    pub fn exit_code(&self) -> u8 {
        match self.worse {
            Some(false) => 0,
            Some(true) => 1,
            None => 3,
        }
    }
}

/// How bad a verdict is.
fn rank(v: Verdict) -> u8 {
    match v {
        Verdict::Pass => 0,
        Verdict::Skipped => 1,
        Verdict::Unknown => 2,
        Verdict::Fail => 3,
    }
}

/// Compares run `b` with run `a`.
pub fn compare(a: Side<'_>, b: Side<'_>) -> Comparison {
    let find = |side: &Side<'_>, name: &str| side.report.scenarios.iter().find(|s| s.name() == name).cloned();
    let mut names: Vec<String> = a.report.scenarios.iter().map(ScenarioReport::name).collect();
    for name in b.report.scenarios.iter().map(ScenarioReport::name) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let both: Vec<(String, [Option<ScenarioReport>; 2])> = names
        .into_iter()
        .map(|n| {
            let pair = [find(&a, &n), find(&b, &n)];
            (n, pair)
        })
        .collect();
    let of_both = both.iter().filter_map(|(_, pair)| match pair {
        [Some(a), Some(b)] => Some((a, b)),
        _ => None,
    });
    let worse = of_both
        .map(|(a, b)| rank(b.verdict) > rank(a.verdict))
        .reduce(|x, y| x || y);
    Comparison {
        weak: weak(a, b, &both),
        worse,
        scenarios: both.into_iter().map(|(name, pair)| one(a, b, name, &pair)).collect(),
    }
}

fn slowness(s: &ScenarioReport) -> f64 {
    s.host.map_or(1.0, |h| h.slowness * h.busy)
}

fn weak(a: Side<'_>, b: Side<'_>, both: &[(String, [Option<ScenarioReport>; 2])]) -> Vec<String> {
    let mut weak = Vec::new();
    if a.digest.is_empty() || b.digest.is_empty() {
        weak.push("the lab file of one is not known".to_owned());
    } else if a.digest != b.digest {
        weak.push("the lab files differ".to_owned());
    }
    let (ra, rb) = (a.report, b.report);
    for (what, x, y) in [
        ("lab", &ra.lab, &rb.lab),
        ("acceleration", &ra.accel, &rb.accel),
        ("place", &ra.on, &rb.on),
    ] {
        if x != y {
            weak.push(format!("{what}: {x} and {y}"));
        }
    }
    if ra.seed != rb.seed {
        weak.push(format!("seeds: {} and {}", ra.seed, rb.seed));
    }
    for (name, pair) in both {
        if let [Some(x), Some(y)] = pair {
            let ratio = slowness(y) / slowness(x);
            if !(1.0 / 1.3..=1.3).contains(&ratio) {
                weak.push(format!("{name}: the second host was {ratio:.1} × as slow"));
            }
        }
    }
    weak
}

fn one(a: Side<'_>, b: Side<'_>, name: String, pair: &[Option<ScenarioReport>; 2]) -> Pair {
    let mut out = Pair {
        verdicts: [0, 1].map(|i| pair[i].as_ref().map(|s| s.verdict)),
        figures: Vec::new(),
        checks: Vec::new(),
        parts: Vec::new(),
        only: [Vec::new(), Vec::new()],
        name,
    };
    let [Some(x), Some(y)] = pair else { return out };
    out.figures = figures(x, y);
    out.checks = checks(x, y);
    let ladder = |side: Side<'_>| Some(ladders(side.lab?, side.histories.get(&out.name)?));
    if let (Some(la), Some(lb)) = (ladder(a), ladder(b)) {
        (out.parts, out.only) = part(&la, &lb);
    }
    out
}

fn figures(x: &ScenarioReport, y: &ScenarioReport) -> Vec<Figure> {
    let times = |s: &ScenarioReport| {
        let t = &s.timings;
        [t.outage_ms, t.detect_ms, t.arbitrate_ms, t.mount_ms, t.first_ack_ms]
    };
    let losses = |s: &ScenarioReport| {
        let l = &s.loss;
        [l.acked, l.lost, l.redelivered, l.duplicated, l.lost_logs].map(Some)
    };
    let of_times = ["outage ms", "detect ms", "arbitrate ms", "mount ms", "first answer ms"];
    let of_losses = ["acknowledged", "lost", "delivered again", "twice", "generations lost"];
    let host = slowness(y) / slowness(x);
    let row = |name, values: [Option<u64>; 2], is_time: bool| {
        let ratio = match values {
            [Some(x), Some(y)] if x > 0 => Some(y as f64 / x as f64),
            _ => None,
        };
        let round = |v: f64| (v * 100.0).round() / 100.0;
        (values[0] != values[1]).then(|| Figure {
            name,
            values,
            ratio: ratio.map(round),
            scaled: ratio.filter(|_| is_time).map(|r| round(r / host)),
        })
    };
    let (tx, ty, lx, ly) = (times(x), times(y), losses(x), losses(y));
    let times = (0..5).filter_map(|i| row(of_times[i], [tx[i], ty[i]], true));
    times
        .chain((0..5).filter_map(|i| row(of_losses[i], [lx[i], ly[i]], false)))
        .collect()
}

fn checks(x: &ScenarioReport, y: &ScenarioReport) -> Vec<(String, [String; 2])> {
    let of = |s: &ScenarioReport| -> BTreeMap<String, Verdict> {
        let invariants = s.invariants.iter().map(|i| (i.id.clone(), i.verdict));
        invariants
            .chain(s.checks.iter().map(|c| (c.id.clone(), c.verdict)))
            .collect()
    };
    let (of_x, of_y) = (of(x), of(y));
    let ids: BTreeSet<&String> = of_x.keys().chain(of_y.keys()).collect();
    let said = |v: Option<&Verdict>| v.map_or("–", |v| word(*v)).to_owned();
    let pair = |id: &&String| [said(of_x.get(*id)), said(of_y.get(*id))];
    ids.iter()
        .map(|id| ((*id).clone(), pair(id)))
        .filter(|(_, [x, y])| x != y)
        .collect()
}

/// What each role told of, in its own order: `a` served when the run began, `b` is the other member.
fn ladders(lab: &Lab, history: &History) -> BTreeMap<String, Vec<String>> {
    let active = history.observations.first().and_then(|o| o.active());
    let first = lab.with_role(NodeRole::Member).next().map(|n| n.name.as_str());
    let a = active.or(first);
    let role = |node: &str| match lab.node(node).and_then(|n| n.role) {
        Some(NodeRole::Member) if Some(node) == a => "a".to_owned(),
        Some(NodeRole::Member) => "b".to_owned(),
        _ => node.to_owned(),
    };
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let told = history
        .events
        .iter()
        .filter(|e| e.src == Source::Node && e.t_us >= history.from_us);
    for e in told.filter(|e| !is_quiet(e)) {
        if let Some(node) = &e.node {
            all.entry(role(node)).or_default().push(e.kind.clone());
        }
    }
    all
}

type Parted = (Vec<(String, usize, [String; 2])>, [Vec<String>; 2]);

fn part(a: &BTreeMap<String, Vec<String>>, b: &BTreeMap<String, Vec<String>>) -> Parted {
    let roles: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let none = Vec::new();
    let (mut parts, mut only) = (Vec::new(), [Vec::new(), Vec::new()]);
    for role in roles {
        let (x, y) = (a.get(role).unwrap_or(&none), b.get(role).unwrap_or(&none));
        let at = (0..x.len().max(y.len())).find(|i| x.get(*i) != y.get(*i));
        if let Some(i) = at {
            let end = || "nothing more".to_owned();
            let pair = [x, y].map(|l| l.get(i).cloned().unwrap_or_else(end));
            parts.push((role.clone(), i + 1, pair));
        }
        for (i, (own, other)) in [(x, y), (y, x)].into_iter().enumerate() {
            let kinds: BTreeSet<&String> = own.iter().filter(|k| !other.contains(k)).collect();
            only[i].extend(kinds.into_iter().map(|k| format!("{role} {k}")));
        }
    }
    (parts, only)
}

/// The comparison for a terminal.
pub fn comparison_text(c: &Comparison) -> String {
    let mut out = String::new();
    for weak in &c.weak {
        let _ = writeln!(out, "weak: {weak}");
    }
    let mut alone = [Vec::new(), Vec::new()];
    for p in &c.scenarios {
        let (x, y) = match p.verdicts {
            [Some(x), Some(y)] => (x, y),
            [x, _] => {
                alone[usize::from(x.is_none())].push(p.name.as_str());
                continue;
            }
        };
        let sign = match rank(y).cmp(&rank(x)) {
            Ordering::Greater => "worse",
            Ordering::Less => "better",
            Ordering::Equal => "same",
        };
        let _ = writeln!(out, "{:8} {sign:6} {} → {}", p.name, word(x), word(y));
        for f in &p.figures {
            let value = |v: Option<u64>| v.map_or_else(|| "–".to_owned(), |v| v.to_string());
            let times = |v: Option<f64>, what: &str| v.map_or_else(String::new, |v| format!(", × {v:.2}{what}"));
            let scaled = if f.scaled == f.ratio { None } else { f.scaled };
            let _ = writeln!(
                out,
                "         {}: {} → {}{}{}",
                f.name,
                value(f.values[0]),
                value(f.values[1]),
                times(f.ratio, ""),
                times(scaled, " without the hosts' slowness")
            );
        }
        for (id, [x, y]) in &p.checks {
            let _ = writeln!(out, "         {id}: {x} → {y}");
        }
        for (role, at, [x, y]) in &p.parts {
            let _ = writeln!(out, "         events of {role} part at {at}: {x} / {y}");
        }
        for (i, side) in ["first", "second"].into_iter().enumerate() {
            if !p.only[i].is_empty() {
                let _ = writeln!(out, "         only in the {side}: {}", p.only[i].join(", "));
            }
        }
    }
    for (names, side) in alone.iter().zip(["first", "second"]) {
        if !names.is_empty() {
            let _ = writeln!(out, "only in the {side} run: {}", names.join(", "));
        }
    }
    if c.worse.is_none() {
        out.push_str("no scenario is in both runs: they cannot be compared\n");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::sample::{self, Change, Plan, history};

    fn run(scenarios: Vec<ScenarioReport>) -> RunReport {
        sample::run(Verdict::Pass, scenarios)
    }

    fn both(a: (&RunReport, &History), b: (&RunReport, &History)) -> Comparison {
        let lab = sample::lab();
        let maps = [a.1, b.1].map(|h| BTreeMap::from([("F05".to_owned(), h)]));
        let side = |i: usize, report| Side {
            report,
            lab: Some(&lab),
            digest: "d",
            histories: &maps[i],
        };
        compare(side(0, a.0), side(1, b.0))
    }

    /// The same history with the members' names exchanged.
    fn mirrored(h: &History) -> History {
        let text = serde_json::to_string(h).unwrap();
        let text = text
            .replace("node1", "nodeX")
            .replace("node2", "node1")
            .replace("nodeX", "node2");
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_mirror_image_is_no_difference() {
        let h = history(&Plan::new(&[Change::PowerOff]));
        let r = run(vec![ScenarioReport::empty("F05", "x", Verdict::Pass)]);
        let c = both((&r, &h), (&r, &mirrored(&h)));
        assert_eq!((c.worse, c.exit_code()), (Some(false), 0));
        assert!(c.weak.is_empty() && c.scenarios[0].parts.is_empty(), "{c:?}");
        assert_eq!(c.scenarios[0].only, [Vec::<String>::new(), Vec::new()]);
    }

    #[test]
    fn what_parts_is_named() {
        let (h, other) = (
            history(&Plan::new(&[Change::PowerOff])),
            history(&Plan::new(&[Change::Planned])),
        );
        let mut good = ScenarioReport::empty("F05", "x", Verdict::Pass);
        good.timings.outage_ms = Some(4_000);
        let mut bad = ScenarioReport::empty("F05", "x", Verdict::Fail);
        bad.timings.outage_ms = Some(10_000);
        bad.host = Some(crate::verify::HostSpeed {
            slowness: 2.0,
            busy: 1.0,
        });
        let c = both((&run(vec![good.clone()]), &h), (&run(vec![bad.clone()]), &other));
        assert_eq!(c.exit_code(), 1);
        let p = &c.scenarios[0];
        assert_eq!(p.figures[0].ratio, Some(2.5));
        assert_eq!(p.figures[0].scaled, Some(1.25));
        assert!(p.only[0].contains(&"b cluster.member-down".to_owned()), "{p:?}");
        assert!(p.only[1].contains(&"b service.move".to_owned()), "{p:?}");
        assert!(!p.parts.is_empty());
        assert!(c.weak[0].contains("2.0 ×"), "{:?}", c.weak);
        let text = comparison_text(&c);
        assert!(
            text.contains("worse  pass → fail") && text.contains("part at"),
            "{text}"
        );
        let alone = both((&run(Vec::new()), &h), (&run(vec![good.clone()]), &h));
        assert!(
            comparison_text(&alone).starts_with("only in the second run: F05\n"),
            "{alone:?}"
        );
        // The other way round it is better.
        assert_eq!(both((&run(vec![bad]), &h), (&run(vec![good]), &h)).exit_code(), 0);
    }

    #[test]
    fn nothing_in_common_cannot_be_compared() {
        let h = History::default();
        let c = both(
            (&run(vec![ScenarioReport::empty("F05", "x", Verdict::Pass)]), &h),
            (&run(vec![ScenarioReport::empty("F01", "x", Verdict::Pass)]), &h),
        );
        assert_eq!(c.exit_code(), 3);
        assert_eq!(c.scenarios.len(), 2);
    }
}
