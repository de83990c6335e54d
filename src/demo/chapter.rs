//! Reading a chapter: text in, [`Chapter`] or every finding out. Pure.

use super::fences::{Part, alone, parts};
use super::written::{RawAsk, RawCheck, RawDo, RawHead, RawHint, RawOption, RawRequire, RawSee, RawWatch};
use super::{Ask, Beat, Chapter, Choice, measured};
use crate::diagnostic::{At, Finding, Invalid, known};
use crate::scenario::{Action, Pieces, Require, Rules, Scenario, Statement, Step, Written, WrittenValue};
use crate::spec::decode;
use serde::de::DeserializeOwned;
use std::collections::BTreeMap;
use std::ops::Range;

/// The fences that a chapter may have.
pub(super) const FENCES: [&str; 5] = ["ask", "do", "watch", "check", "hint"];

/// The most words that are read at once.
const WORDS: usize = 250;

/// How many answers a question has.
const ANSWERS: std::ops::RangeInclusive<usize> = 2..=5;

/// Reads the text of a chapter; `label` is what a person reads of its file.
///
/// # Errors
/// Every finding.
pub(super) fn read(file: &str, label: &str, text: &str, rules: Rules<'_>) -> Result<Chapter, Box<Invalid>> {
    let mut findings = Vec::new();
    let parts = parts(text, &mut findings);
    let mut making = Making::new(file, text, rules);
    findings.into_iter().for_each(|f| making.pieces.find(f));
    for part in &parts {
        match part {
            Part::Head(body) => making.head(body),
            Part::Prose(body) => making.prose(body),
            Part::Fence { word, body } => making.fence(word, body),
        }
    }
    let chapter = making.chapter();
    match making.pieces.into_invalid(label) {
        Some(invalid) => Err(Box::new(invalid)),
        None => Ok(chapter),
    }
}

/// A chapter that is being read.
struct Making<'a> {
    id: String,
    text: &'a str,
    pieces: Pieces<'a>,
    title: Option<String>,
    beats: Vec<(usize, Beat)>,
    asks: Vec<Asked>,
    steps: Vec<Step>,
    written: Vec<String>,
    forbid: Vec<WrittenValue>,
    invariants: Vec<At<String>>,
    limits: Vec<At<String>>,
    require: RawRequire,
    checks: usize,
}

/// A question whose conditions are not read yet: they may name samples of steps behind it.
struct Asked {
    id: At<String>,
    question: String,
    options: Vec<At<RawOption>>,
    hints: Vec<String>,
    /// The steps before it, as they are done and as they are written.
    from: usize,
    written: usize,
    place: Range<usize>,
}

impl<'a> Making<'a> {
    fn new(file: &str, text: &'a str, rules: Rules<'a>) -> Self {
        let id = file.trim_end_matches(".md").to_owned();
        let mut pieces = Pieces::new(rules, text);
        if !is_sound(&id) {
            let finding = Finding::new(
                "bad-name",
                format!("the file's name `{}` cannot be an id", id.escape_debug()),
            );
            pieces.find(
                finding
                    .at(0..0, "this file")
                    .help("use letters, digits and -, at most 32, like 01-who-serves.md"),
            );
        }
        Self {
            id,
            text,
            pieces,
            title: None,
            beats: Vec::new(),
            asks: Vec::new(),
            steps: Vec::new(),
            written: Vec::new(),
            forbid: Vec::new(),
            invariants: Vec::new(),
            limits: Vec::new(),
            require: RawRequire::default(),
            checks: 0,
        }
    }

    fn decoded<T: DeserializeOwned>(&mut self, body: &Range<usize>) -> Option<T> {
        match decode(&alone(self.text, body)) {
            Ok(value) => Some(value),
            Err(findings) => {
                findings.into_iter().for_each(|f| self.pieces.find(f));
                None
            }
        }
    }

    /// What a key says; where it is missing, that is found at `place`.
    fn needed<T>(&mut self, value: Option<T>, key: &str, place: &Range<usize>) -> Option<T> {
        if value.is_none() {
            let finding = Finding::new("missing-key", format!("the key `{key}` is missing"));
            self.pieces.find(finding.at(place.clone(), "in here"));
        }
        value
    }

