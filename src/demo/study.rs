//! A demo for one person who reads, predicts and looks, in lines.

use super::judge::{Answered, ChapterReport};
use super::{Ask, Audience, Beat, Chapter, measured};
use crate::diagnostic::is_unprintable;
use crate::error::{Error, IoContext, Result};
use crate::scenario::Step;
use crate::verify::{Check, Verdict};
use std::io::Write;

/// Where a person's lines come from.
pub trait Input: Send {
    /// The next line; none where there is no more.
    ///
    /// # Errors
    /// [`Error::Interrupted`] where the person wants to end.
    fn line(&mut self) -> Result<Option<String>>;
}

/// One person at a terminal.
#[derive(Debug)]
pub struct Study<I, W> {
    input: I,
    out: W,
    is_first: bool,
}

impl<I: Input, W: Write + Send> Study<I, W> {
    /// Reads from `input` and writes to `out`.
    pub fn new(input: I, out: W) -> Self {
        Self {
            input,
            out,
            is_first: true,
        }
    }

    /// A line; what others wrote must not change what the terminal shows beside it.
    fn say(&mut self, text: &str) -> Result<()> {
        let mut shown = String::with_capacity(text.len());
        for c in text.chars().filter(|c| *c != '\r') {
            match is_unprintable(c) {
                true => shown.extend(c.escape_unicode()),
                false => shown.push(c),
            }
        }
        writeln!(self.out, "{shown}").tried("write to the terminal", "")
    }

    /// Asks for a line. One that ends the input, or is `q`, ends the demo.
    fn line(&mut self, prompt: &str) -> Result<String> {
        let shown = write!(self.out, "{prompt} ").and_then(|()| self.out.flush());
        shown.tried("write to the terminal", "")?;
        match self.input.line()? {
            Some(line) if line.trim() != "q" => Ok(line.trim().to_owned()),
            _ => Err(Error::Interrupted),
        }
    }

    fn answered(&mut self, q: &Answered) -> Result<()> {
        self.say(&format!("\n{}", q.question))?;
        let Some(right) = &q.right else {
            let text = match q.verdict {
                Verdict::Unknown => "  the lab cannot say:",
                _ => "  not exactly one answer is right, so the question is wrong:",
            };
            return self.say(&format!("{text} {}", q.seen.join("; ")));
        };
        match &q.predicted {
            Some(predicted) if predicted == right => self.say("  as you predicted:")?,
            Some(predicted) => self.say(&format!("  you predicted: {predicted}\n  but the lab says:"))?,
            None => self.say("  the lab says:")?,
        }
        self.say(&format!("  {right}"))?;
        self.say(&format!("  {}", q.why.as_deref().unwrap_or_default()))
    }

    fn told(&mut self, report: &ChapterReport, rest: &[&Beat]) -> Result<()> {
        for q in &report.questions {
            self.answered(q)?;
        }
        if !report.measured.is_empty() {
            self.say("\nMeasured:")?;
        }
        for (name, what) in measured::NAMES {
            if let Some(value) = report.measured.get(name) {
                self.say(&format!("  {:>9}  {what}", measured::shown(name, *value)))?;
            }
        }
        for limit in &report.limits {
            self.say(&format!("  {} {} ({})", mark(limit.verdict), limit.text, limit.detail))?;
        }
        for beat in rest {
            self.beat(beat)?;
        }
        let why = report.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        self.say(&format!("\n{} {}{why}", mark(report.verdict), report.title))
    }
}

/// A verdict's sign and word.
fn mark(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Pass => "✓ pass",
        Verdict::Fail => "✗ fail",
        Verdict::Unknown => "? unknown",
        Verdict::Skipped => "– skipped",
    }
}

impl<I: Input, W: Write + Send> Audience for Study<I, W> {
    fn chapter(&mut self, number: usize, of: usize, chapter: &Chapter) -> Result<()> {
        if !std::mem::take(&mut self.is_first) {
            self.line("\nEnter: the next chapter, q: leave >")?;
        }
        let title = format!("{number} of {of}: {}", chapter.title);
        self.say(&format!("\n{title}\n{}", "═".repeat(title.chars().count())))
    }

    fn beat(&mut self, beat: &Beat) -> Result<()> {
        match beat {
            Beat::Prose(text) => self.say(&format!("\n{text}")),
            Beat::Do => self.line("\nEnter: do it, q: leave >").map(drop),
            Beat::Watch { meanwhile, .. } => {
                let text = meanwhile.as_deref().unwrap_or("Watching the lab.");
                self.say(&format!("\n{text}"))
            }
            Beat::Check => self.say("\nChecking:"),
            Beat::Ask(_) => Ok(()),
        }
    }

    fn ask(&mut self, ask: &Ask) -> Result<Option<usize>> {
        self.say(&format!("\n? {}", ask.question))?;
        for (i, choice) in ask.choices.iter().enumerate() {
            self.say(&format!("  {}  {}", i + 1, choice.text))?;
        }
        let last = ask.choices.len();
        let hint = if ask.hints.is_empty() { "" } else { ", ?: a hint" };
        let prompt = format!("1 to {last}: your prediction, s: skip{hint} >");
        let mut hints = ask.hints.iter();
        loop {
            let line = self.line(&prompt)?;
            match line.as_str() {
                "s" => return Ok(None),
                "?" => match hints.next() {
                    Some(hint) => self.say(&format!("  {hint}"))?,
                    None => self.say("  There is no further hint.")?,
                },
                other => match other.parse::<usize>() {
                    Ok(n) if (1..=last).contains(&n) => return Ok(Some(n - 1)),
                    _ => self.say(&format!("  Type a number from 1 to {last}."))?,
                },
            }
        }
    }

    fn begins(&mut self, step: &Step) -> Result<()> {
        self.say(&format!("  · {}", step.text))
    }

    fn ended(&mut self, check: &Check, say: Option<&str>) -> Result<()> {
        self.say(&format!("    {}: {}", mark(check.verdict), check.detail))?;
        match say.filter(|_| check.verdict == Verdict::Pass) {
            Some(say) => self.say(&format!("    → {say}")),
            None => Ok(()),
        }
    }

    fn over(&mut self, report: &ChapterReport, rest: &[&Beat]) {
        // A terminal that is gone shows at the next question.
        let _ = self.told(report, rest);
    }
}
