//! What is wrong with a file, and how a person gets to see it: file, line, caret, remedy.

use super::At;
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity as Level, SourceCode,
};
use serde::{Serialize, Serializer, ser::SerializeStruct};
use std::ops::Range;

/// Whether a finding stops the lab.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does not.
    Warning,
    /// It does.
    Error,
}

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// Id of the rule it breaks: a rule of the lab file or of scenario files.
    pub rule: &'static str,
    /// Whether it stops the lab.
    pub severity: Severity,
    /// What is wrong, in one line.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
    /// Spans in the file, in bytes, each with its label; the first is the culprit.
    pub labels: Vec<(Range<usize>, String)>,
}

impl Finding {
    /// An error of `rule`.
    pub fn new(rule: &'static str, message: impl Into<String>) -> Self {
        Self {
            rule,
            severity: Severity::Error,
            message: message.into(),
            help: None,
            labels: Vec::new(),
        }
    }
    /// With a place and what is to be said of it.
    #[must_use]
    pub fn at(mut self, span: Range<usize>, label: impl Into<String>) -> Self {
        self.labels.push((span, label.into()));
        self
    }
    /// At a value.
    #[must_use]
    pub fn on<T>(self, value: &At<T>, label: impl Into<String>) -> Self {
        self.at(value.span.clone(), label)
    }
    /// With advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
    /// As `--json` shows it, with line and column in `text`; without them where it has no place.
    fn placed(&self, text: &str) -> serde_json::Value {
        let mut shown = serde_json::to_value(self).expect("a finding is plain data");
        if let Some(before) = self.labels.first().and_then(|(span, _)| text.get(..span.start)) {
            let line = before.rsplit('\n').next().unwrap_or_default();
            shown["line"] = (before.matches('\n').count() + 1).into();
            shown["column"] = (line.chars().count() + 1).into();
        }
        shown
    }
    /// Where it begins in the file.
    pub fn start(&self) -> usize {
        self.labels.first().map_or(0, |(span, _)| span.start)
    }
}

/// A finding as `--json` shows it; byte offsets become those of the first label.
impl Serialize for Finding {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let mut out = s.serialize_struct("Finding", 5)?;
        out.serialize_field("rule", self.rule)?;
        out.serialize_field("severity", &self.severity)?;
        out.serialize_field("message", &self.message)?;
        out.serialize_field("help", &self.help)?;
        out.serialize_field("bytes", &self.labels.first().map(|(r, _)| [r.start, r.end]))?;
        out.end()
    }
}

/// An invalid lab or scenario file: every finding, with file, line and caret when rendered.
#[derive(Debug)]
pub struct Invalid {
    /// The whole report, rendered without colours.
    pub report: String,
    /// What was found, in the file's order.
    pub findings: Vec<Finding>,
    file_name: String,
    text: String,
    /// Those of further files.
    others: Vec<Invalid>,
}

impl Invalid {
    /// The findings of `text`, which came from `file_name`.
    pub fn new(file_name: &str, text: &str, findings: Vec<Finding>) -> Self {
        Self {
            report: render(file_name, text, &findings, false),
            findings,
            file_name: file_name.to_owned(),
            text: text.to_owned(),
            others: Vec::new(),
        }
    }
    /// Those of several files, in their order; none where all are well.
    pub fn together(files: impl IntoIterator<Item = Invalid>) -> Option<Self> {
        let mut files = files.into_iter();
        let mut first = files.next()?;
        first.others.extend(files);
        Some(first)
    }
    /// Each file as `--json` shows it: `{"file", "findings": [{"rule", "severity", "message", "help", "bytes", "line", "column"}]}`.
    /// Lines and columns begin at 1, columns count characters.
    pub fn files(&self) -> impl Iterator<Item = serde_json::Value> + '_ {
        std::iter::once(self).chain(&self.others).map(|file| {
            let findings: Vec<_> = file.findings.iter().map(|f| f.placed(&file.text)).collect();
            serde_json::json!({"file": file.file_name, "findings": findings})
        })
    }
    /// The report for a terminal.
    pub fn coloured(&self) -> String {
        let own = render(&self.file_name, &self.text, &self.findings, true);
        let others = self.others.iter().map(Self::coloured);
        std::iter::once(own).chain(others).collect::<Vec<_>>().join("\n\n")
    }
}

