//! Units of systemd in a machine.

use super::{Injury, Scene, Words};
use crate::error::Result;
use crate::guest::Command;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// A unit is stopped, as by an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopUnit {
    /// Its name.
    unit: String,
}

/// A unit is stopped, and nothing can start it: neither systemd, nor an operator, nor a restart of the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MaskUnit {
    /// Its name.
    unit: String,
}

/// The unit that the words name.
fn named(words: &Words) -> Result<String> {
    let unit = words.needed_text("unit")?;
    let sound = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'@' | b':');
    // systemd's own bound on names.
    if unit.len() > 255 || unit.starts_with(['-', '.']) || !unit.contains('.') || !unit.bytes().all(sound) {
        return Err(words.wrong(
            format!("`{}` is no name of a unit", unit.escape_debug()),
            "write it with its ending, like ccrd.service",
        ));
    }
    Ok(unit.to_owned())
}

/// One that does not run cannot be stopped.
fn must_run(scene: &mut Scene<'_>, unit: &str) -> Result<()> {
    match state(scene, unit)?.as_str() {
        "active" => Ok(()),
        state => Err(scene.refused("stop the unit", unit, format!("it is {state}"))),
    }
}

impl StopUnit {
    pub(super) fn said(words: &Words) -> Result<Self> {
        Ok(Self { unit: named(words)? })
    }
}

impl Injury for StopUnit {
    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        must_run(scene, &self.unit)?;
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

/// What keeps a unit from starting. `systemctl mask` refuses one whose file is in /etc, where a pack has it.
const MASK: &[u8] = b"[Unit]\nAssertPathExists=/nonexistent/masked-by-failoverlab\n";

impl MaskUnit {
    pub(super) fn said(words: &Words) -> Result<Self> {
        Ok(Self { unit: named(words)? })
    }

    fn folder(&self) -> String {
        format!("/etc/systemd/system/{}.d", self.unit)
    }

    fn file(&self) -> String {
        format!("{}/failoverlab-mask.conf", self.folder())
    }
}

impl Injury for MaskUnit {
    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        const WHAT: &str = "mask the unit";
        must_run(scene, &self.unit)?;
        scene.about_to(json!({ "unit": self.unit, "file": self.file() }))?;
        let begun_us = scene.now_us();
        scene.text(WHAT, ["mkdir", "-p", "--", &self.folder()])?;
        let write = Command {
            stdin: MASK.to_vec(),
            ..Command::new(["tee", "--", &self.file()])
        };
        scene.run(&write)?.check_ok(WHAT, &self.unit)?;
        scene.text(WHAT, ["systemctl", "daemon-reload"])?;
        scene.text(WHAT, ["systemctl", "stop", "--", &self.unit])?;
        let start = scene.run(&Command::new(["systemctl", "start", "--", &self.unit]))?;
        let after = state(scene, &self.unit).ok();
        let stands = after.as_ref().map(|s| matches!(s.as_str(), "inactive" | "failed"));
        let effective = stands.map(|stands| stands && start.status != 0);
        scene.happened(
            begun_us,
            json!({ "state": after, "start_status": start.status }),
            effective,
        );
        Ok(())
    }

    fn mend(&self, scene: &mut Scene<'_>) -> Result<()> {
        scene.reached(true)?;
        scene.text("remove the mask", ["rm", "-f", "--", &self.file()])?;
        scene.text("read the units again", ["systemctl", "daemon-reload"])?;
        scene
            .text("start the unit", ["systemctl", "start", "--", &self.unit])
            .map(drop)
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
