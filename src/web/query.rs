//! Events as a query: the filter of the address, and the lines that meet it.

use crate::event::{Event, Severity, Source};
use crate::picture::text::{begin, event_text, visible};
use crate::view::{Line, is_news};
use serde_json::{Value, json};

/// Characters of one event's text that a page shows at most.
const TEXT: usize = 2_000;
/// Lines in one answer, at most and where the query does not say.
const MOST: usize = 1_000;
const USUAL: usize = 200;

/// The words of an address's query, decoded.
#[derive(Debug, Default)]
pub(super) struct Words(Vec<(String, String)>);

impl Words {
    /// Of what stands behind `?`. What is not encoded as it should be stands for itself.
    pub fn of(query: Option<&str>) -> Self {
        let pairs = query.unwrap_or_default().split('&').filter(|p| !p.is_empty());
        Self(
            pairs
                .map(|p| p.split_once('=').unwrap_or((p, "")))
                .map(|(k, v)| (decoded(k), decoded(v)))
                .collect(),
        )
    }

    /// The value of a word that is there and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(k, v)| k == name && !v.is_empty());
        found.map(|(_, v)| v.as_str())
    }

    /// The same as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

fn decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let (mut out, mut at) = (Vec::with_capacity(bytes.len()), 0);
    while at < bytes.len() {
        let hex = |i: usize| bytes.get(i).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[at], hex(at + 1), hex(at + 2)) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                at += 3;
                continue;
            }
            (b'+', ..) => out.push(b' '),
            (b, ..) => out.push(b),
        }
        at += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Which events a person wants to see.
#[derive(Debug, Default)]
pub(super) struct Filter {
    nodes: Vec<String>,
    sources: Vec<String>,
    severity: Option<Severity>,
    ids: Vec<(u32, u32)>,
    kinds: Vec<String>,
    text: Option<String>,
    all: bool,
    before: Option<u64>,
    n: usize,
}

impl Filter {
    /// `node=a,b src=node severity=warning id=1135,1177-1180 kind=cluster.* text=… all=1 before=SEQ n=200`.
    ///
    /// # Errors
    /// The word that means nothing: a filter that is not understood must not look like an empty journal.
    pub fn of(words: &Words) -> Result<Self, String> {
        let list = |name: &str| -> Vec<String> {
            let all = words.get(name).unwrap_or_default().split(',');
            all.map(|w| w.trim().to_owned()).filter(|w| !w.is_empty()).collect()
        };
        let severity = match words.get("severity") {
            None => None,
            Some(word) => Some(serde_json::from_value(json!(word)).map_err(|_| format!("severity `{word}`"))?),
        };
        let range = |word: &String| {
            let (from, to) = word.split_once('-').unwrap_or((word, word));
            let number = |t: &str| t.trim().parse::<u32>().map_err(|_| format!("id `{word}`"));
            Ok((number(from)?, number(to)?))
        };
        let sources = list("src");
        if let Some(odd) = sources
            .iter()
            .find(|s| serde_json::from_value::<Source>(json!(s)).is_err())
        {
            return Err(format!("src `{odd}`"));
        }
        Ok(Self {
            nodes: list("node"),
            sources,
            severity,
            ids: list("id").iter().map(range).collect::<Result<_, String>>()?,
            kinds: list("kind"),
            text: words.get("text").map(str::to_lowercase),
            all: words.get("all").is_some(),
            before: words.number("before"),
            n: words.number("n").map_or(USUAL, |n| n.min(MOST as u64) as usize),
        })
    }

    fn takes(&self, e: &Event) -> bool {
        let source = serde_json::to_value(e.src).expect("a source is a word");
        let kind = |pattern: &String| match pattern.strip_suffix('*') {
            Some(start) => e.kind.starts_with(start),
            None => e.kind == *pattern,
        };
        let says = |text: &String| {
            let all = format!("{} {} {}", e.kind, e.node.as_deref().unwrap_or_default(), event_text(e));
            all.to_lowercase().contains(text)
        };
        (self.nodes.is_empty() || e.node.as_ref().is_some_and(|n| self.nodes.contains(n)))
            && (self.sources.is_empty() || self.sources.iter().any(|s| source == s.as_str()))
            && self.severity.is_none_or(|least| e.severity >= least)
            && (self.ids.is_empty()
                || e.id
                    .is_some_and(|id| self.ids.iter().any(|(a, b)| (*a..=*b).contains(&id))))
            && (self.kinds.is_empty() || self.kinds.iter().any(kind))
            && (self.all || !self.kinds.is_empty() || is_news(e))
            && self.text.as_ref().is_none_or(says)
    }

