//! A chapter's Markdown in parts: its head, prose, and fences, each with its place.

use crate::diagnostic::Finding;
use std::ops::Range;

/// What stands around the head of a chapter.
const HEAD: &str = "+++";

/// A part of a chapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Part {
    /// TOML between two lines of `+++`, at the beginning.
    Head(Range<usize>),
    /// Markdown; fences of other languages are in it.
    Prose(Range<usize>),
    /// A fence of the lab's: its word and what is between its lines.
    Fence {
        /// Where its word stands.
        word: Range<usize>,
        /// Where its TOML stands.
        body: Range<usize>,
    },
}

/// The languages whose fences are prose.
const LANGUAGES: [&str; 5] = ["", "text", "console", "sh", "toml"];

/// The parts of a chapter, in their order; what is wrong with its fences goes into `findings`.
pub(super) fn parts(text: &str, findings: &mut Vec<Finding>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut lines = lines(text).peekable();
    let mut prose = 0;
    if lines.peek().is_some_and(|l| text[l.clone()].trim_end() == HEAD) {
        let from = lines.next().map_or(0, |l| l.end);
        match lines.find(|l| text[l.clone()].trim_end() == HEAD) {
            Some(end) => {
                parts.push(Part::Head(from..end.start));
                prose = end.end;
            }
            None => {
                let finding =
                    Finding::new("open-head", "the head of the chapter does not end").at(0..HEAD.len(), "here");
                findings.push(finding.help("close it with a line `+++`"));
                return parts;
            }
        }
    }
    while let Some(line) = lines.next() {
        let marks = text[line.clone()].bytes().take_while(|b| *b == b'`').count();
        if marks < 3 {
            continue;
        }
        let info = text[line.clone()][marks..].trim();
        let at =
            line.start + marks + (text[line.clone()][marks..].len() - text[line.clone()][marks..].trim_start().len());
        let fence = "`".repeat(marks);
        // A line of TOML never begins so: where it says more, the fence before it was not closed.
        let end = lines.find(|l| text[l.clone()].starts_with(&fence));
        let closes = |l: &Range<usize>| text[l.clone()].trim_end().bytes().all(|b| b == b'`');
        let Some(end) = end.filter(closes) else {
            let finding = Finding::new("open-fence", "the fence does not end");
            findings.push(
                finding
                    .at(line.start..line.start + marks, "here")
                    .help("close it with a line of as many backquotes"),
            );
            break;
        };
        if LANGUAGES.contains(&info) {
            continue;
        }
        parts.push(Part::Prose(prose..line.start));
        parts.push(Part::Fence {
            word: at..at + info.len(),
            body: line.end..end.start,
        });
        prose = end.end;
    }
    parts.push(Part::Prose(prose..text.len()));
    parts
}

/// The bytes of each line, with its end.
fn lines(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut from = 0;
    text.split_inclusive('\n').map(move |line| {
        let range = from..from + line.len();
        from = range.end;
        range
    })
}

/// The text with everything blank but this part of it: what is read there has its place in the whole.
pub(super) fn alone(text: &str, part: &Range<usize>) -> String {
    let blank = |of: &str| -> String { of.bytes().map(|b| if b == b'\n' { '\n' } else { ' ' }).collect() };
    blank(&text[..part.start]) + &text[part.clone()]
}