    fn head(&mut self, body: &Range<usize>) {
        let head: RawHead = self.decoded(body).unwrap_or_default();
        self.title = self.needed(head.title, "title", body).map(|t| t.value);
    }

    fn prose(&mut self, body: &Range<usize>) {
        let prose = self.text[body.clone()].trim();
        let words = prose.split_whitespace().count();
        if words > WORDS {
            let first = body.start + self.text[body.clone()].find(prose).unwrap_or(0);
            let finding = Finding::new(
                "too-long",
                format!("{words} words in one piece, at most {WORDS} are read"),
            );
            let end = first + prose.find('\n').unwrap_or(prose.len());
            self.pieces.find(
                finding
                    .at(first..end, "from here")
                    .help("ask, do or watch something in between"),
            );
        }
        if !prose.is_empty() {
            self.beats.push((self.steps.len(), Beat::Prose(prose.to_owned())));
        }
    }

    fn fence(&mut self, word: &Range<usize>, body: &Range<usize>) {
        match &self.text[word.clone()] {
            "ask" => self.ask(word, body),
            "do" => self.acts(word, body),
            "watch" => self.watch(word, body),
            "check" => self.check(word, body),
            "hint" => self.hint(word, body),
            other => {
                let finding = Finding::new("unknown-fence", format!("unknown fence `{}`", other.escape_debug()));
                let finding = finding.at(word.clone(), "no such fence");
                self.pieces.find(finding.help(known(other, FENCES)));
            }
        }
    }

    fn ask(&mut self, word: &Range<usize>, body: &Range<usize>) {
        let Some(raw) = self.decoded::<RawAsk>(body) else {
            return;
        };
        let (id, question) = (
            self.needed(raw.id, "id", word),
            self.needed(raw.question, "question", word),
        );
        if !ANSWERS.contains(&raw.options.len()) {
            let message = format!("a question has {} to {} options", ANSWERS.start(), ANSWERS.end());
            let finding = Finding::new("bad-value", message).at(word.clone(), format!("{} here", raw.options.len()));
            self.pieces.find(finding);
        }
        let (Some(id), Some(question)) = (id, question) else {
            return;
        };
        if self.asks.iter().any(|a| a.id == id) {
            let finding = Finding::new(
                "bad-value",
                format!("the question `{}` is there twice", id.escape_debug()),
            );
            self.pieces.find(finding.on(&id, "once more"));
        }
        self.beats.push((self.steps.len(), Beat::Ask(self.asks.len())));
        self.asks.push(Asked {
            id,
            question: question.value,
            options: raw.options,
            hints: Vec::new(),
            from: self.steps.len(),
            written: self.written.len(),
            place: word.clone(),
        });
    }

    fn hint(&mut self, word: &Range<usize>, body: &Range<usize>) {
        let Some(raw) = self.decoded::<RawHint>(body) else {
            return;
        };
        let Some(say) = self.needed(raw.say, "say", word) else {
            return;
        };
        match self.asks.last_mut() {
            Some(ask) => ask.hints.push(say.value),
            None => {
                let finding = Finding::new(
                    "no-question",
                    "a hint stands behind a question, and there is none before it",
                );
                self.pieces.find(finding.at(word.clone(), "this one"));
            }
        }
    }

    fn acts(&mut self, word: &Range<usize>, body: &Range<usize>) {
        let Some(raw) = self.decoded::<RawDo>(body) else {
            return;
        };
        if raw.steps.is_empty() {
            self.needed(None::<()>, "steps", word);
        }
        self.beats.push((self.steps.len(), Beat::Do));
        let steps = self.take(&raw.steps);
        let breaks = |s: &Step| matches!(s.action, Action::Fault { .. } | Action::Operate { .. });
        if steps.iter().any(breaks) && self.asks.is_empty() {
            let finding = Finding::new(
                "no-question",
                "this breaks or moves something, and nobody was asked what will happen",
            );
            self.pieces
                .find(finding.at(word.clone(), "this one").help("put an `ask` before it"));
        }
        self.steps.extend(steps);
    }