    /// The newest lines that meet it, newest first, and whether there are more. A gap meets every filter.
    pub fn lines<'a>(&self, all: impl DoubleEndedIterator<Item = &'a Line>) -> Value {
        let wanted = |line: &&Line| match line {
            Line::Event(e) => self.before.is_none_or(|b| e.seq < b) && self.takes(e),
            Line::Gap(from, _) => self.before.is_none_or(|b| *from < b),
        };
        let mut found = all.rev().filter(wanted);
        let lines: Vec<Value> = found.by_ref().take(self.n).map(row).collect();
        json!({"lines": lines, "more": found.next().is_some()})
    }
}

fn row(line: &Line) -> Value {
    match line {
        Line::Gap(from, to) => json!({"gap": [from, to]}),
        Line::Event(e) => json!({
            "seq": e.seq, "t_us": e.t_us, "skew_us": e.skew_us, "src": e.src, "node": e.node.as_deref().map(visible),
            "kind": visible(&e.kind), "id": e.id, "severity": e.severity, "text": visible(&begin(&event_text(e), TEXT)),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(seq: u64, node: &str, kind: &str, id: Option<u32>, severity: &str, text: &str) -> Line {
        let value = json!({
            "seq": seq, "t_us": seq * 1000, "src": "node", "node": node, "kind": kind, "id": id,
            "severity": severity, "data": {"text": text},
        });
        Line::Event(Box::new(serde_json::from_value(value).unwrap()))
    }

    fn journal() -> Vec<Line> {
        vec![
            event(0, "node1", "cluster.member-down", Some(1135), "error", "node2 is gone"),
            event(1, "node1", "store.detail", None, "debug", "x"),
            Line::Gap(2, 4),
            event(
                5,
                "node2",
                "cluster.quorum-lost",
                Some(1177),
                "error",
                "one vote of three",
            ),
            event(6, "hub", "hub.redelivery", None, "info", "\u{1b}[2J<script>"),
        ]
    }

    /// The numbers of the lines that meet a query; a gap is its first number.
    fn found(query: &str) -> Vec<u64> {
        let answer = Filter::of(&Words::of(Some(query))).unwrap().lines(journal().iter());
        let number = |l: &Value| l["seq"].as_u64().or_else(|| l["gap"][0].as_u64()).unwrap();
        answer["lines"].as_array().unwrap().iter().map(number).collect()
    }

    #[test]
    fn each_word_narrows_it_and_a_gap_is_always_told() {
        assert_eq!(found(""), [6, 5, 2, 0]);
        assert_eq!(found("all=1"), [6, 5, 2, 1, 0]);
        assert_eq!(found("node=node1,hub"), [6, 2, 0]);
        assert_eq!(found("severity=error"), [5, 2, 0]);
        assert_eq!(found("id=1135,1170-1180"), [5, 2, 0]);
        assert_eq!(found("kind=cluster.*&node=node2"), [5, 2]);
        assert_eq!(found("kind=store.detail"), [2, 1], "one that is named is wanted");
        assert_eq!(found("text=One+VOTE%20of"), [5, 2]);
        assert_eq!(found("src=tool"), [2]);
        assert_eq!(found("before=5&n=1"), [2]);
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for wrong in ["severity=loud", "id=1-x", "id=,a", "src=moon"] {
            assert!(Filter::of(&Words::of(Some(wrong))).is_err(), "{wrong}");
        }
        for odd in ["%", "%zz", "a=%f", "=&=&&", "n=-1", "before=x", "text=%ff%00"] {
            assert!(Filter::of(&Words::of(Some(odd))).is_ok(), "{odd}");
        }
    }

    #[test]
    fn what_others_wrote_is_text() {
        let answer = Filter::default();
        let answer = Filter { n: 1, ..answer }.lines(journal().iter());
        assert_eq!(answer["lines"][0]["text"], r"\u{1b}[2J<script>");
        assert_eq!(answer["more"], true);
    }
}
