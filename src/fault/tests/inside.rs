//! What is done inside a machine, on a machine that has a clock, units, disks and files.

use super::*;
use std::collections::BTreeSet;

/// A guest's system, as far as faults touch it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct System {
    /// Its clock against the host's.
    offset_us: i64,
    /// How often a strobe was looked at; each look finds the clock at the other end.
    strobe: Option<(i64, bool)>,
    units: BTreeMap<String, &'static str>,
    files: BTreeMap<String, Vec<u8>>,
    owner: &'static str,
    /// Folders of the share that are there.
    folders: Vec<String>,
    mounts: Vec<String>,
    /// Room on its disks.
    free: u64,
    disk_ok: bool,
    disk_listed: bool,
    available: u64,
    uptime: (f64, f64),
    busy: bool,
    /// Files that the next power cut would take back.
    unsynced: BTreeSet<String>,
    pub(super) console: Option<std::path::PathBuf>,
    /// What it is asked to do is done in words only.
    deaf: bool,
    /// The program that fails, whatever it is asked.
    broken: Option<&'static str>,
}

/// What keeps a unit from starting.
fn mask(unit: &str) -> String {
    format!("/etc/systemd/system/{unit}.d/failoverlab-mask.conf")
}

/// Room that no file can have.
const OWN: u64 = 3 << 20;
const FOLDER: &str = "/data/ccrd/E00";

impl Default for System {
    fn default() -> Self {
        let log = |n: u8| (format!("{FOLDER}/E00000000{n:02X}.log"), vec![n; 9000]);
        let mut files: BTreeMap<String, Vec<u8>> = (1..6).map(log).collect();
        files.insert(format!("{FOLDER}/E00.chk"), b"{\"schema\":1}".to_vec());
        files.insert("/data/ccrd/cluster.json".into(), Vec::new());
        Self {
            offset_us: 3_000_000,
            strobe: None,
            units: [
                ("ccrd.service", "active"),
                ("witness-share.service", "active"),
                ("off.service", "inactive"),
            ]
            .map(|(u, s)| (u.to_owned(), s))
            .into(),
            files,
            owner: "790:790",
            folders: vec!["/srv/witness".into()],
            mounts: vec!["/".into(), "/data".into()],
            free: 64 << 20,
            disk_ok: true,
            disk_listed: true,
            available: 200 << 20,
            uptime: (10.0, 5.0),
            busy: false,
            unsynced: BTreeSet::new(),
            console: None,
            deaf: false,
            broken: None,
        }
    }
}

impl System {
    /// What a restart of the machine brings back by itself.
    pub(super) fn restarted(&mut self) {
        (self.disk_ok, self.disk_listed) = (true, true);
    }

    pub(super) fn exec(&mut self, argv: &[&str], stdin: &[u8]) -> Output {
        if self.broken == argv.first().copied() {
            return ended(5, "it is broken");
        }
        match argv {
            ["cp" | "truncate", .., path] => drop(self.unsynced.insert((*path).to_owned())),
            ["sync", "--", paths @ ..] => self.unsynced.retain(|at| !paths.contains(&at.as_str())),
            ["rm", .., path] => drop(self.unsynced.remove(*path)),
            _ => {}
        }
        self.clock(argv)
            .or_else(|| self.unit(argv))
            .or_else(|| self.file(argv, stdin))
            .or_else(|| self.disk(argv, stdin))
            .unwrap_or_else(|| panic!("not expected: {argv:?}"))
    }

    fn clock(&mut self, argv: &[&str]) -> Option<Output> {
        Some(match argv {
            ["date", "+%s%N"] => {
                let since = std::time::SystemTime::now()
                    .duration_since(std::time::UNIX_EPOCH)
                    .unwrap();
                let away = match &mut self.strobe {
                    Some((step, there)) => {
                        *there = !*there;
                        if *there { *step } else { 0 }
                    }
                    None => 0,
                };
                printed(&format!(
                    "{}\n",
                    (since.as_micros() as i64 + self.offset_us + away) * 1000
                ))
            }
            ["date", "-s", by] => {
                let seconds: f64 = by.strip_suffix(" seconds").unwrap().parse().unwrap();
                self.offset_us += if self.deaf { 0 } else { (seconds * 1e6) as i64 };
                printed("")
            }
            ["cat", "/proc/meminfo"] => printed(&format!("MemFree: 1 kB\nMemAvailable: {} kB\n", self.available >> 10)),
            ["cat", "/proc/uptime"] => {
                self.uptime.0 += 0.5;
                self.uptime.1 += if self.busy { 0.0 } else { 0.5 };
                printed(&format!("{:.2} {:.2}\n", self.uptime.0, self.uptime.1))
            }
            _ => return None,
        })
    }

