//! The share with the witness file: gone, stopped, or not as it should be.

use super::{Injury, Scene, Words, unit};
use crate::error::Result;
use crate::guest::Command;
use crate::spec::{Lab, Node};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Something is wrong with the share `witness`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WitnessShare {
    how: How,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum How {
    /// Its server does not run.
    Stopped,
    /// Its folder can be read and not written.
    ReadOnly,
    /// Its folder belongs to somebody else.
    WrongRights,
    /// Its folder is not there.
    Gone,
}

impl WitnessShare {
    pub(super) fn said(words: &Words) -> Result<Self> {
        let how = words.word("how")?.ok_or_else(|| words.missing("how"))?;
        Ok(Self { how })
    }
}

impl Injury for WitnessShare {
    fn misfit(&self, lab: &Lab, node: &Node) -> Option<(String, String)> {
        match lab.witness() {
            Some(host) if host == node.name.as_str() => None,
            Some(host) => Some((
                format!("{} has no share `witness`", node.name),
                format!("it is on {host}"),
            )),
            None => Some((
                "the lab has no share `witness`".to_owned(),
                "see the lab file".to_owned(),
            )),
        }
    }

    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        const WHAT: &str = "break the share";
        let places = scene.context.places(&scene.on.node)?;
        let Some(share) = places.shares.get("witness") else {
            return Err(scene.refused(WHAT, "`witness`", "the runtime does not say where it is"));
        };
        let (unit, folder) = (share.unit.as_str(), share.folder.as_str());
        let owner = scene.text("look at the share", ["stat", "-c", "%u:%g", "--", folder])?;
        let away = match self.how {
            How::ReadOnly => format!("/run/{}", scene.own_name()),
            _ => format!("{folder}.{}", scene.own_name()),
        };
        let proof = json!({ "unit": unit, "folder": folder, "owner": owner.trim(), "away": away });
        scene.about_to(proof)?;
        let begun_us = scene.now_us();
        match self.how {
            How::Stopped => scene.text(WHAT, ["systemctl", "stop", "--", unit])?,
            How::ReadOnly => {
                // It becomes read-only elsewhere: a file that the server opens for writing would keep it from that.
                scene.text(WHAT, ["mkdir", "--", &away])?;
                scene.text(WHAT, ["mount", "--bind", "--make-private", "--", folder, &away])?;
                scene.text(WHAT, ["mount", "-o", "remount,bind,ro", "--", &away])?;
                scene.text(WHAT, ["mount", "--bind", "--", &away, folder])?;
                self.clear(scene, &away)?;
                String::new()
            }
            How::WrongRights => scene.text(WHAT, ["chown", "--", "0:0", folder])?,
            How::Gone => scene.text(WHAT, ["mv", "-T", "--", folder, &away])?,
        };
        let effective = self.holds(scene, unit, folder).ok();
        scene.happened(begun_us, json!({ "how": self.how }), effective);
        Ok(())
    }

    fn mend(&self, scene: &mut Scene<'_>) -> Result<()> {
        const WHAT: &str = "mend the share";
        let proof = scene.record.proof.clone();
        let text = |key: &str| proof[key].as_str().unwrap_or_default().to_owned();
        let (unit, folder) = (text("unit"), text("folder"));
        // What is on the disk outlives a restart.
        if !scene.reached(matches!(self.how, How::WrongRights | How::Gone))? {
            return Ok(());
        }
        if self.how == How::ReadOnly {
            self.clear(scene, &text("away"))?;
        }
        if !self.holds(scene, &unit, &folder)? {
            return Ok(());
        }
        match self.how {
            How::Stopped => scene.text(WHAT, ["systemctl", "start", "--", &unit])?,
            How::ReadOnly => scene.text(WHAT, ["umount", "-l", "--", &folder])?,
            How::WrongRights => scene.text(WHAT, ["chown", "--", &text("owner"), &folder])?,
            How::Gone => scene.text(WHAT, ["mv", "-T", "--", &text("away"), &folder])?,
        };
        Ok(())
    }
}

impl WitnessShare {
    /// Removes the folder in which the share became read-only, as far as it was made.
    fn clear(&self, scene: &mut Scene<'_>, aside: &str) -> Result<()> {
        const WHAT: &str = "clear what the share needed";
        if scene.run(&Command::new(["mountpoint", "-q", "--", aside]))?.status == 0 {
            scene.text(WHAT, ["umount", "--", aside])?;
        }
        if scene.run(&Command::new(["test", "-e", aside]))?.status == 0 {
            scene.text(WHAT, ["rmdir", "--", aside])?;
        }
        Ok(())
    }

    /// Whether it is so now.
    fn holds(&self, scene: &mut Scene<'_>, unit: &str, folder: &str) -> Result<bool> {
        const WHAT: &str = "look at the share";
        Ok(match self.how {
            How::Stopped => unit::state(scene, unit)? != "active",
            How::ReadOnly => scene.run(&Command::new(["mountpoint", "-q", "--", folder]))?.status == 0,
            How::WrongRights => scene.text(WHAT, ["stat", "-c", "%u:%g", "--", folder])?.trim() == "0:0",
            How::Gone => scene.run(&Command::new(["test", "-e", folder]))?.status == 1,
        })
    }
}
