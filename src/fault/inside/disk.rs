//! A machine's disks: full, read-only, gone.

use super::{Injury, Scene, Words};
use crate::error::{Error, Problem, Result};
use crate::guest::{Command, excerpt};
use crate::spec::{Lab, Node};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// What the kernel says of a write for which there is no room (ENOSPC).
const NO_ROOM: &str = "No space left on device";
/// What is left to be filled block by block.
const REST: u64 = 1 << 20;
/// The word for the system's own disk.
const ROOT: &str = "root";

/// One of a machine's disks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Disk {
    disk: String,
}

impl Disk {
    fn said(words: &Words) -> Self {
        let disk = words.text("disk").unwrap_or("data").to_owned();
        Self { disk }
    }

    fn misfit(&self, node: &Node, root: bool) -> Option<(String, String)> {
        let named = |d: &str| node.disks.iter().any(|known| known.name.as_str() == d);
        if named(&self.disk) || (root && self.disk == ROOT) {
            return None;
        }
        let own = node.disks.iter().map(|d| d.name.as_str());
        let known: Vec<&str> = own.chain(root.then_some(ROOT)).collect();
        let seen = format!("{} has no disk `{}`", node.name, self.disk.escape_debug());
        let remedy = match known.as_slice() {
            [] => "it has none of its own".to_owned(),
            known => format!("it has {}", known.join(", ")),
        };
        Some((seen, remedy))
    }

    /// Where it is mounted.
    fn mount(&self) -> String {
        match self.disk.as_str() {
            ROOT => "/".to_owned(),
            name => format!("/{name}"),
        }
    }

    /// Where it is mounted, which is looked at: a folder would be one of another disk.
    fn mounted(&self, scene: &mut Scene<'_>) -> Result<String> {
        let mount = self.mount();
        if scene.run(&Command::new(["mountpoint", "-q", "--", &mount]))?.status != 0 {
            return Err(scene.refused("find the disk", &self.disk, format!("nothing is mounted at {mount}")));
        }
        Ok(mount)
    }
}

/// A file takes all the room of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskFull {
    #[serde(flatten)]
    disk: Disk,
}

impl DiskFull {
    pub(super) fn said(words: &Words) -> Result<Self> {
        Ok(Self {
            disk: Disk::said(words),
        })
    }
}

impl Injury for DiskFull {
    fn misfit(&self, _: &Lab, node: &Node) -> Option<(String, String)> {
        self.disk.misfit(node, true)
    }

    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        let mount = self.disk.mounted(scene)?;
        let file = format!("{}/{}", mount.trim_end_matches('/'), scene.own_name());
        let before = free(scene, &mount)?;
        scene.about_to(json!({ "file": file, "free_before": before }))?;
        // Who writes may meet it before the last block is taken.
        let begun_us = scene.now_us();
        // How much of the free room can be had is not known: what the file system keeps for itself is in it.
        let (mut chunk, mut filled) = (before, 0);
        while chunk >= REST {
            let (from, length) = (filled.to_string(), chunk.to_string());
            let part = ["fallocate", "-o", &from, "-l", &length, "--", &file];
            if scene.run(&Command::new(part))?.status == 0 {
                filled += chunk;
            }
            chunk /= 2;
        }
        // Ends where there is no room for another block: that it fails is the point.
        let of = format!("of={file}");
        let rest = [
            "dd",
            "if=/dev/zero",
            &of,
            "bs=4096",
            "oflag=append",
            "conv=notrunc,fsync",
            "status=none",
        ];
        let ended = scene.run(&Command::new(rest))?;
        let last_write = excerpt(&ended.stderr);
        let effective = ended.status != 0 && last_write.contains(NO_ROOM);
        let seen = json!({ "filled": filled, "free_after": free(scene, &mount).ok(), "last_write": last_write });
        scene.happened(begun_us, seen, Some(effective));
        Ok(())
    }

    fn mend(&self, scene: &mut Scene<'_>) -> Result<()> {
        let file = scene.record.proof["file"].as_str().map(str::to_owned);
        if let Some(file) = file
            && scene.reached(true)?
        {
            scene.text("give the disk its room back", ["rm", "-f", "--", &file])?;
        }
        Ok(())
    }
}