    fn unit(&mut self, argv: &[&str]) -> Option<Output> {
        match argv {
            ["systemctl", "show", "--property=ActiveState", "--value", "--", unit] => {
                return Some(printed(&format!("{}\n", self.units.get(*unit).unwrap_or(&"inactive"))));
            }
            ["systemctl", "stop", "--", unit] if !self.deaf => {
                (self.strobe, self.busy) = (None, false);
                // A unit that was made for the occasion is forgotten.
                if unit.starts_with("failoverlab") {
                    self.units.remove(*unit);
                } else {
                    self.units.insert((*unit).to_owned(), "inactive");
                }
            }
            ["systemctl", "start", "--", unit] if self.files.contains_key(&mask(unit)) => {
                return Some(ended(1, "Assertion failed on job"));
            }
            ["systemctl", "daemon-reload"] => {}
            ["systemctl", "start", "--", unit] => drop(self.units.insert((*unit).to_owned(), "active")),
            ["systemd-run", .., "echo c >/proc/sysrq-trigger"] if !self.deaf => {
                let mut console = std::fs::File::options()
                    .append(true)
                    .open(self.console.as_ref().unwrap())
                    .unwrap();
                std::io::Write::write_all(&mut console, b"sysrq: c\nKernel panic - not syncing: sysrq\n").unwrap();
            }
            ["systemd-run", "--collect", unit, "sh", "-c", _, "strobe", there, ..] => {
                let there: f64 = there.strip_suffix(" seconds").unwrap().parse().unwrap();
                self.strobe = (!self.deaf).then_some(((there * 1e6) as i64, false));
                self.begun(unit);
            }
            ["systemd-run", "--collect", unit, "--property=CPUWeight=1000", ..] => {
                self.busy = !self.deaf;
                self.begun(unit);
            }
            ["systemctl", "stop", ..] | ["systemd-run", ..] => {}
            _ => return None,
        }
        Some(printed(""))
    }

    fn begun(&mut self, unit: &str) {
        let unit = unit.strip_prefix("--unit=").unwrap();
        self.units.insert(format!("{unit}.service"), "active");
    }