impl std::fmt::Display for Invalid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.report)?;
        self.others.iter().try_for_each(|other| write!(f, "\n\n{other}"))
    }
}

/// Findings as a person reads them, one below the other.
pub fn render(file_name: &str, text: &str, findings: &[Finding], colours: bool) -> String {
    let text = printable(text);
    let source = NamedSource::new(printable(file_name), text.clone());
    let theme = if colours {
        GraphicalTheme::unicode()
    } else {
        GraphicalTheme::unicode_nocolor()
    };
    let handler = GraphicalReportHandler::new_themed(theme)
        .with_links(false)
        .without_syntax_highlighting()
        .with_width(110);
    let mut out = String::new();
    for finding in findings {
        let shown = Shown {
            finding,
            source: &source,
            text: &text,
        };
        // Writing into a string does not fail; a report without its frame still says what is wrong.
        if handler.render_report(&mut out, &shown).is_err() {
            out.push_str(&finding.message);
        }
        out.push('\n');
    }
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    lines.join("\n").trim_matches('\n').to_owned()
}

/// Whether it changes what a terminal shows of its neighbours: control and direction characters, but for the end of a line and a tab.
pub(crate) fn is_unprintable(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Control and direction characters of a hostile file must not reach a terminal. Keeps every byte offset.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if is_unprintable(c) {
            out.extend(std::iter::repeat_n(if c == '\r' { ' ' } else { '?' }, c.len_utf8()));
        } else {
            out.push(c);
        }
    }
    out
}

struct Shown<'a> {
    finding: &'a Finding,
    source: &'a NamedSource<String>,
    text: &'a str,
}

impl Shown<'_> {
    /// The span cut to the text and to whole characters, and to its first line: a caret, not a wall.
    fn visible(&self, span: &Range<usize>) -> Range<usize> {
        let floor = |mut i: usize| {
            i = i.min(self.text.len());
            while !self.text.is_char_boundary(i) {
                i -= 1;
            }
            i
        };
        let start = floor(span.start);
        let end = floor(span.end).max(start);
        let line = self.text[start..end].find('\n').map_or(end, |n| start + n);
        start..line
    }
}

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&printable(&self.finding.message))
    }
}
impl std::fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.finding.fmt(f)
    }
}
impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn code<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        Some(Box::new(self.finding.rule))
    }
    fn severity(&self) -> Option<Level> {
        Some(match self.finding.severity {
            Severity::Error => Level::Error,
            Severity::Warning => Level::Warning,
        })
    }
    fn help<'a>(&'a self) -> Option<Box<dyn std::fmt::Display + 'a>> {
        let help = printable(self.finding.help.as_ref()?);
        Some(Box::new(help))
    }
    fn source_code(&self) -> Option<&dyn SourceCode> {
        (!self.finding.labels.is_empty()).then_some(self.source as &dyn SourceCode)
    }
    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let place = |(i, (span, label)): (usize, &(Range<usize>, String))| {
            let span = self.visible(span);
            let label = (!label.is_empty()).then(|| printable(label));
            match i {
                0 => LabeledSpan::new_primary_with_span(label, span),
                _ => LabeledSpan::new_with_span(label, span),
            }
        };
        Some(Box::new(self.finding.labels.iter().enumerate().map(place)))
    }
}

/// Names that are listed; a longer list helps nobody.
const LISTED: usize = 60;

/// `did you mean …` where one of the names is near, and all of them in any case.
pub fn known<'a>(written: &str, names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() {
        return "there is none".to_owned();
    }
    let near = names
        .iter()
        .map(|n| (strsim::jaro_winkler(written, n), *n))
        .filter(|(score, _)| *score > 0.75)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    let more = names.len().saturating_sub(LISTED);
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let all = format!("known: {}{rest}", names[..names.len() - more].join(", "));
    match near {
        Some((_, name)) => format!("did you mean `{name}`? {all}"),
        None => all,
    }
}