/// Room on a file system, with that which is kept for the system itself, in bytes.
fn free(scene: &mut Scene<'_>, mount: &str) -> Result<u64> {
    const WHAT: &str = "look how much room a disk has";
    let text = scene.text(WHAT, ["stat", "-f", "-c", "%S %f", "--", mount])?;
    let read = || {
        let (size, blocks) = text.trim().split_once(' ')?;
        size.parse::<u64>().ok()?.checked_mul(blocks.parse().ok()?)
    };
    read().ok_or_else(|| Error::Operation(Problem::new(WHAT).on(&scene.on.node).observed(excerpt(text.as_bytes()))))
}

/// A disk's file system gives up, as behind an error of the disk: it can be read and not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReadOnly {
    #[serde(flatten)]
    disk: Disk,
}

impl DiskReadOnly {
    pub(super) fn said(words: &Words) -> Result<Self> {
        Ok(Self {
            disk: Disk::said(words),
        })
    }
}

impl Injury for DiskReadOnly {
    fn misfit(&self, _: &Lab, node: &Node) -> Option<(String, String)> {
        self.disk.misfit(node, false)
    }

    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        let mount = self.disk.mounted(scene)?;
        let pid = scene.pid()?;
        scene.about_to(json!({ "pid": pid, "mount": mount }))?;
        let begun_us = scene.now_us();
        scene.text(
            "let the file system give up",
            ["mount", "-o", "remount,abort", "--", &mount],
        )?;
        let probe = format!("{mount}/{}", scene.own_name());
        let refused = scene.run(&Command::new(["touch", "--", &probe])).ok();
        let seen = json!({ "write": refused.as_ref().map(|o| excerpt(&o.stderr)) });
        scene.happened(begun_us, seen, refused.map(|o| o.status != 0));
        Ok(())
    }

    fn mend(&self, scene: &mut Scene<'_>) -> Result<()> {
        scene.power_cycle()
    }
}

/// A disk is pulled out: whatever is asked of it is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskGone {
    #[serde(flatten)]
    disk: Disk,
}

impl DiskGone {
    pub(super) fn said(words: &Words) -> Result<Self> {
        Ok(Self {
            disk: Disk::said(words),
        })
    }
}

impl Injury for DiskGone {
    fn misfit(&self, _: &Lab, node: &Node) -> Option<(String, String)> {
        self.disk.misfit(node, false)
    }

    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        let lab = scene.context.lab();
        let disks = lab.node(&scene.on.node).map(|n| n.disks.as_slice()).unwrap_or_default();
        let known = disks.iter().find(|d| d.name.as_str() == self.disk.disk);
        let serial = known.map(|d| d.serial.clone()).unwrap_or_default();
        let link = format!("/dev/disk/by-id/virtio-{serial}");
        let device = scene.text("find the disk", ["readlink", "-e", "--", &link])?;
        let block = format!("/sys/block/{}", device.trim().trim_start_matches("/dev/"));
        let port = scene.text(
            "find the disk's port",
            ["readlink", "-e", "--", &format!("{block}/device")],
        )?;
        let port = port.trim().rsplit('/').next().unwrap_or_default().to_owned();
        let pid = scene.pid()?;
        scene.about_to(json!({ "pid": pid, "device": device.trim(), "port": port }))?;
        let begun_us = scene.now_us();
        let unbind = Command {
            argv: ["tee", "/sys/bus/virtio/drivers/virtio_blk/unbind"]
                .map(str::to_owned)
                .to_vec(),
            stdin: port.into_bytes(),
        };
        scene.run(&unbind)?.check_ok("pull the disk out", &scene.on.node)?;
        let there = scene.run(&Command::new(["test", "-e", &block])).ok();
        let seen = json!({ "listed": there.as_ref().map(|o| o.status == 0) });
        scene.happened(begun_us, seen, there.map(|o| o.status != 0));
        Ok(())
    }

    fn mend(&self, scene: &mut Scene<'_>) -> Result<()> {
        scene.power_cycle()
    }
}
