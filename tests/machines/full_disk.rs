//! The disk is full in the middle of a checkpoint: the lab `bare` in a home of its own, on a disk of memory that shrinks while QEMU
//! writes. Only root may mount one.

use super::tool::{Tool, pids, same, text};
use libtest_mimic::Completion;
use rustix::fs::{Mode, OFlags};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

pub const NAME: &str = "bare_a_full_disk_undoes_a_checkpoint_and_the_lab_goes_on";

/// The lab, its checkpoints, and the room that is asked for before one is made.
const ROOM: u64 = 1500;
/// Not enough for the memory of three machines that is written side by side.
const NO_ROOM: u64 = 100;

pub fn test(tool: &Tool) -> Result<Completion, String> {
    let disk = match Disk::mount(tool) {
        Ok(disk) => disk,
        Err(why) => return Ok(Completion::ignored_with(why)),
    };
    disk.furnish(tool)?;
    let tool = &disk.tool;
    tool.ok(&["up", "bare"])?;
    let before = tool.json(&["status", "bare"])?;
    let (machines, layers) = (states(&before), disk.layers()?);
    // A machine that writes on and on is stopped by QEMU if it ever finds no room.
    let write = "touch /run/go; setsid -f sh -c 'while [ -e /run/go ]; do head -c 65536 /dev/zero; sync; done >>/root/grows' \
                 </dev/null >/dev/null 2>&1";
    for node in ["a", "b", "c"] {
        tool.exec("bare", node, &["sh", "-c", write])?;
    }

    let mut create = tool
        .command(&["checkpoint", "create", "bare", "full"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    // It speaks when the room that it asks for was found; then machines are asked for their clocks and layers made.
    let mut heard = BufReader::new(create.stderr.take().ok_or("no stderr")?);
    let mut said = String::new();
    heard.read_line(&mut said).map_err(io)?;
    disk.leave(NO_ROOM)?;
    heard.read_to_string(&mut said).map_err(io)?;
    let status = create.wait().map_err(io)?;
    same("the exit code", status.code(), Some(5))?;
    for word in ["No space left on device", &disk.checkpoints().display().to_string()] {
        same(&format!("{word} in {said}"), said.contains(word), true)?;
    }

    let after = tool.json(&["status", "bare"])?;
    same("QEMU's processes", pids(&after), pids(&before))?;
    same("their states", states(&after), machines)?;
    let kept = tool.ok(&["checkpoint", "ls", "bare"])?;
    same("`full` among the checkpoints", kept.contains("full"), false)?;
    same(
        "the unfinished checkpoint",
        disk.checkpoints().join(".full").exists(),
        false,
    )?;
    same("the layers", disk.layers()?, layers)?;
    for node in ["a", "b", "c"] {
        tool.exec("bare", node, &["rm", "/run/go", "/root/grows"])?;
    }

    disk.resize(ROOM)?;
    let note = |word: &str| tool.exec("bare", "a", &["sh", "-c", &format!("echo {word} >/root/note; sync")]);
    note("before")?;
    tool.ok(&["checkpoint", "create", "bare", "full"])?;
    note("after")?;
    tool.ok(&["restore", "bare", "full"])?;
    let noted = tool.exec("bare", "a", &["cat", "/root/note"])?;
    same("the note after the restore", noted.trim(), "before")?;
    tool.ok(&["down", "bare"])?;
    same("leaks", tool.leaks(&[]), Vec::new())?;
    Ok(Completion::Completed)
}

fn states(status: &serde_json::Value) -> Vec<Option<String>> {
    let machines = status["machines"].as_array().into_iter().flatten();
    machines.map(|m| m["domain"].as_str().map(str::to_owned)).collect()
}

/// A disk of memory with a home on it.
struct Disk {
    tool: Tool,
}

impl Disk {
    /// An error says why there can be none.
    fn mount(tool: &Tool) -> Result<Self, String> {
        let home = tool.home.join("small");
        std::fs::create_dir_all(&home).map_err(io)?;
        let options = format!("size={ROOM}m,mode=700");
        command("mount", &["-t", "tmpfs", "-o", &options, "tmpfs"], &home)?;
        let disk = Self {
            tool: tool.in_home(&home),
        };
        let direct = OFlags::CREATE | OFlags::WRONLY | OFlags::DIRECT;
        rustix::fs::open(home.join("direct"), direct, Mode::RUSR).map_err(|e| {
            format!("tmpfs takes no direct I/O before Linux 6.6, which the shared disk is opened with: {e}")
        })?;
        Ok(disk)
    }

    /// Images, and what the lab comes back from instead of booting, where there is such a checkpoint.
    fn furnish(&self, from: &Tool) -> Result<(), String> {
        let (there, here) = (from.home.join("cache"), self.tool.home.join("cache"));
        std::fs::create_dir_all(there.join("images")).map_err(io)?;
        std::fs::create_dir_all(self.checkpoints()).map_err(io)?;
        std::os::unix::fs::symlink(there.join("images"), here.join("images")).map_err(io)?;
        for name in ["accel.json", "capabilities"] {
            if there.join(name).exists() {
                command("cp", &["-r", &there.join(name).display().to_string()], &here)?;
            }
        }
        let plan = from.json(&["up", "bare", "--dry-run"])?;
        let mut steps = plan["steps"].as_array().into_iter().flatten();
        if let Some(warm) = steps.find(|s| s["action"] == "restore").and_then(|s| s["on"].as_str()) {
            let kept = there.join("checkpoints/bare").join(warm).display().to_string();
            command("cp", &["-r", &kept], &self.checkpoints())?;
        }
        Ok(())
    }

    fn checkpoints(&self) -> PathBuf {
        self.tool.home.join("cache/checkpoints/bare")
    }

    /// The files of the machines' disks.
    fn layers(&self) -> Result<Vec<String>, String> {
        let found = Command::new("find")
            .arg(self.tool.home.join("state"))
            .args(["-name", "*.qcow2"])
            .output();
        let mut layers: Vec<String> = text(&found.map_err(io)?.stdout).lines().map(str::to_owned).collect();
        layers.sort();
        match layers.len() {
            0 => Err("no layers were found".into()),
            _ => Ok(layers),
        }
    }

    /// Makes it so large in all.
    fn resize(&self, mib: u64) -> Result<(), String> {
        command("mount", &["-o", &format!("remount,size={mib}m")], &self.tool.home)
    }

    /// Makes it as large as what is on it, and so much more.
    fn leave(&self, mib: u64) -> Result<(), String> {
        let stat = rustix::fs::statvfs(&self.tool.home).map_err(|e| e.to_string())?;
        self.resize((stat.f_blocks - stat.f_bfree) * stat.f_frsize / (1 << 20) + mib)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.resize(ROOM);
        self.tool.clean_up();
        if let Err(e) = command("umount", &[], &self.tool.home) {
            eprintln!("  {e}");
        }
        let _ = std::fs::remove_dir(&self.tool.home);
    }
}

/// Runs a program with these arguments and, last, a path.
fn command(program: &str, args: &[&str], path: &Path) -> Result<(), String> {
    let out = Command::new(program)
        .args(args)
        .arg(path)
        .output()
        .map_err(|e| format!("{program}: {e}"))?;
    if out.status.success() {
        return Ok(());
    }
    Err(format!("{program} {}: {}", path.display(), text(&out.stderr).trim()))
}

fn io(e: std::io::Error) -> String {
    e.to_string()
}