    fn file(&mut self, argv: &[&str], stdin: &[u8]) -> Option<Output> {
        let deaf = self.deaf;
        match argv {
            ["find", folder, "-type", "f", "-path", pattern, "-printf", _] => {
                // Enough of a pattern for these files: what ends alike.
                let end = pattern.rsplit('?').next().unwrap();
                let end = if end == *pattern {
                    pattern.rsplit('/').next().unwrap().rsplit(']').next().unwrap()
                } else {
                    end
                };
                let open = pattern.contains('?');
                let is =
                    |p: &&String| p.starts_with(folder) && p.ends_with(end) && (!open || p.len() > FOLDER.len() + 10);
                let lines = self
                    .files
                    .keys()
                    .filter(is)
                    .map(|p| format!("{} {p}\n", self.files[p].len()));
                return Some(printed(&lines.collect::<String>()));
            }
            ["sha256sum", "--", path] => {
                return Some(printed(
                    &format!("{:x?}  {path}\n", self.files[*path]).replace(", ", ""),
                ));
            }
            ["test", "-e", path] => {
                let there = match path.starts_with("/sys/block/") {
                    true => self.disk_listed,
                    false => self.files.contains_key(*path) || self.folders.iter().any(|f| f == path),
                };
                return Some(ended(i32::from(!there), ""));
            }
            ["dd", from, "bs=1", skip, "count=1", "status=none"] => {
                let at: usize = skip.strip_prefix("skip=").unwrap().parse().unwrap();
                let byte = self.files[from.strip_prefix("if=").unwrap()][at];
                return Some(Output {
                    stdout: vec![byte],
                    ..printed("")
                });
            }
            ["dd", to, "bs=1", seek, "count=1", ..] if !deaf => {
                let at: usize = seek.strip_prefix("seek=").unwrap().parse().unwrap();
                self.files.get_mut(to.strip_prefix("of=").unwrap()).unwrap()[at] = stdin[0];
            }
            ["dd", "if=/dev/zero", to, "bs=1", seek, count, ..] if !deaf => {
                let at: usize = seek.strip_prefix("seek=").unwrap().parse().unwrap();
                let n: usize = count.strip_prefix("count=").unwrap().parse().unwrap();
                self.files.get_mut(to.strip_prefix("of=").unwrap()).unwrap()[at..at + n].fill(0);
            }
            ["truncate", "-s", size, "--", path] if !deaf => {
                self.files.get_mut(*path).unwrap().truncate(size.parse().unwrap());
            }
            ["cp", options @ .., from, to] if !deaf || options.contains(&"-p") => {
                let content = self.files[*from].clone();
                self.files.insert((*to).to_owned(), content);
            }
            ["rm", "--", path] if !deaf => drop(self.files.remove(*path)),
            ["tee", "--", path] if !deaf => drop(self.files.insert((*path).to_owned(), stdin.to_vec())),
            ["tee", "--", _] => {}
            ["rm", "-f", "--", path] if path.starts_with("/etc") => drop(self.files.remove(*path)),
            ["rm", "-f", "--", path] => {
                if let Some(filled) = self.files.remove(*path) {
                    self.free += if path.ends_with(".fill") || !path.starts_with("/var") {
                        filled.len() as u64
                    } else {
                        0
                    };
                }
            }
            ["dd", to, ..] | ["dd", _, to, ..] if to.starts_with("of=/data/ccrd") => {}
            ["truncate", ..] | ["cp", ..] | ["rm", "--", ..] | ["sync", ..] => {}
            _ => return None,
        }
        Some(printed(""))
    }

    fn disk(&mut self, argv: &[&str], stdin: &[u8]) -> Option<Output> {
        let deaf = self.deaf;
        match argv {
            ["mountpoint", "-q", "--", at] => {
                return Some(ended(i32::from(!self.mounts.iter().any(|m| m == at)) * 32, ""));
            }
            ["stat", "-f", ..] => return Some(printed(&format!("4096 {}\n", self.free >> 12))),
            ["stat", "-c", "%u:%g", "--", _] => return Some(printed(self.owner)),
            ["fallocate", "-o", from, "-l", size, "--", file] if !deaf => {
                let (from, size): (usize, usize) = (from.parse().unwrap(), size.parse().unwrap());
                // A part of the free room is the file system's own.
                if size as u64 + OWN > self.free {
                    return Some(ended(1, "fallocate failed"));
                }
                self.free -= size as u64;
                self.files.insert((*file).to_owned(), vec![0; from + size]);
            }
            ["dd", "if=/dev/zero", to, "bs=4096", ..] if !deaf => {
                let rest = vec![0; (self.free - OWN) as usize];
                self.files
                    .get_mut(to.strip_prefix("of=").unwrap())
                    .unwrap()
                    .extend(rest);
                self.free = OWN;
                return Some(ended(1, "dd: No space left on device"));
            }
            ["dd", "if=/dev/zero", _, "bs=4096", ..] => {}
            ["dd", "if=/dev/zero", to, "bs=1M", count, ..] if to.starts_with("of=/run") => {
                let mib: u64 = count.strip_prefix("count=").unwrap().parse().unwrap();
                self.available -= if deaf { 0 } else { mib << 20 };
            }
            ["mount", "-o", "remount,abort", "--", _] => self.disk_ok = deaf,
            ["touch", "--", _] => return Some(ended(i32::from(!self.disk_ok), "Read-only file system")),
            ["readlink", "-e", "--", link] if link.starts_with("/dev") => return Some(printed("/dev/vdb\n")),
            ["readlink", "-e", "--", _] => return Some(printed("/sys/devices/pci0/virtio4\n")),
            ["tee", "/sys/bus/virtio/drivers/virtio_blk/unbind"] => {
                assert_eq!(stdin, b"virtio4");
                self.disk_listed = deaf;
            }
            ["mount", "--bind", .., at] | ["mount", "-t", "tmpfs", .., at] if !deaf => {
                self.mounts.push((*at).to_owned());
            }
            ["umount", .., at] => {
                self.mounts.retain(|m| m != at);
                self.available = 200 << 20;
            }
            ["chown", "--", owner, _] if !deaf => self.owner = if *owner == "0:0" { "0:0" } else { "790:790" },
            ["mv", "-T", "--", from, to] if !deaf => {
                self.folders.retain(|f| f != from);
                self.folders.push((*to).to_owned());
            }
            ["mkdir", "--", folder] => self.folders.push((*folder).to_owned()),
            ["rm", .., folder] | ["rmdir", "--", folder] if self.folders.iter().any(|f| f == folder) => {
                self.folders.retain(|f| f != folder);
            }
            ["fallocate" | "mount" | "chown" | "mv" | "mkdir", ..] | ["rm", "-rf", ..] => {}
            _ => return None,
        }
        Some(printed(""))
    }
}

