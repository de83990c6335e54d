//! Bands of numbers: how long the clients waited, what was on its way.

use super::svg::{GAP, LEFT, RIGHT, Rect, Scale, SvgPath, Timeline, WIDTH, round};
use crate::verify::{History, Observation, OpKind, Outcome};

/// Height of a band of operations.
const BAND: f64 = 54.0;
/// Slowest answer that the scale of a band shows, and the fastest, in microseconds.
const SLOW: f64 = 10e6;
const FAST: f64 = 1e3;

pub(super) fn kind_word(kind: OpKind) -> &'static str {
    match kind {
        OpKind::Submit => "submit",
        OpKind::Deliver => "deliver",
        OpKind::Read => "read",
        OpKind::Delete => "delete",
    }
}

/// One band for each kind of operation: when it began, and upwards how long it took (1 ms to 10 s, logarithmic).
pub(super) fn operations(t: &mut Timeline, scale: Scale, history: &History, mut y: f64) -> f64 {
    let Ok(ops) = history.operations() else { return y };
    for kind in [OpKind::Submit, OpKind::Deliver, OpKind::Read, OpKind::Delete] {
        let of_kind: Vec<_> = ops.iter().filter(|o| o.kind == kind).collect();
        if of_kind.is_empty() {
            continue;
        }
        t.label(y, BAND, kind_word(kind));
        t.rects.push(Rect {
            x: LEFT,
            y,
            w: WIDTH - LEFT - RIGHT,
            h: BAND,
            class: "band".to_owned(),
            ..Rect::default()
        });
        for (tenth, text) in [(0.25, "10 ms"), (0.5, "100 ms"), (0.75, "1 s")] {
            let at = round(y + BAND * (1.0 - tenth));
            t.rule(at, "grid");
            t.scale(at + 3.5, text.to_owned());
        }
        for (outcome, word) in [
            (Outcome::Ok, "ok"),
            (Outcome::Unknown, "unknown"),
            (Outcome::Fail, "fail"),
        ] {
            let (mut d, mut times) = (String::new(), Vec::new());
            for op in of_kind.iter().filter(|o| o.outcome == outcome) {
                let took = op.end_us.unwrap_or(scale.0.to_us).saturating_sub(op.begin_us) as f64;
                let part = (took.clamp(FAST, SLOW) / FAST).log10() / (SLOW / FAST).log10();
                let at = round(y + 4.0 + (BAND - 8.0) * (1.0 - part));
                let x = scale.x(op.begin_us);
                times.push(op.begin_us);
                d.push_str(&match outcome {
                    Outcome::Ok => format!("M{x} {at}h0"),
                    Outcome::Fail => format!("M{x} {at}m-2.5-2.5l5 5m0-5l-5 5"),
                    Outcome::Unknown => format!("M{x} {}l4 4-4 4-4-4z", round(at - 4.0)),
                });
            }
            if !d.is_empty() {
                t.paths.push(SvgPath {
                    d,
                    class: format!("op {word}"),
                    t: scale.times(&times),
                    ..SvgPath::default()
                });
            }
        }
        y += BAND + GAP;
    }
    y
}

/// What is on its way: generations that the copy has not, messages that the hubs have.
pub(super) fn queues(t: &mut Timeline, scale: Scale, history: &History, y: f64) -> f64 {
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
    let replay = |o: &Observation| {
        let own = o
            .statuses()
            .flat_map(|(_, s)| s.copies.iter().filter(|c| c.node == s.node));
        own.map(|c| c.replay_queue).max()
    };
    let hub = |o: &Observation| o.statuses().filter_map(|(_, s)| Some(s.hub.as_ref()?.queued)).max();
    let points = |value: &dyn Fn(&Observation) -> Option<u64>| -> Vec<(u64, u64)> {
        let looks = history.observations.iter();
        let mut all: Vec<(u64, u64)> = looks.filter_map(|o| Some((o.t_us, value(o)?))).collect();
        // The last one shows until when it was so.
        let end = all.last().copied();
        all.dedup_by_key(|(_, v)| *v);
        all.extend(end);
        all
    };
    let series = [
        ("copy queue", "copyq", points(&copy)),
        ("replay queue", "replayq", points(&replay)),
        ("hub queue", "hubq", points(&hub)),
    ];
    let mut y = y;
    for (name, class, points) in series {
        let most = points.iter().map(|(_, v)| *v).max().unwrap_or(0);
        if points.len() < 2 || most == 0 {
            continue;
        }
        t.label(y, HEIGHT, name);
        let at = |v: u64| round(y + HEIGHT - (HEIGHT - 4.0) * v as f64 / most as f64);
        let mut d = format!("M{} {}", scale.x(points[0].0), round(y + HEIGHT));
        let mut times = vec![points[0].0];
        for (t_us, v) in &points {
            // Steps: between two looks nothing is known.
            d.push_str(&format!("H{}V{}", scale.x(*t_us), at(*v)));
            times.push(*t_us);
        }
        d.push_str(&format!("V{}z", round(y + HEIGHT)));
        t.paths.push(SvgPath {
            d,
            class: format!("area {class}"),
            t: scale.times(&times),
            ..SvgPath::default()
        });
        t.scale(y + 9.0, format!("≤ {most}"));
        y += HEIGHT + GAP;
    }
    y
}
