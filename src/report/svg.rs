//! What a timeline is made of: shapes in a scalable drawing, and places on the one clock.

use crate::picture::Extent;
use serde::Serialize;

pub(super) const WIDTH: f64 = 1160.0;
pub(super) const LEFT: f64 = 124.0;
pub(super) const RIGHT: f64 = 16.0;
/// Height of a bar of a node, of a fault.
pub(super) const BAR: f64 = 20.0;
/// Height of a thin bar.
pub(super) const THIN: f64 = 16.0;
pub(super) const GAP: f64 = 8.0;
/// Width of a letter of the text in bars, at most.
pub(super) const LETTER: f64 = 7.4;

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
    pub x: f64,
    pub y: f64,
    pub w: f64,
    pub h: f64,
    pub class: String,
    /// What a person reads who points at it.
    pub tip: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Line {
    pub x1: f64,
    pub y1: f64,
    pub x2: f64,
    pub y2: f64,
    pub class: &'static str,
}

#[derive(Debug, Serialize)]
pub(super) struct SvgPath {
    pub d: String,
    pub class: String,
    /// What a person reads who points at it.
    pub tip: String,
}

#[derive(Debug, Serialize)]
pub(super) struct Text {
    pub x: f64,
    pub y: f64,
    pub class: &'static str,
    pub text: String,
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

    /// Seconds since the scenario began.
    pub fn seconds(self, t_us: u64) -> f64 {
        (t_us as f64 - self.0.from_us as f64) / 1e6
    }
}

pub(super) fn round(v: f64) -> f64 {
    (v * 10.0).round() / 10.0
}

impl Timeline {
    /// The name of a lane, left of it.
    pub fn label(&mut self, y: f64, height: f64, text: &str) {
        self.texts.push(Text {
            x: LEFT - 10.0,
            y: y + height / 2.0 + 4.0,
            class: "row",
            text: text.to_owned(),
        });
    }

    /// A bar with a word in it, as much of it as has room: all, the sign before it, or nothing.
    pub fn bar(&mut self, rect: Rect, mark: &str, word: &str, class: &'static str) {
        let whole = format!("{mark} {word}");
        let room = rect.w - 8.0;
        let needs = |text: &str| LETTER * text.chars().count() as f64;
        let text = match () {
            () if needs(&whole) <= room => Some(whole),
            () if !mark.is_empty() && needs(mark) + 2.0 <= room => Some(mark.to_owned()),
            () => None,
        };
        if let Some(text) = text {
            self.texts.push(Text {
                x: rect.x + 6.0,
                y: round(rect.y + rect.h / 2.0 + 4.0),
                class,
                text,
            });
        }
        self.rects.push(rect);
    }
}