fn ended(status: i32, complaint: &str) -> Output {
    Output {
        status,
        stdout: Vec::new(),
        stderr: complaint.as_bytes().to_vec(),
    }
}

fn printed(text: &str) -> Output {
    Output {
        stdout: text.as_bytes().to_vec(),
        ..ended(0, "")
    }
}

/// Every kind, where it can hit, with the program that undoes it.
const ALL: [(&str, &str, &[&str], &str); 20] = [
    ("clock", "node1", &["step=1 h"], "date"),
    ("clock", "node1", &["step=-20 min", "strobe=200 ms"], "systemctl"),
    ("stop-unit", "node1", &["unit=ccrd.service"], "systemctl"),
    ("mask-unit", "node1", &["unit=ccrd.service"], "rm"),
    ("disk-full", "node1", &[], "rm"),
    ("disk-full", "hub", &["disk=root"], "rm"),
    ("disk-read-only", "node1", &["disk=data"], ""),
    ("disk-gone", "node1", &[], ""),
    ("damage-file", "node1", &["file=log", "how=flip"], "cp"),
    (
        "damage-file",
        "node1",
        &["file=log", "how=truncate", "which=last"],
        "cp",
    ),
    ("damage-file", "node1", &["file=log", "how=zero", "which=first"], "cp"),
    ("damage-file", "node1", &["file=log", "how=delete"], "cp"),
    ("damage-file", "node1", &["file=log", "how=old-copy"], "cp"),
    ("damage-file", "node1", &["file=chk", "how=flip"], "cp"),
    ("witness-share", "hub", &["how=stopped"], "systemctl"),
    ("witness-share", "hub", &["how=read-only"], "umount"),
    ("witness-share", "hub", &["how=wrong-rights"], "chown"),
    ("witness-share", "hub", &["how=gone"], "mv"),
    ("cpu-starve", "node1", &[], "systemctl"),
    ("memory-pressure", "node1", &["leave=16 MiB"], "umount"),
];

fn system(bench: &Bench) -> System {
    let mut system = bench.inside.lock().unwrap().system.clone();
    // A clock is put back as near as a look can tell.
    system.offset_us = (system.offset_us + 500_000) / 1_000_000;
    system.uptime = (0.0, 0.0);
    system
}

fn set(bench: &Bench, change: impl FnOnce(&mut System)) {
    change(&mut bench.inside.lock().unwrap().system);
}

#[test]
fn each_is_proven_and_undone_once() {
    for (kind, on, arguments, _) in ALL {
        let bench = Bench::new();
        let before = system(&bench);
        let mut record = bench.inject(kind, Some(on), arguments).unwrap();
        assert_eq!(record.effective, Some(true), "{kind} {arguments:?}: {}", record.proof);
        assert!(system(&bench) != before, "{kind} {arguments:?}");
        assert!(record.end_us.is_none() && !record.pending);
        undo(&bench, &mut record).unwrap();
        assert!(system(&bench) == before, "{kind} {arguments:?}: {}", record.proof);
        bench.undo(&mut record);
        assert!(system(&bench) == before, "{kind} {arguments:?}");
    }
}

#[test]
fn what_has_no_effect_is_not_proven() {
    for (kind, on, arguments, _) in ALL {
        let mut bench = Bench::new();
        // Who waits for an effect that does not come does not wait long.
        bench.times = 0.002;
        set(&bench, |s| s.deaf = true);
        let record = bench.inject(kind, Some(on), arguments).unwrap();
        assert_eq!(record.effective, Some(false), "{kind} {arguments:?}: {}", record.proof);
    }
}

