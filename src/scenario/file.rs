//! Scenario files: text in, [`Scenario`] or every finding out. Pure.

use super::Workload;
use super::exec::Exec;
use super::expect::Expectation;
use super::include::Shelf;
use super::parallel::Branch;
use super::parameters::Parameters;
use super::raw::{RawRequire, RawScenario};
use super::reader::Reader;
use super::sample::Sample;
use super::statement::Statement;
use crate::deploy::Orders;
use crate::diagnostic::{Finding, Invalid};
use crate::error::{Error, Result};
use crate::fault::{Kind, Words};
use crate::spec::{Lab, decode};
use crate::units::{Name, Span};
use crate::verify::{InvariantId, Pattern};
use std::collections::{BTreeMap, BTreeSet};

/// A scenario, checked. What needs a lab that runs (roles) is resolved at each step.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// Its id.
    pub id: String,
    /// What a person reads.
    pub title: String,
    /// Words by which a person chooses it among others.
    pub tags: Vec<String>,
    /// Settings of the runtime that are made before the first step, each with its value, in the file's order.
    pub settings: Vec<(String, String)>,
    /// Its parameters and their values in force.
    pub parameters: BTreeMap<String, String>,
    /// The steps, in the order in which they are done: those of a `repeat` once for each round.
    pub steps: Vec<Step>,
    /// Evidence without which nothing can be said.
    pub require: Require,
    /// What must not be seen.
    pub forbid: Vec<Pattern>,
    /// What must be so at least once: events.
    pub sometimes_events: Vec<Pattern>,
    /// What must be so at least once, by a look.
    pub sometimes: Vec<Statement>,
    /// What is checked at the end.
    pub invariants: Vec<InvariantId>,
    /// The file's own text, kept with the run.
    pub text: String,
    /// The texts of the files that it includes, by their paths from its folder.
    pub parts: BTreeMap<String, String>,
}

/// Evidence without which a run is *unknown*.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Require {
    /// Acknowledged `submit` and `deliver`.
    pub acks: u64,
    /// Generations that were closed before the first fault (before the end where there is none).
    pub closed_generations: u64,
    /// Times that the service came online on another node.
    pub role_changes: u64,
    /// Events that must have happened.
    pub events: Vec<Pattern>,
}

/// One step.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// What it does.
    pub action: Action,
    /// What other steps call it. That of a `repeat` has the same one in every round.
    pub label: Option<String>,
    /// The file that has it, by its path from the scenario's folder; the scenario itself where absent.
    pub file: Option<String>,
    /// Line of the file, from 1.
    pub line: usize,
    /// As a person reads it.
    pub text: String,
}

/// What a step does. Times are unscaled: the runner multiplies those that something is waited for by the machine's slowness.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Starts clients; their seed is the run's.
    Load(Workload),
    /// Stops them.
    StopLoad,
    /// Lets time pass.
    Wait(Span),
    /// Waits for a condition: without it the rest proves nothing.
    Until(Statement, Span),
    /// Makes a fault happen.
    Fault {
        /// Which.
        words: Words,
        /// How long: the step ends when it is undone. In force until it is healed where absent.
        lasts: Option<Span>,
    },
    /// Undoes faults.
    Heal(HealWords),
    /// Must come true in time, and stay true.
    Expect(Expect),
    /// Must be true from now on: until it is released, for a time, or to the end of the steps.
    Holds {
        /// What.
        what: Statement,
        /// How long.
        lasts: Option<Span>,
    },
    /// Ends what must be true, by its label.
    Release(String),
    /// Runs a command in a machine.
    Exec(Exec),
    /// Keeps what a field of a status is now.
    Sample(Sample),
    /// Does the steps of several branches at the same time.
    Parallel(Vec<Branch>),
    /// Gives the runtime an order.
    Operate {
        /// Its word in the pack.
        word: String,
        /// Whom to ask.
        on: Option<String>,
        /// What is said beside it.
        args: BTreeMap<String, String>,
        /// Which of them name a machine or role.
        machines: Vec<String>,
        /// Whether it must be refused.
        refused: Refused,
    },
}

/// What must come true.
#[derive(Debug, Clone, PartialEq)]
pub struct Expect {
    /// What.
    pub what: Statement,
    /// In which time; at once where there is none.
    pub within: Span,
    /// How long it must then stay true.
    pub lasts: Option<Span>,
    /// Of an event: the step since whose beginning it may have happened. Where absent, the last fault, else the whole scenario.
    pub since: Option<String>,
}

/// Whether an order must be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// It must be done.
    No,
    /// It must be refused.
    Yes,
    /// It must be refused, and this must be in what is said of it.
    Because(String),
}