    fn watch(&mut self, word: &Range<usize>, body: &Range<usize>) {
        let Some(raw) = self.decoded::<RawWatch>(body) else {
            return;
        };
        if raw.see.is_empty() {
            self.needed(None::<()>, "see", word);
        }
        let begin = self.steps.len();
        let mut says = Vec::new();
        for At { value: see, span } in raw.see {
            let RawSee { step, say } = see;
            if let Some(step) = self.needed(step, "step", &span) {
                self.looks(&step);
                says.push(say);
            }
        }
        let meanwhile = raw.meanwhile;
        self.beats.push((begin, Beat::Watch { meanwhile, says }));
    }

    fn check(&mut self, word: &Range<usize>, body: &Range<usize>) {
        let Some(raw) = self.decoded::<RawCheck>(body) else {
            return;
        };
        if raw.steps.is_empty() && raw.forbid.is_empty() && raw.invariants.is_empty() && raw.limits.is_empty() {
            let finding = Finding::new("no-check", "the fence checks nothing").at(word.clone(), "this one");
            self.pieces
                .find(finding.help("add `steps`, `limits`, `invariants` or `forbid`"));
        }
        self.checks += 1;
        if !raw.steps.is_empty() {
            self.beats.push((self.steps.len(), Beat::Check));
        }
        raw.steps.iter().for_each(|s| self.looks(s));
        self.forbid.extend(raw.forbid);
        self.invariants.extend(raw.invariants);
        self.limits.extend(raw.limits);
        let (a, b) = (self.require, raw.require);
        self.require = RawRequire {
            acks: a.acks.max(b.acks),
            closed_generations: a.closed_generations.max(b.closed_generations),
            role_changes: a.role_changes.max(b.role_changes),
        };
    }

    fn take(&mut self, written: &[Written]) -> Vec<Step> {
        self.written.extend(written.iter().map(Written::toml));
        self.pieces.steps(written)
    }

    /// A step that only looks.
    fn looks(&mut self, written: &Written) {
        let steps = self.take(std::slice::from_ref(written));
        let only_looks = |s: &Step| matches!(s.action, Action::Until(..) | Action::Expect(..) | Action::Wait(_));
        if !steps.iter().all(only_looks) {
            let finding = Finding::new(
                "not-a-look",
                "here the lab is only looked at: `expect`, `until` or `wait`",
            );
            let finding = finding.at(written.span(), "this step does something");
            self.pieces.find(finding.help("do it in a fence `do`"));
        }
        self.steps.extend(steps);
    }

    /// Everything together; what is wrong with it is in the pieces.
    fn chapter(&mut self) -> Chapter {
        let forbid = self.pieces.forbidden(&self.forbid);
        let invariants = self.pieces.invariants(&self.invariants);
        if self.title.is_none() {
            let finding = Finding::new("no-title", "the chapter has no title").at(0..0, "here");
            self.pieces
                .find(finding.help("begin it with `+++`, `title = \"…\"`, `+++`"));
        }
        if self.checks == 0 {
            let finding = Finding::new(
                "no-check",
                "the chapter checks nothing: nobody could say that it went well",
            );
            self.pieces
                .find(finding.at(0..0, "in this file").help("add a fence `check`"));
        }
        self.pieces.names(measured::in_conditions());
        let limits = std::mem::take(&mut self.limits);
        let limits = limits.iter().filter_map(|l| self.pieces.condition(l)).collect();
        let asked = std::mem::take(&mut self.asks);
        // Those that are asked one after the other are answered by the same steps.
        let last = (self.steps.len(), self.written.len());
        let places: Vec<(usize, usize)> = asked.iter().map(|a| (a.from, a.written)).chain([last]).collect();
        let end = |a: &Asked| places.iter().copied().find(|p| p.1 > a.written).unwrap_or(last);
        let ends: Vec<(usize, usize)> = asked.iter().map(end).collect();
        let asks = asked
            .into_iter()
            .zip(ends)
            .map(|(ask, end)| self.asked(ask, end))
            .collect();
        let title = self.title.clone().unwrap_or_default();
        let require = Require {
            acks: self.require.acks,
            closed_generations: self.require.closed_generations,
            role_changes: self.require.role_changes,
            events: Vec::new(),
        };
        let scenario = Scenario {
            id: self.id.clone(),
            title: title.clone(),
            tags: Vec::new(),
            settings: Vec::new(),
            parameters: BTreeMap::new(),
            steps: std::mem::take(&mut self.steps),
            require,
            forbid,
            sometimes_events: Vec::new(),
            sometimes: Vec::new(),
            invariants,
            text: self.scenario_file(&title),
            parts: BTreeMap::new(),
        };
        Chapter {
            id: self.id.clone(),
            title,
            beats: std::mem::take(&mut self.beats),
            asks,
            limits,
            scenario,
        }
    }

