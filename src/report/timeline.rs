//! The timeline as geometry: what the template draws. One clock for clients, nodes and faults.

use super::roles::role_intervals;
use crate::spec::Lab;
use crate::verify::{History, Observation, OpKind, Outcome, ScenarioReport, takeovers};
use serde::Serialize;

const WIDTH: f64 = 1160.0;
const LEFT: f64 = 108.0;
const RIGHT: f64 = 16.0;
/// Height of a bar of a node, of a fault, and of a band of operations.
const BAR: f64 = 20.0;
const BAND: f64 = 54.0;
const GAP: f64 = 8.0;
/// Slowest answer that the scale of a band shows, and the fastest, in microseconds.
const SLOW: f64 = 10e6;
const FAST: f64 = 1e3;

#[derive(Debug, Default, Serialize)]
pub(super) struct Timeline {
    pub width: f64,
    pub height: f64,
    pub rects: Vec<Rect>,
    pub lines: Vec<Line>,
    pub paths: Vec<SvgPath>,
    pub texts: Vec<Text>,
}

#[derive(Debug, Serialize)]
pub(super) struct Rect {
    x: f64,
    y: f64,
    w: f64,
    h: f64,
    class: String,
    /// What a person reads who points at it.
    tip: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Line {
    x1: f64,
    y1: f64,
    x2: f64,
    y2: f64,
    class: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct SvgPath {
    d: String,
    class: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Text {
    x: f64,
    y: f64,
    class: &'static str,
    text: String,
}

/// Places on the common clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pub from_us: u64,
    pub to_us: u64,
}

impl Scale {
    /// From the first to the last thing that happened; none where nothing did.
    pub fn of(history: &History) -> Option<Self> {
        let lines = history.ops.iter().map(|l| match l {
            crate::verify::OpLine::Invoke { t_us, .. } | crate::verify::OpLine::Complete { t_us, .. } => *t_us,
        });
        let looks = history.observations.iter().map(|o| o.t_us);
        let faults = history
            .faults
            .iter()
            .flat_map(|f| [Some(f.begin_us), f.end_us])
            .flatten();
        let all: Vec<u64> = lines.chain(looks).chain(faults).collect();
        let (from, to) = (*all.iter().min()?, *all.iter().max()?);
        Some(Self {
            from_us: from,
            to_us: to.max(from + 1_000_000),
        })
    }

    fn x(self, t_us: u64) -> f64 {
        let t = t_us.clamp(self.from_us, self.to_us) - self.from_us;
        let part = t as f64 / (self.to_us - self.from_us) as f64;
        round(LEFT + part * (WIDTH - LEFT - RIGHT))
    }

    /// Seconds since the scenario began.
    pub fn seconds(self, t_us: u64) -> f64 {
        (t_us as f64 - self.from_us as f64) / 1e6
    }
}

fn round(v: f64) -> f64 {
    (v * 10.0).round() / 10.0
}

/// The picture of one scenario.
pub(super) fn draw(lab: &Lab, report: &ScenarioReport, history: &History) -> Option<Timeline> {
    let scale = Scale::of(history)?;
    let mut t = Timeline {
        width: WIDTH,
        ..Timeline::default()
    };
    let labels = marks(scale, history);
    let rows = labels.iter().map(|(_, _, row)| row + 1).max().unwrap_or(0);
    let marks_y = 2.0 + MARK * rows as f64;
    let mut y = marks_y + 8.0;
    y = faults(&mut t, scale, history, y);
    y = nodes(&mut t, scale, lab, history, y);
    let bands_from = y;
    y = operations(&mut t, scale, history, y);
    if y > bands_from {
        outage(&mut t, scale, history, report, bands_from, y - GAP);
    }
    y = queues(&mut t, scale, history, y);
    draw_marks(&mut t, labels, marks_y, y);
    axis(&mut t, scale, y);
    t.height = y + 24.0;
    Some(t)
}

fn label(t: &mut Timeline, y: f64, height: f64, text: &str) {
    t.texts.push(Text {
        x: LEFT - 10.0,
        y: y + height / 2.0 + 4.0,
        class: "row",
        text: text.to_owned(),
    });
}

fn faults(t: &mut Timeline, scale: Scale, history: &History, mut y: f64) -> f64 {
    for f in &history.faults {
        let target = f.target.get("node").and_then(|n| n.as_str()).unwrap_or("network");
        let (from, to) = (scale.x(f.begin_us), scale.x(f.end_us.unwrap_or(scale.to_us)));
        label(t, y, BAR, "fault");
        let proven = if f.effective == Some(true) {
            "proven"
        } else {
            "not proven"
        };
        t.rects.push(Rect {
            x: from,
            y,
            w: (to - from).max(3.0),
            h: BAR,
            class: format!("fault {}", if f.effective == Some(true) { "" } else { "unproven" }),
            tip: format!("{} of {target}, {proven}", f.kind),
        });
        let text = format!("{} {target}", f.kind);
        // Where the bar is too short for its text, it stands behind it.
        let inside = to - from > 7.0 * text.len() as f64 + 12.0;
        t.texts.push(Text {
            x: if inside { from + 8.0 } else { to.max(from + 3.0) + 6.0 },
            y: y + 14.0,
            class: if inside { "onbar" } else { "beside" },
            text,
        });
        y += BAR + GAP;
    }
    y
}

fn nodes(t: &mut Timeline, scale: Scale, lab: &Lab, history: &History, mut y: f64) -> f64 {
    for node in &lab.nodes {
        let bars = role_intervals(history, &node.name, scale.from_us, scale.to_us);
        if bars.is_empty() {
            continue;
        }
        label(t, y, BAR, &node.name);
        let is_member = node.role != Some(crate::spec::NodeRole::Hub);
        for bar in bars {
            let (from, to) = (scale.x(bar.from_us), scale.x(bar.to_us));
            let word = match bar.role.word() {
                "passive" if !is_member => "runs",
                word => word,
            };
            t.rects.push(Rect {
                x: from,
                y,
                w: (to - from).max(1.0),
                h: BAR,
                class: format!("role {}", bar.role.word()),
                tip: format!(
                    "{}: {word} from {:.2} s to {:.2} s",
                    node.name,
                    scale.seconds(bar.from_us),
                    scale.seconds(bar.to_us)
                ),
            });
            if to - from > 7.5 * word.len() as f64 + 12.0 {
                t.texts.push(Text {
                    x: from + 8.0,
                    y: y + 14.0,
                    class: if word == "active" { "onbar" } else { "onpale" },
                    text: word.to_owned(),
                });
            }
        }
        y += BAR + GAP;
    }
    y + 4.0
}

fn kind_word(kind: OpKind) -> &'static str {
    match kind {
        OpKind::Submit => "submit",
        OpKind::Deliver => "deliver",
        OpKind::Read => "read",
        OpKind::Delete => "delete",
    }
}

/// One band for each kind of operation: when it began, and upwards how long it took (1 ms to 10 s, logarithmic).
fn operations(t: &mut Timeline, scale: Scale, history: &History, mut y: f64) -> f64 {
    let Ok(ops) = history.operations() else { return y };
    for kind in [OpKind::Submit, OpKind::Deliver, OpKind::Read, OpKind::Delete] {
        let of_kind: Vec<_> = ops.iter().filter(|o| o.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        label(t, y, BAND, kind_word(kind));
        t.rects.push(Rect {
            x: LEFT,
            y,
            w: WIDTH - LEFT - RIGHT,
            h: BAND,
            class: "band".to_owned(),
            tip: String::new(),
        });
        for (tenth, text) in [(0.25, "10 ms"), (0.5, "100 ms"), (0.75, "1 s")] {
            let at = round(y + BAND * (1.0 - tenth));
            t.lines.push(Line {
                x1: LEFT,
                y1: at,
                x2: WIDTH - RIGHT,
                y2: at,
                class: "grid",
            });
            t.texts.push(Text {
                x: WIDTH - RIGHT - 3.0,
                y: at - 2.0,
                class: "scale",
                text: text.to_owned(),
            });
        }
        for (outcome, word) in [
            (Outcome::Ok, "ok"),
            (Outcome::Unknown, "unknown"),
            (Outcome::Fail, "fail"),
        ] {
            let mut d = String::new();
            for op in of_kind.iter().filter(|o| o.outcome == outcome) {
                let took = op.end_us.unwrap_or(scale.to_us).saturating_sub(op.begin_us) as f64;
                let part = (took.clamp(FAST, SLOW) / FAST).log10() / (SLOW / FAST).log10();
                let at = round(y + 4.0 + (BAND - 8.0) * (1.0 - part));
                let x = scale.x(op.begin_us);
                d.push_str(&match outcome {
                    Outcome::Ok => format!("M{x} {at}h0"),
                    Outcome::Fail => format!("M{} {}l5 5m0-5l-5 5", round(x - 2.5), round(at - 2.5)),
                    Outcome::Unknown => format!("M{x} {}l4 4-4 4-4-4z", round(at - 4.0)),
                });
            }
            if !d.is_empty() {
                t.paths.push(SvgPath {
                    d,
                    class: format!("op {word}"),
                });
            }
        }
        y += BAND + GAP;
    }
    y
}

/// Shades the longest time without an answer of the store.
fn outage(t: &mut Timeline, scale: Scale, history: &History, report: &ScenarioReport, from_y: f64, to_y: f64) {
    let (Some(ms), Ok(ops)) = (report.timings.outage_ms, history.operations()) else {
        return;
    };
    let mut answers: Vec<u64> = ops
        .iter()
        .filter(|o| o.kind != OpKind::Submit && o.acked())
        .filter_map(|o| o.end_us)
        .collect();
    answers.sort_unstable();
    let last = ops.iter().filter_map(|o| o.end_us).max().unwrap_or(scale.to_us);
    answers.push(last);
    // The gap whose end is right: its begin is when a client first waited in it.
    let Some(end) = answers.windows(2).max_by_key(|w| w[1] - w[0]).map(|w| w[1]) else {
        return;
    };
    // Less than a second is nothing that a person sees.
    if ms < 1000 || takeovers(history).is_empty() {
        return;
    }
    let begin = end.saturating_sub(ms * 1000);
    let (x, to) = (scale.x(begin), scale.x(end));
    t.rects.insert(
        0,
        Rect {
            x,
            y: from_y - 2.0,
            w: to - x,
            h: to_y - from_y + 4.0,
            class: "outage".to_owned(),
            tip: format!("no answer of the store for {:.2} s", ms as f64 / 1e3),
        },
    );
    t.texts.push(Text {
        x: round((x + to) / 2.0),
        y: from_y + 12.0,
        class: "outage-text",
        text: format!("no answer for {:.2} s", ms as f64 / 1e3),
    });
}

/// What is on its way: generations that the copy has not, messages that the hubs have.
fn queues(t: &mut Timeline, scale: Scale, history: &History, y: f64) -> f64 {
    const HEIGHT: f64 = 34.0;
    let copy = |o: &Observation| {
        let active = o.active();
        let copies = o
            .statuses()
            .flat_map(|(_, s)| s.copies.iter().filter(|c| c.node == s.node));
        copies
            .filter(|c| active != Some(c.node.as_str()))
            .map(|c| c.copy_queue)
            .max()
    };
    let hub = |o: &Observation| o.statuses().filter_map(|(_, s)| Some(s.hub.as_ref()?.queued)).max();
    let points = |value: &dyn Fn(&Observation) -> Option<u64>| -> Vec<(u64, u64)> {
        let looks = history.observations.iter();
        looks.filter_map(|o| Some((o.t_us, value(o)?))).collect()
    };
    let series = [
        ("copy queue", "copyq", points(&copy)),
        ("hub queue", "hubq", points(&hub)),
    ];
    let mut y = y;
    for (name, class, points) in series {
        let most = points.iter().map(|(_, v)| *v).max().unwrap_or(0);
        if points.len() < 2 || most == 0 {
            continue;
        }
        label(t, y, HEIGHT, name);
        let at = |v: u64| round(y + HEIGHT - (HEIGHT - 4.0) * v as f64 / most as f64);
        let mut d = format!("M{} {}", scale.x(points[0].0), round(y + HEIGHT));
        for (t_us, v) in &points {
            // Steps: between two looks nothing is known.
            d.push_str(&format!("H{}V{}", scale.x(*t_us), at(*v)));
        }
        d.push_str(&format!("V{}z", round(y + HEIGHT)));
        t.paths.push(SvgPath {
            d,
            class: format!("area {class}"),
        });
        t.texts.push(Text {
            x: WIDTH - RIGHT - 3.0,
            y: y + 9.0,
            class: "scale",
            text: format!("most {most}"),
        });
        y += HEIGHT + GAP;
    }
    y
}

/// Height of a row of labels above everything.
const MARK: f64 = 13.0;

/// What the takeovers went through: when, what, and in which row of labels there is room for it.
fn marks(scale: Scale, history: &History) -> Vec<(f64, String, usize)> {
    let mut marks: Vec<(f64, String)> = Vec::new();
    for takeover in takeovers(history) {
        let steps = [
            (takeover.detected_us.filter(|_| !takeover.planned), "noticed".to_owned()),
            (takeover.arbitrated_us.filter(|_| !takeover.planned), "won".to_owned()),
            (Some(takeover.t_us), format!("{} serves", takeover.node)),
        ];
        marks.extend(steps.into_iter().filter_map(|(at, text)| Some((scale.x(at?), text))));
    }
    marks.sort_by(|a, b| a.0.total_cmp(&b.0));
    // The right end of the last label in each row.
    let mut ends: Vec<f64> = Vec::new();
    let placed = marks.into_iter().map(|(x, text)| {
        let half = 3.6 * text.len() as f64;
        let row = ends.iter().position(|end| *end < x - half).unwrap_or(ends.len());
        if row == ends.len() {
            ends.push(0.0);
        }
        ends[row] = x + half + 6.0;
        (x, text, row)
    });
    placed.collect()
}

/// Draws the labels, and a line from each over everything down to `to_y`. `y` is the lowest row of labels.
fn draw_marks(t: &mut Timeline, marks: Vec<(f64, String, usize)>, y: f64, to_y: f64) {
    for (x, text, row) in marks {
        let at = y - MARK * row as f64;
        t.lines.push(Line {
            x1: x,
            y1: at + 4.0,
            x2: x,
            y2: to_y,
            class: "mark",
        });
        t.texts.push(Text {
            x,
            y: at,
            class: "mark-text",
            text,
        });
    }
}

fn axis(t: &mut Timeline, scale: Scale, y: f64) {
    let seconds = (scale.to_us - scale.from_us) as f64 / 1e6;
    let steps = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
    ];
    let step = steps.into_iter().find(|s| seconds / s <= 14.0).unwrap_or(7200.0);
    t.lines.push(Line {
        x1: LEFT,
        y1: y,
        x2: WIDTH - RIGHT,
        y2: y,
        class: "axis",
    });
    let mut at = 0.0;
    while at <= seconds {
        let x = scale.x(scale.from_us + (at * 1e6) as u64);
        t.lines.push(Line {
            x1: x,
            y1: y,
            x2: x,
            y2: y + 4.0,
            class: "axis",
        });
        t.texts.push(Text {
            x,
            y: y + 16.0,
            class: "tick",
            text: format!("{at} s"),
        });
        at += step;
    }
}