#[test]
fn an_undo_that_fails_leaves_the_fault_on_record() {
    for (kind, on, arguments, program) in ALL.into_iter().filter(|(.., program)| !program.is_empty()) {
        let bench = Bench::new();
        let mut record = bench.inject(kind, Some(on), arguments).unwrap();
        set(&bench, |s| s.broken = Some(program));
        let e = undo(&bench, &mut record).unwrap_err();
        assert!(e.to_string().contains("it is broken"), "{kind} {arguments:?}: {e}");
        assert_eq!(record.end_us, None, "{kind}");
        set(&bench, |s| s.broken = None);
        undo(&bench, &mut record).unwrap();
    }
}

#[test]
fn what_fails_on_its_way_is_taken_back() {
    for (kind, on, arguments, program) in [
        ("disk-full", "node1", &[][..], "dd"),
        ("damage-file", "node1", &["file=log", "how=flip"], "dd"),
        ("damage-file", "node1", &["file=log", "how=truncate"], "truncate"),
        ("memory-pressure", "node1", &[], "dd"),
    ] {
        let bench = Bench::new();
        let before = system(&bench);
        set(&bench, |s| s.broken = Some(program));
        let made = bench.inject(kind, Some(on), arguments);
        set(&bench, |s| s.broken = None);
        // That the last write of a full disk fails is the point of it.
        if let Ok(mut record) = made {
            assert_eq!((kind, record.effective), ("disk-full", Some(false)));
            undo(&bench, &mut record).unwrap();
        }
        assert!(system(&bench) == before, "{kind} {arguments:?}");
    }
}

#[test]
fn a_file_that_the_runtime_has_mended_is_its_own() {
    let bench = Bench::new();
    let mut record = bench
        .inject("damage-file", Some("node1"), &["file=log", "how=delete"])
        .unwrap();
    let path = record.proof["file"].as_str().unwrap().to_owned();
    assert_eq!(path, format!("{FOLDER}/E0000000003.log"), "the one in the middle");
    set(&bench, |s| {
        drop(s.files.insert(path.clone(), b"fetched again".to_vec()))
    });
    undo(&bench, &mut record).unwrap();
    let left = bench.inside.lock().unwrap().system.files.clone();
    assert_eq!(left[&path], b"fetched again");
    assert!(!left.keys().any(|p| p.starts_with("/var/tmp")), "what was kept is gone");
}

#[test]
fn a_machine_that_panicked_is_started_again() {
    let bench = Bench::new();
    let pid = |b: &Bench| b.hypervisor.domain("node1").unwrap().pid;
    let before = pid(&bench);
    let mut record = bench.inject("panic", Some("node1"), &[]).unwrap();
    assert_eq!(record.effective, Some(true));
    assert_eq!(record.proof["console"], json!("Kernel panic - not syncing: sysrq"));
    bench.silent.store(true, Relaxed);
    bench.undo(&mut record);
    assert_ne!(pid(&bench), before);
    bench.silent.store(false, Relaxed);
    // One that another fault has started again is left alone.
    let mut record = bench.inject("panic", Some("node1"), &[]).unwrap();
    assert_eq!(record.effective, Some(true));
    let mut off = bench.inject("power-off", Some("node1"), &[]).unwrap();
    undo(&bench, &mut off).unwrap();
    let restarted = pid(&bench);
    undo(&bench, &mut record).unwrap();
    assert_eq!(pid(&bench), restarted);
    // A kernel that goes on disproves it.
    let mut deaf = Bench::new();
    deaf.times = 0.002;
    set(&deaf, |s| s.deaf = true);
    assert_eq!(deaf.inject("panic", Some("node1"), &[]).unwrap().effective, Some(false));
}

#[test]
fn a_reset_machine_is_another_process_at_once() {
    let bench = Bench::new();
    let before = bench.hypervisor.domain("node1").unwrap().pid;
    let mut record = bench.inject("reset", Some("node1"), &[]).unwrap();
    assert_eq!((record.effective, record.end_us.is_some()), (Some(true), true));
    assert_eq!(record.proof["pid"], json!(before));
    let after = bench.hypervisor.domain("node1").unwrap().pid;
    assert_ne!(before, after);
    undo(&bench, &mut record).unwrap();
    assert_eq!(
        bench.hypervisor.domain("node1").unwrap().pid,
        after,
        "there is nothing to take back"
    );
    // Cut short between the two, it is off: its pending record starts it.
    let mut pending = bench.ask("reset", Some("node1"), &[]).unwrap().record(7, 0);
    pending.proof = json!({ "pid": after });
    bench.hypervisor.destroy("node1").unwrap();
    undo(&bench, &mut pending).unwrap();
    assert_eq!(bench.state("node1"), Some(DomainState::Running));
}

