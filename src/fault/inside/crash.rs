//! Machines that end without a word: a power that comes back at once, a kernel that panics.

use super::{Injury, Scene, Words};
use crate::error::{IoContext, Result};
use crate::fault::power;
use crate::guest::Command;
use crate::hypervisor::{Described, DomainState};
use crate::wait::{Deadline, Probe, wait_until};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::Duration;

/// A kernel prints its last words within milliseconds of processor time.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// What it prints (kernel/panic.c).
const PANIC: &str = "Kernel panic";
/// Most of what is read of a console.
const MOST: u64 = 256 << 10;

/// The machine's memory is lost, and it boots at once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {}

impl Reset {
    pub(super) fn said(_: &Words) -> Result<Self> {
        Ok(Self {})
    }
}

impl Injury for Reset {
    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        let pid = scene.pid()?;
        scene.about_to(json!({ "pid": pid }))?;
        power::off(scene.context, scene.on, scene.record)?;
        let (off, begun_us) = (scene.record.effective, scene.record.begin_us);
        scene.context.restart_machine(&scene.on.node)?;
        let again = scene.context.hypervisor().lookup(&scene.on.node).ok().flatten();
        let runs = again.as_ref().map(|d| d.state == DomainState::Running);
        let seen = json!({ "pid_after": again.and_then(|d| d.pid) });
        scene.happened(begun_us, seen, off.and_then(|off| Some(off && runs?)));
        scene.record.end_us = Some(scene.now_us());
        Ok(())
    }

    /// Cut short, it left the machine suspended or off.
    fn mend(&self, scene: &mut Scene<'_>) -> Result<()> {
        scene.power_cycle()
    }
}

/// The kernel panics, and the machine stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Panic {}

impl Panic {
    pub(super) fn said(_: &Words) -> Result<Self> {
        Ok(Self {})
    }
}

impl Injury for Panic {
    fn make(&self, scene: &mut Scene<'_>) -> Result<()> {
        let console = console(scene)?;
        let from = std::fs::metadata(&console)
            .map(|m| m.len())
            .tried("look at the machine's console", console.display())?;
        let pid = scene.pid()?;
        scene.about_to(json!({ "pid": pid }))?;
        let begun_us = scene.now_us();
        // Asked to begin a moment later, so that the way in is free before the machine is gone. An error of it proves nothing.
        let trigger = [
            "systemd-run",
            "--collect",
            "--no-block",
            "sh",
            "-c",
            "echo c >/proc/sysrq-trigger",
        ];
        let asked = scene.run(&Command::new(trigger));
        let deadline = Deadline::scaled(LAST_WORDS, scene.context.slowness());
        let last_words = wait_until("see the kernel panic", deadline, || {
            Ok(match said_since(&console, from)? {
                Some(line) => Probe::Ready(line),
                None => Probe::NotYet("the console says nothing of it".to_owned()),
            })
        });
        let seen = match &last_words {
            Ok(line) => json!({ "console": line }),
            Err(e) => json!({ "console": e.to_string() }),
        };
        if last_words.is_err()
            && let Ok(output) = asked
        {
            output.check_ok("make the kernel panic", &scene.on.node)?;
        }
        scene.happened(begun_us, seen, Some(last_words.is_ok()));
        Ok(())
    }

    fn mend(&self, scene: &mut Scene<'_>) -> Result<()> {
        scene.power_cycle()
    }
}

/// The file that keeps what the machine prints on its console.
fn console(scene: &Scene<'_>) -> Result<std::path::PathBuf> {
    let xml = scene.context.hypervisor().xml(&scene.on.node)?;
    Described::parse(&xml)?
        .console_log()
        .map(Path::to_owned)
        .ok_or_else(|| scene.refused("make the kernel panic", "the console", "nobody keeps what it prints"))
}

/// The line that tells of the panic, in what was printed from there on.
fn said_since(console: &Path, from: u64) -> Result<Option<String>> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(console)?;
        file.seek(SeekFrom::Start(from))?;
        let mut bytes = Vec::new();
        file.take(MOST).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().tried("read the machine's console", console.display())?;
    let text = String::from_utf8_lossy(&bytes);
    // A line that is still being written is read again.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let line = whole.lines().find(|l| l.contains(PANIC));
    Ok(line.map(|l| crate::guest::excerpt(l.as_bytes())))
}
