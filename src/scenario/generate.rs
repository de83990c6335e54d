//! Scenarios from a seed: random faults, one after the other, each undone before the next one. Pure: the same seed, budget and lab
//! give the same bytes.

use super::file::{ID_HELP, is_sound};
use super::roles::has_role;
use super::{Rules, parse};
use crate::error::{Error, Problem, Result};
use crate::spec::{Lab, NetworkRole, NodeRole};
use crate::units::Span;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use std::collections::BTreeMap;
use std::time::Duration;

/// What is asked of a generated scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Its id.
    pub id: String,
    /// Of all choices.
    pub seed: u64,
    /// How long its steps may take on a host that is not slow.
    pub budget: Span,
}

/// The shortest budget: the beginning, one round, the end.
pub const LEAST: Span = Span::secs(60);
/// The longest one.
pub const MOST: Span = Span::secs(3600);

/// How long the clients need until there is something to lose, and the quiet time at the end with its reads.
const AROUND: Duration = Duration::from_secs(30);
/// How long a lab needs until it is healthy behind a round.
const MENDS: Duration = Duration::from_secs(12);

/// A fault that a round may make.
struct Row {
    kind: &'static str,
    /// Whom it may hit; nobody of those that are said otherwise.
    on: &'static [&'static str],
    /// What is said beside it: each entry is one choice.
    with: &'static [&'static str],
    /// How many seconds it lasts, at least and at most.
    lasts: (u64, u64),
    /// Whether the service may go on beside it without a takeover: then a second one may lie over it.
    soft: bool,
}

const fn hard(
    kind: &'static str,
    on: &'static [&'static str],
    with: &'static [&'static str],
    lasts: (u64, u64),
) -> Row {
    Row {
        kind,
        on,
        with,
        lasts,
        soft: false,
    }
}