/// Which faults a step undoes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HealWords {
    /// Every one.
    All,
    /// Those that were made like this: the kind, and of whom and with which parameters, as far as these are said.
    Like {
        /// The kind.
        kind: Kind,
        /// On whom.
        on: Option<String>,
        /// With these parameters, as the fault's step has them.
        parameters: BTreeMap<String, String>,
    },
    /// That of the step with this label.
    Labelled(String),
}

impl Action {
    /// Whether it does something to the lab, and does not wait and look by itself.
    pub fn acts(&self) -> bool {
        !matches!(self, Action::Wait(_) | Action::Until(..) | Action::Expect(..))
    }
}

impl Expect {
    /// That this word comes true in time.
    pub(super) fn of(word: Expectation, within: Span) -> Self {
        Self {
            what: Statement::State(word),
            within,
            lasts: None,
            since: None,
        }
    }
}

/// What the pack of a lab's runtime has words for; nothing where the lab has no runtime.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Vocabulary {
    /// Its orders.
    pub orders: Orders,
    /// Its kinds of files, for `damage-file`.
    pub files: BTreeSet<String>,
    /// Its workloads beside `mail`.
    pub workloads: BTreeSet<Name>,
}

/// What a file is checked against.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Whether host names are allowed: in a person's own file, not under labs/.
    pub host_names: bool,
    /// The lab, for names of nodes and networks.
    pub lab: &'a Lab,
    /// What its runtime's pack has words for.
    pub pack: &'a Vocabulary,
    /// Values of parameters that a person sets, by their names; a file need not have them.
    pub set: &'a BTreeMap<String, String>,
    /// Where files come from that are included; none can be where absent.
    pub shelf: Option<&'a Shelf>,
}

/// Checks the text of a scenario file; `file_name` is what a person reads in the report.
///
/// # Errors
/// [`Error::Invalid`] with every finding.
pub fn parse(file_name: &str, text: &str, rules: Rules<'_>) -> Result<Scenario> {
    let invalid = |invalid| Error::Invalid(Box::new(invalid));
    let raw = decode(text).map_err(|findings| invalid(Invalid::new(file_name, text, findings)));
    let mut raw: RawScenario = raw?;
    let mut reader = Reader::new(rules, text);
    reader.parameters = Parameters::fill(&mut reader, &mut raw);
    // A value that is not there would be found wrong once more.
    let scenario = (reader.found() == 0).then(|| scenario(&mut reader, raw)).flatten();
    match (scenario, reader.into_invalid(file_name)) {
        (_, Some(wrong)) => Err(invalid(wrong)),
        (Some(scenario), None) => Ok(scenario),
        (None, None) => Err(invalid(Invalid::new(file_name, text, Vec::new()))),
    }
}

/// What an id is.
pub(super) const ID_HELP: &str = "use letters, digits, - _ and ., at most 32, like `F05`";

/// Whether an id can name a folder.
pub(super) fn is_sound(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    (1..=32).contains(&id.len()) && id.bytes().all(plain) && !id.starts_with(['.', '-'])
}

fn scenario(reader: &mut Reader<'_>, raw: RawScenario) -> Option<Scenario> {
    if !is_sound(&raw.id) {
        reader.find(
            Finding::new("bad-value", "the id cannot name a folder")
                .on(&raw.id, "this one")
                .help(ID_HELP),
        );
    }
    if raw.steps.is_empty() {
        reader.find(Finding::new("no-steps", "the scenario does nothing").on(&raw.id, "this one"));
    }
    let tags = reader.tags(&raw.tags);
    let settings = reader.settings(&raw.settings);
    let steps = reader.steps(&raw.steps);
    let invariants = reader.invariants(&raw.invariants);
    let forbid = raw.forbid.iter().filter_map(|f| reader.forbidden(f)).collect();
    let (mut sometimes, mut sometimes_events) = (Vec::new(), Vec::new());
    for one in &raw.sometimes {
        match reader.statement_of(one) {
            Some(Statement::Event(what, on)) => sometimes_events.push(Pattern { what, on, during: None }),
            Some(statement) => sometimes.push(statement),
            None => {}
        }
    }
    let RawRequire {
        acks,
        closed_generations,
        role_changes,
        events,
    } = raw.require.unwrap_or_default();
    let events = events.iter().filter_map(|e| reader.required(e)).collect();
    Some(Scenario {
        id: raw.id.value,
        title: raw.title,
        tags,
        settings,
        parameters: reader.parameters.said(),
        steps: steps?,
        require: Require {
            acks,
            closed_generations,
            role_changes,
            events,
        },
        forbid,
        sometimes_events,
        sometimes,
        invariants,
        text: reader.text().to_owned(),
        parts: std::mem::take(&mut reader.parts),
    })
}