    fn asked(&mut self, ask: Asked, (end, written): (usize, usize)) -> Ask {
        if ask.written == written {
            let finding = Finding::new("no-steps", "nothing is done behind this question that could answer it");
            self.pieces.find(finding.at(ask.place.clone(), "this one"));
        }
        let mut choices: Vec<Choice> = Vec::new();
        for At { value: raw, span } in &ask.options {
            if raw.when.is_none() {
                let finding = Finding::new("no-right-answer", "the option does not say when it is the right one");
                let help = "add `if = \"…\"`, a condition on the lab or on what was measured";
                self.pieces.find(finding.at(span.clone(), "this one").help(help));
            }
            let when = raw.when.as_ref().and_then(|when| self.condition(when, &choices));
            let text = self.needed(raw.text.clone(), "text", span);
            let why = self.needed(raw.why.clone(), "why", span);
            why.iter().for_each(|why| self.fillable(why));
            if let (Some(text), Some(when), Some(why)) = (text, when, why) {
                let (text, why) = (text.value, why.value);
                choices.push(Choice { text, when, why });
            }
        }
        Ask {
            id: ask.id.value,
            question: ask.question,
            choices,
            hints: ask.hints,
            steps: ask.from..end,
        }
    }

    /// A condition that no other answer has.
    fn condition(&mut self, when: &At<String>, others: &[Choice]) -> Option<Statement> {
        let statement = self.pieces.condition(when)?;
        if others.iter().any(|c| c.when == statement) {
            let finding = Finding::new("two-right-answers", "another option is right under the same condition");
            self.pieces.find(finding.on(when, "this one"));
        }
        Some(statement)
    }

    /// Finds names in braces that nothing is measured by.
    fn fillable(&mut self, text: &At<String>) {
        for name in measured::named(text).filter(|n| measured::NAMES.iter().all(|(known, _)| known != n)) {
            let finding = Finding::new("bad-value", format!("nothing is measured as `{}`", name.escape_debug()));
            let help = known(name, measured::NAMES.iter().map(|(name, _)| *name));
            self.pieces.find(finding.on(text, "in here").help(help));
        }
    }

    /// The chapter's scenario as a file of its own: what a run keeps, and runs again.
    fn scenario_file(&self, title: &str) -> String {
        let quoted = |s: &str| toml::Value::String(s.to_owned()).to_string();
        let steps: String = self.written.iter().map(|s| format!("  {s},\n")).collect();
        let forbid: Vec<String> = self.forbid.iter().map(WrittenValue::toml).collect();
        let invariants: Vec<String> = self.invariants.iter().map(|i| quoted(i)).collect();
        let RawRequire {
            acks,
            closed_generations,
            role_changes,
        } = self.require;
        format!(
            "id = {}\ntitle = {}\nsteps = [\n{steps}]\n\
             require = {{ acks = {acks}, closed-generations = {closed_generations}, role-changes = {role_changes} }}\n\
             forbid = [{}]\ninvariants = [{}]\n",
            quoted(&self.id),
            quoted(title),
            forbid.join(", "),
            invariants.join(", ")
        )
    }
}

/// Whether a file's name can be an id of a scenario.
fn is_sound(id: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    (1..=32).contains(&id.len()) && id.bytes().all(plain) && !id.starts_with('-')
}