const fn soft(kind: &'static str, on: &'static [&'static str], with: &'static [&'static str]) -> Row {
    Row {
        kind,
        on,
        with,
        lasts: (5, 15),
        soft: true,
    }
}

const MEMBERS: &[&str] = &["active", "passive"];

/// What may happen. None of it takes what must survive: one thing at a time has no power, stands still or is cut off, and of what the
/// runtime keeps only one member's copy is damaged, while the other one's is whole and its node is left alone.
const ROWS: &[Row] = &[
    hard("power-off", &["active", "passive", "witness"], &[""], (8, 20)),
    hard("freeze", &["active", "passive", "witness"], &[""], (5, 25)),
    hard("reset", &["active", "passive", "hub"], &[""], (10, 15)),
    hard("panic", MEMBERS, &[""], (8, 15)),
    hard("isolate", MEMBERS, &["", r#"network = "INTERNAL""#], (5, 20)),
    hard("cut-witness", MEMBERS, &[""], (5, 20)),
    hard(
        "link-down",
        MEMBERS,
        &[r#"network = "MIXED""#, r#"network = "INTERNAL""#],
        (5, 15),
    ),
    hard(
        "cut",
        &[],
        &[
            r#"between = ["a", "b"]"#,
            r#"between = ["a", "b"], direction = "in""#,
            r#"between = ["a", "b"], direction = "out""#,
            r#"between = ["a", "b"], network = "INTERNAL""#,
        ],
        (5, 20),
    ),
    hard("switch-dead", &[], &[r#"network = "INTERNAL""#], (5, 20)),
    hard(
        "witness-share",
        &["witness"],
        &[
            r#"how = "stopped""#,
            r#"how = "read-only""#,
            r#"how = "wrong-rights""#,
            r#"how = "gone""#,
        ],
        (10, 20),
    ),
    soft(
        "loss",
        &[],
        &[
            r#"between = ["a", "b"], loss = "10%""#,
            r#"between = ["a", "b"], loss = "20%""#,
        ],
    ),
    soft(
        "delay",
        &[],
        &[r#"between = ["a", "b"], delay = "20 ms", jitter = "10 ms""#],
    ),
    soft("duplicate", &[], &[r#"between = ["a", "b"], duplicate = "10%""#]),
    soft(
        "reorder",
        &[],
        &[r#"between = ["a", "b"], reorder = "10%", delay = "10 ms""#],
    ),
    soft(
        "clock",
        MEMBERS,
        &[
            r#"step = "1 h""#,
            r#"step = "-1 h""#,
            r#"step = "90 s", strobe = "500 ms""#,
        ],
    ),
];

/// What takes the active node away for certain.
const FAILOVERS: &[&str] = &["power-off", "panic"];

/// What moves the service in order.
const MOVE: &str = r#"{ move = "passive" }"#;

/// A round without a fault: what an operator does.
const ORDERS: &[&str] = &[
    MOVE,
    r#"{ operate = "move-group", group = "cluster", to = "non-owner" }"#,
    r#"{ operate = "reseed", on = "passive", wait = true }"#,
];

/// The choices of one scenario.
struct Choices {
    rng: ChaCha8Rng,
}

impl Choices {
    fn below(&mut self, n: u64) -> u64 {
        self.rng.next_u64() % n
    }

    fn one<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        let at = self.below(all.len() as u64) as usize;
        all[at]
    }

    /// One of the ways in which a row can be written.
    fn way(&mut self, ways: &[String]) -> String {
        ways[self.below(ways.len() as u64) as usize].clone()
    }

    fn between(&mut self, (least, most): (u64, u64)) -> u64 {
        least + self.below(most - least + 1)
    }
}

/// The text of a scenario for this lab, of what its pack knows.
///
/// # Errors
/// [`Error::Usage`] where the wish is out of its bounds, or the lab has nothing that a scenario could be about; and where the pack
/// cannot be read.
pub fn generated(lab: &Lab, wish: &Wish) -> Result<String> {
    let pack = super::vocabulary(lab)?;
    let rules = Rules {
        host_names: false,
        lab,
        pack: &pack,
        set: &BTreeMap::new(),
        shelf: None,
    };
    let reads = |step: &str| {
        let text = format!("id = \"X\"\ntitle = \"x\"\nsteps = [{step}]\n");
        parse("generated", &text, rules).is_ok()
    };
    generate(lab, wish, reads)
}

/// The same; `reads` says whether a step means something in this lab.
fn generate(lab: &Lab, wish: &Wish, reads: impl Fn(&str) -> bool) -> Result<String> {
    let refuse = |seen: String, remedy: &str| {
        let problem = Problem::new("generate a scenario").on(&lab.name);
        Err(Error::Usage(problem.observed(seen).remedy(remedy)))
    };
    if !is_sound(&wish.id) {
        return refuse(format!("`{}` cannot be an id", wish.id.escape_debug()), ID_HELP);
    }
    if !(LEAST..=MOST).contains(&wish.budget) {
        let seen = format!("a budget of {}", wish.budget);
        return refuse(seen, &format!("it is from {LEAST} to {MOST}"));
    }
    if lab.with_role(NodeRole::Member).count() != 2 || lab.runtime.is_none() {
        return refuse("it has no two members with a runtime".to_owned(), "name a lab that has");
    }
    let rounds = rounds(lab, wish, reads);
    if rounds.is_empty() {
        return refuse(
            "none of the faults can be made in it".to_owned(),
            "write a scenario of your own",
        );
    }
    Ok(written(wish, &rounds))
}

fn rounds(lab: &Lab, wish: &Wish, reads: impl Fn(&str) -> bool) -> Vec<Vec<String>> {
    let mut choices = Choices {
        rng: ChaCha8Rng::seed_from_u64(wish.seed),
    };
    let ways = |r: &'static Row| (r, possible(lab, r, &reads));
    let rows: Vec<(&Row, Vec<String>)> = ROWS.iter().map(ways).filter(|(_, ways)| !ways.is_empty()).collect();
    let rows: Vec<&(&Row, Vec<String>)> = rows.iter().collect();
    let softs: Vec<&(&Row, Vec<String>)> = rows.iter().copied().filter(|(row, _)| row.soft).collect();
    let orders: Vec<&str> = ORDERS.iter().copied().filter(|o| reads(o)).collect();
    let mut left = wish.budget.duration().saturating_sub(AROUND);
    let mut rounds = Vec::new();
    if rows.is_empty() {
        return rounds;
    }
    // I3 is about a failover and I2 about a move: without them a run could say nothing of either.
    let takes_over =
        |(row, ways): &&&(&Row, Vec<String>)| FAILOVERS.contains(&row.kind) && ways.iter().any(|w| hits_active(w));
    let failovers: Vec<_> = rows.iter().filter(takes_over).copied().collect();
    if !failovers.is_empty() {
        let (row, ways) = choices.one(&failovers);
        let fault = ways.iter().find(|w| hits_active(w)).expect("they were chosen for it");
        let seconds = row.lasts.0;
        left = left.saturating_sub(Duration::from_secs(seconds) + MENDS);
        rounds.push(round(1, fault, seconds, None));
    }
    if orders.contains(&MOVE)
        && let Some(rest) = left.checked_sub(MENDS * 2)
    {
        left = rest;
        rounds.push(vec![MOVE.to_owned()]);
    }
    // What does not fit is not looked for again: every choice is made once.
    loop {
        let number = rounds.len() + 1;
        if !orders.is_empty() && choices.below(5) == 0 {
            let Some(rest) = left.checked_sub(MENDS * 2) else { break };
            left = rest;
            rounds.push(vec![choices.one(&orders).to_owned()]);
            continue;
        }
        let (row, ways) = choices.one(&rows);
        let seconds = choices.between(row.lasts);
        let fault = choices.way(ways);
        let over = match softs.is_empty() || row.soft || choices.below(3) > 0 {
            true => None,
            false => {
                let (_, ways) = choices.one(&softs);
                Some(choices.way(ways))
            }
        };
        let Some(rest) = left.checked_sub(Duration::from_secs(seconds) + MENDS) else {
            break;
        };
        left = rest;
        rounds.push(round(number, &fault, seconds, over));
    }
    rounds
}

fn hits_active(fault: &str) -> bool {
    fault.contains(r#"on = "active""#)
}

/// A fault, for so long, perhaps with a soft one over it.
fn round(number: usize, fault: &str, seconds: u64, over: Option<String>) -> Vec<String> {
    let mut round = vec![format!("{{ {fault}, as = \"f{number}\" }}")];
    round.extend(over.iter().map(|over| format!("{{ {over}, as = \"s{number}\" }}")));
    round.push(format!("{{ wait = \"{seconds}s\" }}"));
    round.extend(over.iter().map(|_| format!("{{ heal = \"s{number}\" }}")));
    round.push(format!("{{ heal = \"f{number}\" }}"));
    round
}

/// The ways in which a row can be written in this lab.
fn possible(lab: &Lab, row: &Row, reads: impl Fn(&str) -> bool) -> Vec<String> {
    let whom: Vec<Option<&str>> = match row.on {
        [] => vec![None],
        roles => roles.iter().copied().filter(|r| has_role(lab, r)).map(Some).collect(),
    };
    let mut all = Vec::new();
    for on in whom {
        for with in row.with {
            let Some(with) = named(lab, with) else { continue };
            let on = on.map(|on| format!(", on = \"{on}\"")).unwrap_or_default();
            let with = if with.is_empty() { with } else { format!(", {with}") };
            let fault = format!("fault = \"{}\"{on}{with}", row.kind);
            if reads(&format!("{{ {fault} }}")) {
                all.push(fault);
            }
        }
    }
    all
}

/// The same with the lab's own network of a role in its place; none where it has none.
fn named(lab: &Lab, with: &str) -> Option<String> {
    let mut text = with.to_owned();
    for (word, role) in [("MIXED", NetworkRole::Mixed), ("INTERNAL", NetworkRole::Internal)] {
        if text.contains(word) {
            let network = lab.networks.iter().find(|n| n.role == role)?;
            text = text.replace(word, network.name.as_str());
        }
    }
    Some(text)
}

/// What must hold whatever is drawn. I8 is about one failover, of a service that nothing else hinders.
const INVARIANTS: &[&str] = &["I1", "I2", "I3", "I4", "I5", "I6", "I7", "I9", "I10", "I11", "I12"];

fn written(wish: &Wish, rounds: &[Vec<String>]) -> String {
    let Wish { id, seed, budget } = wish;
    let mut steps = vec![
        r#"{ workload = "mail", rate = "10/s", size = "32 KiB" }"#.to_owned(),
        r#"{ until = "load.acks >= 30 and copies.fresh >= 1", within = "60s" }"#.to_owned(),
    ];
    for round in rounds {
        steps.extend(round.iter().cloned());
        steps.push(r#"{ expect = "healthy", within = "180s" }"#.to_owned());
    }
    // The end: nothing is broken, nobody writes, everything is where it belongs.
    steps.extend(
        [
            r#"{ heal = "all" }"#,
            r#"{ workload = "stop" }"#,
            r#"{ expect = "healthy", within = "180s", for = "5s" }"#,
            r#"{ expect = "drained", within = "60s" }"#,
        ]
        .map(str::to_owned),
    );
    // What could never be said is not asked.
    let any = |is: &dyn Fn(&str) -> bool| rounds.iter().flatten().any(|step| is(step));
    let moves = any(&|step| step == MOVE);
    let fails_over = any(&|step| {
        hits_active(step)
            && FAILOVERS
                .iter()
                .any(|f| step.starts_with(&format!("{{ fault = \"{f}\"")))
    });
    let invariants: Vec<String> = INVARIANTS
        .iter()
        .filter(|id| (moves || **id != "I2") && (fails_over || **id != "I3"))
        .map(|id| format!("\"{id}\""))
        .collect();
    let invariants = invariants.join(", ");
    let steps: String = steps.iter().map(|s| format!("  {s},\n")).collect();
    format!(
        "# Whatever may happen, one thing after the other: nothing is lost that was promised, and nobody serves beside another one.\n\
         # Written by `failoverlab scenario generate --id {id} --seed {seed} --budget \"{budget}\"`, which writes the same bytes again.\n\
         id = \"{id}\"\n\
         title = \"Random faults, one after the other (seed {seed})\"\n\
         tags = [\"random\"]\n\
         steps = [\n{steps}]\n\
         require = {{ acks = 60 }}\n\
         forbid = [\"split-brain\"]\n\
         invariants = [{invariants}]\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::{Action, HealWords, Scenario};
    use crate::spec;
    use proptest::prelude::*;

    fn wish(seed: u64, seconds: u64) -> Wish {
        Wish {
            id: "F38".to_owned(),
            seed,
            budget: Span::secs(seconds),
        }
    }

    fn read(lab: &Lab, text: &str) -> Scenario {
        let rules = Rules {
            host_names: false,
            lab,
            pack: &crate::scenario::vocabulary(lab).unwrap(),
            set: &BTreeMap::new(),
            shelf: None,
        };
        parse("generated", text, rules).unwrap_or_else(|e| panic!("{e}"))
    }

    fn is_soft(kind: &str) -> bool {
        ROWS.iter().any(|r| r.kind == kind && r.soft)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// It reads, repeats, keeps to its budget, undoes each fault before the next round, and never takes two things at a time.
        #[test]
        fn a_generated_scenario_keeps_what_it_promises(seed: u64, seconds in 60u64..900) {
            let lab = spec::example("ccr");
            let text = generated(&lab, &wish(seed, seconds)).unwrap();
            prop_assert_eq!(&text, &generated(&lab, &wish(seed, seconds)).unwrap());
            let scenario = read(&lab, &text);
            let (mut waits, mut on, mut faults) = (0, Vec::new(), 0);
            for step in &scenario.steps {
                match &step.action {
                    Action::Wait(time) => waits += time.duration().as_secs(),
                    Action::Fault { words, .. } => {
                        on.push((step.label.clone().unwrap(), words.kind.word()));
                        faults += 1;
                    }
                    Action::Heal(HealWords::Labelled(label)) => on.retain(|(l, _)| l != label),
                    Action::Expect(_) => prop_assert!(on.is_empty(), "{:?} at {}", on, step.text),
                    _ => {}
                }
                prop_assert!(on.iter().filter(|(_, kind)| !is_soft(kind)).count() <= 1, "{:?}", on);
                prop_assert!(on.len() <= 2);
            }
            prop_assert!(on.is_empty() && waits <= seconds);
            let moves = scenario.steps.iter().any(|s| s.text.starts_with("move"));
            prop_assert_eq!(text.contains("\"I2\""), moves);
            // The shortest budget has room for a failover, and each but short ones for a move.
            prop_assert!(text.contains("\"I3\"") && (moves || seconds < 80));
            let ends: Vec<&str> = scenario.steps.iter().rev().take(4).map(|s| s.text.as_str()).collect();
            prop_assert!(ends[0].contains("drained") && ends[1].contains("healthy") && ends[3].contains("heal"));
            prop_assert!(seconds < 120 || faults > 0 || scenario.steps.len() > 8);
        }
    }

    /// Every row can be made in the lab that they were written for: one that reads nowhere would never be chosen.
    #[test]
    fn every_row_means_something() {
        let lab = spec::example("ccr");
        let pack = crate::scenario::vocabulary(&lab).unwrap();
        let rules = Rules {
            host_names: false,
            lab: &lab,
            pack: &pack,
            set: &BTreeMap::new(),
            shelf: None,
        };
        let reads = |step: &str| {
            let text = format!("id = \"X\"\ntitle = \"x\"\nsteps = [{step}]\n");
            parse("row", &text, rules).map(drop).map_err(|e| e.to_string())
        };
        for row in ROWS {
            let all = possible(&lab, row, |_| true);
            assert_eq!(all.len(), row.on.len().max(1) * row.with.len(), "{}", row.kind);
            for fault in all {
                assert_eq!(reads(&format!("{{ {fault} }}")), Ok(()), "{fault}");
            }
        }
        for order in ORDERS {
            assert_eq!(reads(order), Ok(()), "{order}");
        }
    }

    #[test]
    fn another_seed_is_another_scenario_and_bad_wishes_are_refused() {
        let lab = spec::example("ccr");
        let texts: std::collections::BTreeSet<String> =
            (0..20).map(|seed| generated(&lab, &wish(seed, 300)).unwrap()).collect();
        assert_eq!(texts.len(), 20);
        for (id, seconds) in [("F38", 10), ("F38", 4000), ("../x", 300)] {
            let wish = Wish {
                id: id.to_owned(),
                ..wish(1, seconds)
            };
            assert_eq!(generated(&lab, &wish).unwrap_err().exit_code(), 2, "{id} {seconds}");
        }
        assert!(generated(&spec::example("bare"), &wish(1, 300)).is_err());
    }

    /// UPDATE_SCENARIOS=1 writes it anew.
    #[test]
    fn the_scenario_of_the_lab_is_what_its_seed_writes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/labs/ccr/scenarios/F38.toml");
        let right = generated(&spec::example("ccr"), &wish(38, 150)).unwrap();
        if std::env::var_os("UPDATE_SCENARIOS").is_some() {
            std::fs::write(path, &right).unwrap();
        }
        assert_eq!(
            std::fs::read_to_string(path).unwrap_or_default(),
            right,
            "UPDATE_SCENARIOS=1"
        );
    }
}
