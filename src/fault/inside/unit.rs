//! Units of systemd in a machine.

use super::{Injury, Scene, Words};
use crate::error::Result;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A unit is stopped, as by an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopUnit {
    /// Its name.
    unit: String,
}

impl StopUnit {
    pub(super) fn said(words: &Words) -> Result<Self> {
        let unit = words.needed_text("unit")?;
        let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@' | b':');
        // systemd's own bound on names.
        if unit.len() > 255 || unit.starts_with(['-', '.']) || !unit.contains('.') || !unit.bytes().all(sound) {
            return Err(words.wrong(
                format!("`{}` is no name of a unit", unit.escape_debug()),
                "write it with its ending, like ccrd.service",
            ));
        }
        Ok(Self { unit: unit.to_owned() })
    }
}

impl Injury for StopUnit {
    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        let state = state(scene, &self.unit)?;
        if state != "active" {
            return Err(scene.refused("stop the unit", &self.unit, format!("it is {state}")));
        }
        scene.about_to(json!({ "unit": self.unit }))?;
        let begun_us = scene.now_us();
        scene.text("stop the unit", ["systemctl", "stop", "--", &self.unit])?;
        let after = self::state(scene, &self.unit).ok();
        let effective = after.as_ref().map(|s| matches!(s.as_str(), "inactive" | "failed"));
        scene.happened(begun_us, json!({ "state": after }), effective);
        Ok(())
    }

    fn mend(&self, scene: &mut Scene<'_>) -> Result<()> {
        if scene.reached(false)? {
            scene.text("start the unit", ["systemctl", "start", "--", &self.unit])?;
        }
        Ok(())
    }
}

/// What systemd says of a unit; a unit that is not there is inactive.
pub(super) fn state(scene: &mut Scene<'_>, unit: &str) -> Result<String> {
    let ask = ["systemctl", "show", "--property=ActiveState", "--value", "--", unit];
    Ok(scene.text("look at the unit", ask)?.trim().to_owned())
}

impl Scene<'_> {
    /// Ends a unit of our own; one that has ended is left alone.
    pub(super) fn end_unit(&mut self, unit: &str) -> Result<()> {
        let unit = format!("{unit}.service");
        if state(self, &unit)? != "inactive" {
            self.text("end what was begun", ["systemctl", "stop", "--", &unit])?;
        }
        Ok(())
    }
}
