//! `qemu-img`, typed: argument vectors in, JSON out.

use super::run::Run;
use crate::error::{Error, IoContext, Problem, Result};
use crate::units::Size;
use crate::wait::Deadline;
use serde::Deserialize;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

static NEVER: AtomicBool = AtomicBool::new(false);

/// Format of a disk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// A qcow2 overlay.
    Qcow2,
    /// A raw file.
    Raw,
}

/// The program and how long it may take.
#[derive(Debug, Clone)]
pub struct QemuImg {
    program: PathBuf,
    within: Duration,
}

/// What `qemu-img info` says of a disk.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Info {
    /// `qcow2`, `raw` …
    pub format: String,
    /// Size that a guest sees, in bytes.
    pub virtual_size: u64,
    /// Space that the file takes on the host, in bytes.
    #[serde(default)]
    pub actual_size: u64,
    /// The image below an overlay, with its whole path.
    pub full_backing_filename: Option<PathBuf>,
    /// Format of the image below.
    pub backing_filename_format: Option<String>,
    /// Whether the process that had it open last ended without closing it.
    #[serde(default)]
    pub dirty_flag: bool,
}

/// What `qemu-img check` says of a disk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Check {
    /// Errors that make data wrong.
    #[serde(default)]
    pub corruptions: u64,
    /// Space that nothing refers to.
    #[serde(default)]
    pub leaks: u64,
    /// The check itself failed there.
    #[serde(default)]
    pub check_errors: u64,
}

impl Default for QemuImg {
    fn default() -> Self {
        Self::new("qemu-img")
    }
}

impl QemuImg {
    /// With this program.
    pub fn new(program: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            within: Duration::from_secs(300),
        }
    }

    /// With this much time for each call.
    #[must_use]
    pub fn within(mut self, within: Duration) -> Self {
        self.within = within;
        self
    }

    /// Makes a qcow2 overlay on `backing`, which is written down with its whole path: an overlay may be moved.
    pub fn create_overlay(&self, overlay: &Path, backing: &Path, format: DiskFormat) -> Result<()> {
        let what = "make the overlay";
        let backing = std::path::absolute(backing).tried(what, backing.display())?;
        let mut args = ["create", "-q", "-f", "qcow2", "-F", name(format), "-b"]
            .map(OsStr::new)
            .to_vec();
        args.push(backing.as_os_str());
        self.run(Call {
            what,
            args: &args,
            disks: &[overlay],
            ..CALL
        })
        .map(drop)
    }

    /// Makes the next layer of a disk on the file `below` of the same folder, which it names relatively: a chain of layers may stand in
    /// any folder.
    pub fn create_layer(&self, layer: &Path, below: &str) -> Result<()> {
        let args = ["create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", below].map(OsStr::new);
        self.run(Call {
            what: "make the next layer",
            args: &args,
            disks: &[layer],
            ..CALL
        })
        .map(drop)
    }

    /// Makes an empty disk of `size`.
    pub fn create(&self, disk: &Path, format: DiskFormat, size: Size) -> Result<()> {
        let args = ["create", "-q", "-f", name(format)].map(OsStr::new);
        let size = size.bytes().to_string();
        self.run(Call {
            what: "make the disk",
            args: &args,
            disks: &[disk],
            last: Some(&size),
            ..CALL
        })
        .map(drop)
    }

    /// Looks at a disk, also while a machine has it open.
    pub fn info(&self, disk: &Path) -> Result<Info> {
        let args = ["info", "--output=json", "--force-share"].map(OsStr::new);
        self.ask(Call {
            what: "look at the disk",
            args: &args,
            disks: &[disk],
            ..CALL
        })
    }

    /// Copies a disk into another format; holes stay holes.
    pub fn convert(&self, from: (&Path, DiskFormat), to: (&Path, DiskFormat), cancel: &AtomicBool) -> Result<()> {
        let args = ["convert", "-f", name(from.1), "-O", name(to.1)].map(OsStr::new);
        self.run(Call {
            what: "convert the disk",
            args: &args,
            disks: &[from.0, to.0],
            cancel,
            ..CALL
        })
        .map(drop)
    }

    /// Checks the structure of a qcow2 disk that no process has open.
    pub fn check(&self, disk: &Path) -> Result<Check> {
        // 2 and 3 say in short what the JSON says at length: corrupt, leaks.
        let args = ["check", "--output=json"].map(OsStr::new);
        self.ask(Call {
            what: "check the disk",
            args: &args,
            disks: &[disk],
            good: &[0, 2, 3],
            ..CALL
        })
    }

    fn ask<T: serde::de::DeserializeOwned>(&self, call: Call<'_>) -> Result<T> {
        let out = self.run(call)?;
        serde_json::from_slice(&out).map_err(|e| {
            let text: String = String::from_utf8_lossy(&out).chars().take(200).collect();
            let seen = format!("qemu-img's answer is no JSON as expected ({e}): {text}");
            Error::Operation(Problem::new(call.what).on(call.disks[0].display()).observed(seen))
        })
    }

    fn run(&self, call: Call<'_>) -> Result<Vec<u8>> {
        let on = call.disks.last().map(|d| d.display().to_string()).unwrap_or_default();
        let run = Run {
            what: call.what,
            on: &on,
            program: "qemu-img",
            package: "qemu-utils",
            deadline: Deadline::after(self.within),
            cancel: call.cancel,
        };
        let mut command = run.command(&self.program)?;
        // Absolute, for a relative `a:b` would be a protocol; behind `--`, so that no path is an option.
        command.args(call.args).arg("--");
        for disk in call.disks {
            command.arg(std::path::absolute(disk).tried(call.what, disk.display())?);
        }
        command.args(call.last);
        run.output_if(command, call.good, &mut |_| {})
    }
}