#[test]
fn nothing_is_done_where_it_makes_no_sense() {
    let bench = Bench::new();
    let before = system(&bench);
    for (kind, on, arguments, seen) in [
        ("stop-unit", "node1", &["unit=off.service"][..], "it is inactive"),
        ("stop-unit", "node1", &["unit=ccrd"], "with its ending"),
        ("stop-unit", "node1", &["unit=--now.service"], "no name of a unit"),
        ("stop-unit", "node1", &["unit=a b.service"], "no name of a unit"),
        ("stop-unit", "node1", &[], "`unit` is missing"),
        ("mask-unit", "node1", &["unit=off.service"], "it is inactive"),
        ("mask-unit", "node1", &["unit=../x.service"], "no name of a unit"),
        ("clock", "node1", &[], "`step` is missing"),
        ("clock", "node1", &["step=soon"], "no time"),
        ("clock", "node1", &["step=--1 h"], "no time"),
        ("clock", "node1", &["step=2 ms"], "from 1 s to 31 d"),
        ("clock", "node1", &["step=-400 d"], "from 1 s to 31 d"),
        ("clock", "node1", &["step=1 h", "strobe=1 us"], "from 50 ms"),
        ("disk-full", "node1", &["disk=quorum"], "it has data, root"),
        ("disk-full", "node1", &["disk=../etc"], "no disk `../etc`"),
        ("disk-gone", "node1", &["disk=root"], "it has data"),
        ("disk-gone", "hub", &[], "none of its own"),
        ("damage-file", "node1", &["file=log"], "`how` is missing"),
        ("damage-file", "node1", &["file=log", "how=eat"], "flip (one byte)"),
        ("damage-file", "node1", &["file=../log", "how=flip"], "no kind of file"),
        (
            "damage-file",
            "node1",
            &["file=mail", "how=flip"],
            "it has chk, hub, log",
        ),
        (
            "damage-file",
            "node1",
            &["file=segment", "how=flip"],
            "no such file now",
        ),
        ("damage-file", "node1", &["file=chk", "how=old-copy"], "none before it"),
        ("damage-file", "node1", &["file=record", "how=zero"], "it is empty"),
        ("witness-share", "node1", &["how=gone"], "it is on hub"),
        ("witness-share", "hub", &["how=slow"], "stopped, read-only"),
        ("memory-pressure", "node1", &["leave=1 B"], "4 MiB or more"),
        ("memory-pressure", "node1", &["leave=1 GiB"], "left already"),
    ] {
        let e = bench.inject(kind, Some(on), arguments).unwrap_err();
        let p = e.problem().unwrap();
        let text = format!("{p} {}", p.remedy.clone().unwrap_or_default());
        assert!(text.contains(seen), "{kind} {arguments:?}: {text}");
        assert_eq!(e.exit_code(), 2, "{kind} {arguments:?}");
    }
    assert!(system(&bench) == before);
    assert!(bench.on_record.lock().unwrap().is_empty());
}

#[test]
fn what_outlives_a_restart_is_undone_in_the_machine_that_came_back() {
    let mut bench = Bench::new();
    let mut full = bench.inject("disk-full", Some("node1"), &[]).unwrap();
    let mut stopped = bench
        .inject("stop-unit", Some("node1"), &["unit=ccrd.service"])
        .unwrap();
    bench.silent.store(true, Relaxed);
    bench.times = 0.001;
    // A unit is there again after a restart; the file is not gone before somebody removes it.
    undo(&bench, &mut stopped).unwrap();
    let e = undo(&bench, &mut full).unwrap_err();
    assert!(e.to_string().contains("reach"), "{e}");
    assert_eq!(full.end_us, None);
    bench.silent.store(false, Relaxed);
    undo(&bench, &mut full).unwrap();
    assert_eq!(bench.inside.lock().unwrap().system.free, 64 << 20);
}
