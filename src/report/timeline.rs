//! The timeline of a scenario as a drawing: everything on one clock, in lanes.

use super::svg::{Axis, LEFT, Line, NAMES, RIGHT, Rect, Scale, Text, Timeline, WIDTH, round};
use super::{bands, lanes};
use crate::picture::{NOTICEABLE_US, Tracks};
use crate::spec::Lab;
use crate::verify::{History, takeovers};

/// The drawing of one scenario.
pub(super) fn draw(lab: &Lab, history: &History, tracks: &Tracks) -> Timeline {
    let scale = Scale(tracks.extent);
    let mut t = Timeline {
        width: WIDTH,
        names_width: NAMES,
        right: WIDTH - RIGHT,
        end_us: tracks.extent.to_us - tracks.extent.from_us,
        ..Timeline::default()
    };
    let labels = marks(scale, history);
    let rows = labels.iter().map(|(_, _, row)| row + 1).max().unwrap_or(0);
    let marks_y = 2.0 + MARK * rows as f64;
    let mut y = marks_y + 8.0;
    (t.marks_y, t.rows) = (marks_y, rows);
    y = lanes::faults(&mut t, scale, history, y);
    y = lanes::orders(&mut t, scale, tracks, y);
    y = lanes::dark(&mut t, scale, tracks, y);
    y = lanes::paths(&mut t, scale, tracks, y);
    y = lanes::roles(&mut t, scale, tracks, y);
    y = lanes::votes(&mut t, scale, tracks, y);
    y = lanes::service(&mut t, scale, tracks, y);
    y = lanes::epochs(&mut t, scale, tracks, y);
    y = lanes::witness(&mut t, scale, tracks, y);
    let waits_from = y;
    y = lanes::clients(&mut t, scale, tracks, y);
    y = bands::operations(&mut t, scale, history, y);
    if y > waits_from {
        outage(&mut t, scale, tracks, waits_from, y);
    }
    y = lanes::copies(&mut t, scale, tracks, y);
    y = bands::queues(&mut t, scale, history, y);
    y = lanes::events(&mut t, scale, lab, history, y);
    draw_marks(&mut t, scale, labels, marks_y, y);
    t.axis = axis(scale, y);
    t.axis_y = y;
    t.height = y + 24.0;
    t
}

/// All of it at a glance, a thousand wide: faults, and below them the longest time without an answer.
pub(super) fn overview(history: &History, tracks: &Tracks) -> Vec<Rect> {
    let (begin, end) = (tracks.extent.from_us, tracks.extent.to_us);
    let x = |t_us: u64| round((t_us.clamp(begin, end) - begin) as f64 * 1000.0 / (end - begin) as f64);
    let bar = |from_us: u64, to_us: u64, y: f64, h: f64, class: &str| Rect {
        x: x(from_us),
        y,
        w: (x(to_us) - x(from_us)).max(2.0),
        h,
        class: class.to_owned(),
        ..Rect::default()
    };
    let fault = |f: &crate::verify::FaultRecord| bar(f.begin_us, f.end_us.unwrap_or(end), 2.0, 6.0, "fault");
    let waits = tracks.outage.filter(|(from, to)| to - from >= NOTICEABLE_US);
    let waits = waits.map(|(from, to)| bar(from, to, 11.0, 9.0, "waits"));
    history.faults.iter().map(fault).chain(waits).collect()
}

/// Shades the longest time without an answer of the store, where a person would notice it.
fn outage(t: &mut Timeline, scale: Scale, tracks: &Tracks, from_y: f64, to_y: f64) {
    let Some((from_us, to_us)) = tracks.outage.filter(|(from, to)| to - from >= NOTICEABLE_US) else {
        return;
    };
    let (x, to) = (scale.x(from_us), scale.x(to_us));
    t.rects.push(Rect {
        x,
        y: from_y - 2.0,
        w: round(to - x),
        h: to_y - from_y,
        class: "outage".to_owned(),
        tip: format!(
            "no answer of the store for {:.2} s, until {:.2} s",
            (to_us - from_us) as f64 / 1e6,
            scale.seconds(to_us)
        ),
        t: scale.times(&[from_us, to_us]),
    });
}

/// Height of a row of labels above everything.
const MARK: f64 = 13.0;

/// What the takeovers went through: when, what, and in which row of labels there is room for it.
fn marks(scale: Scale, history: &History) -> Vec<(u64, String, usize)> {
    let mut marks: Vec<(u64, String)> = Vec::new();
    for takeover in takeovers(history) {
        let steps = [
            (takeover.detected_us.filter(|_| !takeover.planned), "noticed".to_owned()),
            (takeover.arbitrated_us.filter(|_| !takeover.planned), "won".to_owned()),
            (Some(takeover.t_us), format!("{} serves", takeover.node)),
        ];
        marks.extend(steps.into_iter().filter_map(|(at, text)| Some((at?, text))));
    }
    marks.sort_by_key(|(t_us, _)| *t_us);
    // The right end of the last label in each row.
    let mut ends: Vec<f64> = Vec::new();
    let placed = marks.into_iter().map(|(t_us, text)| {
        let x = scale.x(t_us);
        let half = 3.6 * text.len() as f64;
        let row = ends.iter().position(|end| *end < x - half).unwrap_or(ends.len());
        if row == ends.len() {
            ends.push(0.0);
        }
        ends[row] = x + half + 6.0;
        (t_us, text, row)
    });
    placed.collect()
}

/// Draws the labels, and a line from each over everything down to `to_y`. `y` is the lowest row of labels.
fn draw_marks(t: &mut Timeline, scale: Scale, marks: Vec<(u64, String, usize)>, y: f64, to_y: f64) {
    for (t_us, text, row) in marks {
        let x = scale.x(t_us);
        let at = y - MARK * row as f64;
        t.lines.push(Line {
            x1: x,
            y1: at + 4.0,
            x2: x,
            y2: to_y,
            class: "mark",
            t: scale.times(&[t_us]),
            dx: 0.0,
        });
        let half = 3.6 * text.len() as f64;
        t.texts.push(Text {
            x: x.clamp(half, WIDTH - half),
            y: at,
            class: "mark-text",
            text,
            t: scale.times(&[t_us]),
            ..Text::default()
        });
    }
}

fn axis(scale: Scale, y: f64) -> Axis {
    let seconds = (scale.0.to_us - scale.0.from_us) as f64 / 1e6;
    let steps = [
        1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
    ];
    let step = steps.into_iter().find(|s| seconds / s <= 14.0).unwrap_or(7200.0);
    let line = |x1, x2, y2| Line {
        x1,
        y1: y,
        x2,
        y2,
        class: "axis",
        ..Line::default()
    };
    let mut axis = Axis {
        lines: vec![line(LEFT, WIDTH - RIGHT, y)],
        texts: Vec::new(),
    };
    let mut at = 0.0;
    while at <= seconds {
        let x = scale.x(scale.0.from_us + (at * 1e6) as u64);
        axis.lines.push(line(x, x, y + 4.0));
        axis.texts.push(Text {
            x: x.max(12.0),
            y: y + 16.0,
            class: "tick",
            text: format!("{at} s"),
            ..Text::default()
        });
        at += step;
    }
    axis
}