#[derive(Clone, Copy)]
struct Call<'a> {
    what: &'a str,
    args: &'a [&'a OsStr],
    disks: &'a [&'a Path],
    last: Option<&'a str>,
    good: &'a [i32],
    cancel: &'a AtomicBool,
}

const CALL: Call<'static> = Call {
    what: "",
    args: &[],
    disks: &[],
    last: None,
    good: &[0],
    cancel: &NEVER,
};

fn name(format: DiskFormat) -> &'static str {
    match format {
        DiskFormat::Qcow2 => "qcow2",
        DiskFormat::Raw => "raw",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::sync::atomic::Ordering;

    /// A program that logs its arguments, one in a line, and then does `then`.
    fn mock(dir: &Path, then: &str) -> QemuImg {
        let program = dir.join("qemu-img");
        let log = dir.join("argv");
        let script = format!(
            "#!/bin/sh\nprintf '%s\\n' \"$LC_ALL\" \"$@\" > '{}'\n{then}\n",
            log.display()
        );
        // Written by another process: a file that this one, with its many threads, has just written may be "busy".
        let mut writer = std::process::Command::new("sh")
            .args(["-c", "cat > \"$1\"; chmod 755 \"$1\"", "sh"])
            .arg(&program)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut writer.stdin.take().unwrap(), script.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
        assert_eq!(std::fs::metadata(&program).unwrap().permissions().mode() & 0o777, 0o755);
        QemuImg::new(program)
    }
    fn argv(dir: &Path) -> Vec<String> {
        let text = std::fs::read_to_string(dir.join("argv")).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn the_arguments_are_a_vector_and_no_path_is_an_option() {
        let dir = tempfile::tempdir().unwrap();
        let q = mock(dir.path(), "");
        q.create_overlay(
            Path::new("/l/-o x;y.qcow2"),
            Path::new("/i/disk.qcow2"),
            DiskFormat::Qcow2,
        )
        .unwrap();
        assert_eq!(
            argv(dir.path()),
            [
                "C",
                "create",
                "-q",
                "-f",
                "qcow2",
                "-F",
                "qcow2",
                "-b",
                "/i/disk.qcow2",
                "--",
                "/l/-o x;y.qcow2"
            ]
        );
        q.create(Path::new("/l/a:b"), DiskFormat::Raw, Size::mib(64)).unwrap();
        assert_eq!(
            argv(dir.path()),
            ["C", "create", "-q", "-f", "raw", "--", "/l/a:b", "67108864"]
        );
        let never = AtomicBool::new(false);
        q.convert(
            (Path::new("/a"), DiskFormat::Raw),
            (Path::new("/b"), DiskFormat::Qcow2),
            &never,
        )
        .unwrap();
        assert_eq!(
            argv(dir.path()),
            ["C", "convert", "-f", "raw", "-O", "qcow2", "--", "/a", "/b"]
        );
    }

    #[test]
    fn a_relative_path_is_made_whole() {
        let dir = tempfile::tempdir().unwrap();
        let q = mock(dir.path(), "");
        q.create(Path::new("nbd:x"), DiskFormat::Raw, Size::mib(1)).unwrap();
        let last = argv(dir.path());
        assert!(last[6].starts_with('/') && last[6].ends_with("/nbd:x"), "{last:?}");
    }

    #[test]
    fn its_failure_is_told_in_its_own_words() {
        let dir = tempfile::tempdir().unwrap();
        let q = mock(dir.path(), "echo 'qemu-img: /d: No space left on device' >&2; exit 1");
        let e = q.create(Path::new("/d"), DiskFormat::Qcow2, Size::mib(1)).unwrap_err();
        assert_eq!(e.exit_code(), 5);
        assert!(e.to_string().contains("No space left on device"), "{e}");
        assert!(e.problem().unwrap().remedy.is_some());
    }

    #[test]
    fn garbage_truncation_and_silence_are_errors() {
        for answer in [
            "echo '{\"format\": \"qcow2\", \"virtual-'",
            "echo hello",
            "true",
            "echo '[1]'",
            "printf '\\000\\377'",
        ] {
            let dir = tempfile::tempdir().unwrap();
            let q = mock(dir.path(), answer);
            let e = q.info(Path::new("/d")).unwrap_err();
            assert!(e.to_string().contains("no JSON as expected"), "{answer}: {e}");
        }
    }

    #[test]
    fn a_hang_ends_at_the_deadline_or_with_the_person() {
        let dir = tempfile::tempdir().unwrap();
        let q = mock(dir.path(), "sleep 300").within(Duration::from_millis(200));
        let e = q.info(Path::new("/d")).unwrap_err();
        assert!(e.to_string().contains("time ran out"), "{e}");
        let cancel = AtomicBool::new(false);
        cancel.store(true, Ordering::Relaxed);
        let e = q
            .convert(
                (Path::new("/a"), DiskFormat::Raw),
                (Path::new("/b"), DiskFormat::Raw),
                &cancel,
            )
            .unwrap_err();
        assert!(matches!(e, Error::Interrupted));
    }

    #[test]
    fn a_corrupt_disk_is_an_answer_of_check() {
        let dir = tempfile::tempdir().unwrap();
        let q = mock(
            dir.path(),
            "echo '{\"corruptions\": 2, \"leaks\": 1, \"check-errors\": 0, \"new\": 1}'; exit 2",
        );
        let found = q.check(Path::new("/d")).unwrap();
        assert_eq!((found.corruptions, found.leaks), (2, 1));
        let q = mock(dir.path(), "exit 1");
        assert!(q.check(Path::new("/d")).is_err());
    }

    #[test]
    fn a_missing_program_is_the_hosts_problem() {
        let e = QemuImg::new("/nonexistent/qemu-img").info(Path::new("/d")).unwrap_err();
        assert_eq!(e.exit_code(), 4);
    }

    #[test]
    fn the_real_one_understands_us() {
        let dir = tempfile::tempdir().unwrap();
        let (base, top, flat) = (
            dir.path().join("a:b.qcow2"),
            dir.path().join("-top"),
            dir.path().join("flat"),
        );
        let q = QemuImg::default();
        q.create(&base, DiskFormat::Qcow2, Size::mib(8)).unwrap();
        q.create_overlay(&top, &base, DiskFormat::Qcow2).unwrap();
        let info = q.info(&top).unwrap();
        assert_eq!((info.format.as_str(), info.virtual_size), ("qcow2", 8 << 20));
        assert_eq!(info.full_backing_filename.as_deref(), Some(base.as_path()));
        assert_eq!(q.check(&top).unwrap(), Check::default());
        let never = AtomicBool::new(false);
        q.convert((&top, DiskFormat::Qcow2), (&flat, DiskFormat::Raw), &never)
            .unwrap();
        assert_eq!(q.info(&flat).unwrap().format, "raw");
        let e = q.info(&dir.path().join("nothing")).unwrap_err();
        assert!(e.to_string().contains("No such file"), "{e}");
    }
}
