//! A machine that is short of processor time or of memory.

use super::{Injury, Scene, Words};
use crate::error::{Error, Problem, Result};
use crate::guest::excerpt;
use crate::units::Size;
use crate::wait::{Probe, wait_until};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// Something else takes nearly all of the processors' time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CpuStarve {}

impl CpuStarve {
    pub(super) fn said(_: &Words) -> Result<Self> {
        Ok(Self {})
    }
}

impl Injury for CpuStarve {
    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        let name = scene.own_name();
        let before = idle(scene)?;
        scene.about_to(json!({ "unit": name }))?;
        let begun_us = scene.now_us();
        let unit = format!("--unit={name}");
        // Ten times the share of any other unit, on every processor.
        const SPIN: &str = "for cpu in $(nproc --all | xargs seq); do while :; do :; done & done; wait";
        let run = [
            "systemd-run",
            "--collect",
            &unit,
            "--property=CPUWeight=1000",
            "sh",
            "-c",
            SPIN,
        ];
        scene.text("take the processors' time", run)?;
        // Never idle: in a quarter of a second of the machine's own time no tick was.
        let mut last = before;
        let busy = wait_until("see the processors busy", scene.deadline, || {
            let now = idle(scene)?;
            let (up, idled) = (now.0 - last.0, now.1 - last.1);
            if up < 0.25 {
                return Ok(Probe::NotYet("it has just begun".to_owned()));
            }
            last = now;
            Ok(if idled < up / 20.0 {
                Probe::Ready(())
            } else {
                Probe::NotYet(format!("idle for {idled:.2} s of {up:.2} s"))
            })
        });
        let seen = json!({ "seen": busy.as_ref().map_or_else(ToString::to_string, |()| "never idle".to_owned()) });
        scene.happened(begun_us, seen, Some(busy.is_ok()));
        Ok(())
    }

    fn mend(&self, scene: &mut Scene<'_>) -> Result<()> {
        match scene.reached(false)? {
            true => scene.end_unit(&scene.own_name()),
            false => Ok(()),
        }
    }
}

/// The machine's uptime, and for how long its processors were idle, in seconds.
fn idle(scene: &mut Scene<'_>) -> Result<(f64, f64)> {
    const WHAT: &str = "see how busy the machine is";
    let text = scene.text(WHAT, ["cat", "/proc/uptime"])?;
    let read = || {
        let (up, idle) = text.trim().split_once(' ')?;
        Some((up.parse().ok()?, idle.parse().ok()?))
    };
    read().ok_or_else(|| Error::Operation(Problem::new(WHAT).on(&scene.on.node).observed(excerpt(text.as_bytes()))))
}

/// Memory is taken until little is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemoryPressure {
    /// What is left, in bytes.
    leave: u64,
}

impl MemoryPressure {
    pub(super) fn said(words: &Words) -> Result<Self> {
        let leave: Size = words.value("leave")?.unwrap_or(Size::mib(16));
        if leave < Size::mib(4) {
            return Err(words.wrong(
                format!("`leave`: {leave}"),
                "leave 4 MiB or more: the agent has to undo it",
            ));
        }
        Ok(Self { leave: leave.bytes() })
    }
}

impl Injury for MemoryPressure {
    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        const WHAT: &str = "take the machine's memory";
        let folder = format!("/run/{}", scene.own_name());
        let before = available(scene)?;
        let Some(take) = before.checked_sub(self.leave).filter(|take| *take >= 1 << 20) else {
            let seen = format!("{before} bytes are left already");
            return Err(scene.refused(WHAT, "its memory", seen));
        };
        scene.about_to(json!({ "folder": folder, "available_before": before }))?;
        let begun_us = scene.now_us();
        scene.text(WHAT, ["mkdir", "--", &folder])?;
        scene.text(
            WHAT,
            [
                "mount",
                "-t",
                "tmpfs",
                "-o",
                &format!("size={take}"),
                "--",
                "tmpfs",
                &folder,
            ],
        )?;
        let (of, count) = (format!("of={folder}/taken"), format!("count={}", take >> 20));
        scene.text(WHAT, ["dd", "if=/dev/zero", &of, "bs=1M", &count, "status=none"])?;
        let after = available(scene).ok();
        // Half of it at least: what the kernel gives up of its caches counts as available.
        let effective = after.map(|left| left < before - take / 2);
        scene.happened(begun_us, json!({ "available_after": after }), effective);
        Ok(())
    }

    fn mend(&self, scene: &mut Scene<'_>) -> Result<()> {
        const WHAT: &str = "give the machine its memory back";
        let folder = scene.record.proof["folder"].as_str().unwrap_or_default().to_owned();
        if folder.is_empty() || !scene.reached(false)? {
            return Ok(());
        }
        let mounted = crate::guest::Command::new(["mountpoint", "-q", "--", &folder]);
        if scene.run(&mounted)?.status == 0 {
            scene.text(WHAT, ["umount", "--", &folder])?;
        }
        scene
            .text(WHAT, ["rm", "-rf", "--one-file-system", "--", &folder])
            .map(drop)
    }
}

/// What the kernel could give to a program, in bytes.
fn available(scene: &mut Scene<'_>) -> Result<u64> {
    const WHAT: &str = "see how much memory is left";
    let text = scene.text(WHAT, ["cat", "/proc/meminfo"])?;
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"));
    let kib: Option<u64> = line.and_then(|n| n.trim().parse().ok());
    kib.and_then(|kib| kib.checked_mul(1024))
        .ok_or_else(|| Error::Operation(Problem::new(WHAT).on(&scene.on.node).observed(excerpt(text.as_bytes()))))
}
