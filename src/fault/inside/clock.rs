//! A machine's real-time clock: it jumps, once or by turns.

use super::{Injury, Scene, Words};
use crate::error::{Error, Problem, Result};
use crate::guest::excerpt;
use crate::units::Span;
use crate::wait::{Probe, wait_until};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// The farthest jump: 31 days.
const FARTHEST_US: i64 = 31 * 86_400 * 1_000_000;
/// Below it, a jump could not be told from the time that a look takes.
const SHORTEST_US: i64 = 1_000_000;
/// How exactly a clock is put back. A look takes some milliseconds.
const NEAR_US: i64 = 250_000;

/// The clock jumps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// By how much, in microseconds.
    step_us: i64,
    /// And back, by turns, each after so many microseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    strobe_us: Option<u64>,
}

impl Clock {
    pub(super) fn said(words: &Words) -> Result<Self> {
        let text = words.needed_text("step")?;
        let (back, time) = match text.strip_prefix('-') {
            Some(time) => (true, time),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let time: Span = time
            .trim()
            .parse()
            .map_err(|e| words.wrong(format!("`step`: {e}"), "write step=-1 h"))?;
        let us = i64::try_from(time.duration().as_micros()).unwrap_or(i64::MAX);
        if !(SHORTEST_US..=FARTHEST_US).contains(&us) {
            return Err(words.wrong(
                format!("a jump by {time}"),
                "it is from 1 s to 31 d, forwards or, with -, back",
            ));
        }
        let strobe: Option<Span> = words.value("strobe")?;
        let strobe_us = strobe.map(|s| s.duration().as_micros() as u64);
        if strobe_us.is_some_and(|us| !(50_000..=60_000_000).contains(&us)) {
            return Err(words.wrong("`strobe` is how long the clock stays", "it is from 50 ms to 60 s"));
        }
        Ok(Self {
            step_us: if back { -us } else { us },
            strobe_us,
        })
    }
}

impl Injury for Clock {
    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        let before = offset(scene)?;
        let unit = self.strobe_us.map(|_| scene.own_name());
        scene.about_to(json!({ "offset_before_us": before, "unit": unit }))?;
        let begun_us = scene.now_us();
        match (self.strobe_us, unit) {
            (Some(us), Some(unit)) => {
                // The script is constant and gets words, not text.
                const STROBE: &str = r#"while :; do date -s "$1"; sleep "$3"; date -s "$2"; sleep "$3"; done"#;
                let (there, back) = (jump(self.step_us), jump(-self.step_us));
                let unit = format!("--unit={unit}");
                let stay = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
                let run = [
                    "systemd-run",
                    "--collect",
                    &unit,
                    "sh",
                    "-c",
                    STROBE,
                    "strobe",
                    &there,
                    &back,
                    &stay,
                ];
                scene.text("let the clock jump by turns", run)?;
            }
            _ => scene
                .text("set the clock", ["date", "-s", &jump(self.step_us)])
                .map(drop)?,
        }
        let (here, there) = (before, before + self.step_us);
        let near = |offset: i64, to: i64| (offset - to).abs() < self.step_us.abs() / 4;
        // By turns it is seen at both ends.
        let (mut seen, mut at_home) = (Vec::new(), self.strobe_us.is_none());
        let jumped = wait_until("see the clock jump", scene.deadline, || {
            let now = offset(scene)?;
            at_home |= near(now, here);
            seen.push(now);
            let jumped = seen.iter().any(|o| near(*o, there));
            Ok(match jumped && at_home {
                true => Probe::Ready(()),
                false if self.strobe_us.is_none() => Probe::Ready(()),
                false => Probe::NotYet(format!("{now} us off")),
            })
        });
        let effective = match jumped {
            Ok(()) => Some(seen.iter().any(|o| near(*o, there))),
            Err(_) if seen.is_empty() => None,
            Err(_) => Some(false),
        };
        scene.happened(begun_us, json!({ "offset_after_us": seen.last() }), effective);
        Ok(())
    }

    /// To where it was against this host's clock. A machine that has started again has the time of its clock chip.
    fn mend(&self, scene: &mut Scene<'_>) -> Result<()> {
        if !scene.reached(false)? {
            return Ok(());
        }
        if let Some(unit) = scene.record.proof["unit"].as_str().map(str::to_owned) {
            scene.end_unit(&unit)?;
        }
        let before = scene.record.proof["offset_before_us"].as_i64().unwrap_or(0);
        let off = offset(scene)? - before;
        if off.abs() > NEAR_US {
            scene.text("set the clock back", ["date", "-s", &jump(-off)])?;
        }
        Ok(())
    }
}

/// A jump, as `date -s` takes it: relative, so that the time which the command takes is in none of it.
fn jump(us: i64) -> String {
    let sign = if us < 0 { '-' } else { '+' };
    let us = us.unsigned_abs();
    format!("{sign}{}.{:06} seconds", us / 1_000_000, us % 1_000_000)
}

/// How far the machine's clock is before this host's, in microseconds.
fn offset(scene: &mut Scene<'_>) -> Result<i64> {
    const WHAT: &str = "read the machine's clock";
    let before = since_1970();
    let text = scene.text(WHAT, ["date", "+%s%N"])?;
    let here = i64::midpoint(before, since_1970());
    let there: Option<i64> = text.trim().parse::<i64>().ok().map(|ns| ns / 1000);
    let there = there
        .ok_or_else(|| Error::Operation(Problem::new(WHAT).on(&scene.on.node).observed(excerpt(text.as_bytes()))))?;
    Ok(there - here)
}

/// This host's real-time clock, in microseconds.
fn since_1970() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |d| d.as_micros() as i64)
}
