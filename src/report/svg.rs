//! What a timeline is made of: shapes in a scalable drawing, and places on the one clock.

use crate::picture::Extent;
use serde::Serialize;

/// Width of the drawing beside the names of its lanes, and of those.
pub(super) const WIDTH: f64 = 1012.0;
pub(super) const NAMES: f64 = 108.0;
/// Left and right of all times: for half a sign, for scales.
pub(super) const LEFT: f64 = 6.0;
pub(super) const RIGHT: f64 = 52.0;
/// Height of a bar of a node, of a fault.
pub(super) const BAR: f64 = 20.0;
/// Height of a thin bar.
pub(super) const THIN: f64 = 16.0;
pub(super) const GAP: f64 = 8.0;
/// Width of a letter of the text in bars, at most.
pub(super) const LETTER: f64 = 7.4;

/// A drawing. Whatever has a time has it in `t` too, in microseconds since the scenario began, so that a script can place it anew.
#[derive(Debug, Default, Serialize)]
pub(super) struct Timeline {
    pub width: f64,
    pub names_width: f64,
    pub height: f64,
    /// The lowest row of labels over everything, and how many rows there are.
    pub marks_y: f64,
    pub rows: usize,
    /// Where the clock stands.
    pub axis_y: f64,
    /// Where all times end, in microseconds since the scenario began.
    pub end_us: u64,
    /// Right of the last time.
    pub right: f64,
    pub names: Vec<Text>,
    pub rects: Vec<Rect>,
    pub lines: Vec<Line>,
    pub paths: Vec<SvgPath>,
    pub texts: Vec<Text>,
    pub axis: Axis,
}

/// The clock.
#[derive(Debug, Default, Serialize)]
pub(super) struct Axis {
    pub lines: Vec<Line>,
    pub texts: Vec<Text>,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Rect {
    pub x: f64,
    pub y: f64,
    pub w: f64,
    pub h: f64,
    pub class: String,
    /// What a person reads who points at it.
    pub tip: String,
    /// From and to; empty of what is as wide as everything.
    pub t: String,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Line {
    pub x1: f64,
    pub y1: f64,
    pub x2: f64,
    pub y2: f64,
    pub class: &'static str,
    /// From and to; empty of what is as wide as everything.
    pub t: String,
    /// How far behind its time it begins.
    pub dx: f64,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct SvgPath {
    /// Every `M` and `H` in it leads to a time, everything else is relative to that.
    pub d: String,
    pub class: String,
    /// What a person reads who points at it.
    pub tip: String,
    /// The times of its `M` and `H`, in their order.
    pub t: String,
    /// Whether it is an event: its second and third time are how far it may be off.
    pub event: bool,
}

#[derive(Debug, Default, Serialize)]
pub(super) struct Text {
    pub x: f64,
    pub y: f64,
    pub class: &'static str,
    pub text: String,
    /// Its time, or from and to of its bar.
    pub t: String,
    /// In a bar: everything that would be in it if there were room.
    pub word: Option<String>,
    /// The name of its lane.
    pub lane: String,
    pub dx: f64,
    /// Of a fault: its class where it stands in its bar.
    pub inside: &'static str,
}

/// Places on the common clock.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale(pub Extent);

impl Scale {
    pub fn x(self, t_us: u64) -> f64 {
        let Extent { from_us, to_us } = self.0;
        let part = (t_us.clamp(from_us, to_us) - from_us) as f64 / (to_us - from_us) as f64;
        round(LEFT + part * (WIDTH - LEFT - RIGHT))
    }

    /// Microseconds since the scenario began, of each of these times.
    pub fn times(self, all: &[u64]) -> String {
        let Extent { from_us, to_us } = self.0;
        let since = |t: &u64| (t.clamp(&from_us, &to_us) - from_us).to_string();
        all.iter().map(since).collect::<Vec<_>>().join(" ")
    }

    /// Seconds since the scenario began.
    pub fn seconds(self, t_us: u64) -> f64 {
        (t_us as f64 - self.0.from_us as f64) / 1e6
    }
}

pub(super) fn round(v: f64) -> f64 {
    (v * 10.0).round() / 10.0
}

/// The beginning of a name that is too long for its place.
fn cut(name: &str) -> String {
    const MOST: usize = 15;
    match name.char_indices().nth(MOST) {
        None => name.to_owned(),
        Some(_) => name.chars().take(MOST - 1).chain(['…']).collect(),
    }
}

impl Timeline {
    /// The name of a lane, left of it.
    pub fn label(&mut self, y: f64, height: f64, text: &str) {
        self.names.push(Text {
            x: NAMES - 8.0,
            y: y + height / 2.0 + 4.0,
            class: "row",
            text: cut(text),
            ..Text::default()
        });
    }

    /// What a number at the right end means.
    pub fn scale(&mut self, y: f64, text: String) {
        self.texts.push(Text {
            x: WIDTH - RIGHT + 6.0,
            y,
            class: "scale",
            text,
            ..Text::default()
        });
    }

    /// A line over the whole width.
    pub fn rule(&mut self, y: f64, class: &'static str) {
        self.lines.push(Line {
            x1: LEFT,
            y1: y,
            x2: WIDTH - RIGHT,
            y2: y,
            class,
            ..Line::default()
        });
    }

    /// A bar with a word in it, as much of it as has room: all, the sign before it, or nothing.
    pub fn bar(&mut self, lane: &str, rect: Rect, mark: &str, word: &str, class: &'static str) {
        let whole = if mark.is_empty() {
            word.to_owned()
        } else {
            format!("{mark} {word}")
        };
        let room = rect.w - 8.0;
        let needs = |text: &str| LETTER * text.chars().count() as f64;
        let text = match () {
            () if needs(&whole) <= room => whole.clone(),
            () if !mark.is_empty() && needs(mark) + 2.0 <= room => mark.to_owned(),
            () => String::new(),
        };
        if !whole.is_empty() {
            self.texts.push(Text {
                x: rect.x + 6.0,
                y: round(rect.y + rect.h / 2.0 + 4.0),
                class,
                text,
                t: rect.t.clone(),
                word: Some(whole),
                lane: lane.to_owned(),
                dx: 6.0,
                ..Text::default()
            });
        }
        self.rects.push(rect);
    }
}
