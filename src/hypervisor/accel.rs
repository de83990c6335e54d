//! Which acceleration works here, and how fast the machine is: found by booting, never by looking at a device file.
//!
//! The image's own kernel is booted without a root disk until it panics. On some hosts `/dev/kvm` opens and a guest still
//! hangs after the firmware, or QEMU aborts; a boot sector would not notice.

use super::{Accel, CableKind};
use crate::error::{Error, IoContext, Problem, Result};
use crate::image::Image;
use crate::image::run::{end_group, find_program, for_each_line, missing};
use crate::private;
use crate::process::Stat;
use crate::wait::{Deadline, Slowness};
use serde::{Deserialize, Serialize};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

const QEMU: &str = "qemu-system-x86_64";
/// The kernel's last line but a few, where init could not mount the root disk and ended.
const PANIC: &str = "Kernel panic - not syncing";

/// Processor seconds that QEMU needs under TCG until the panic of the image `debian-12` (Linux 6.1) on the machine that the
/// labs' limits were written for: 2 cores at 2.3 GHz, Debian 12, QEMU 7.2; nine runs gave 2.2 to 2.6. Processor time, because
/// what else runs at this moment must not be remembered as the machine's speed.
const REFERENCE: Duration = Duration::from_millis(2400);

/// How long a guest may print nothing, and how long it may take in all.
#[derive(Debug, Clone, Copy)]
struct Patience {
    silent: Duration,
    whole: Duration,
}

/// A kernel that runs under KVM prints within a tenth of a second and has panicked within one.
const KVM: Patience = Patience {
    silent: Duration::from_secs(4),
    whole: Duration::from_secs(10),
};
const TCG: Patience = Patience {
    silent: Duration::from_secs(60),
    whole: Duration::from_secs(120),
};

/// What the probe found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AccelVerdict {
    /// What machines shall use.
    pub accel: Accel,
    /// How slow the machine is with it.
    pub slowness: Slowness,
    /// What the cables of its lab networks are made of.
    pub cables: CableKind,
    /// Why, for people: `KVM: a guest booted in 0.7 s`, `TCG, since under KVM …`.
    pub detail: String,
}

/// What one boot came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "result")]
pub enum Boot {
    /// The kernel ran to its panic.
    Booted {
        /// Milliseconds of the clock.
        wall_ms: u64,
        /// Milliseconds of processor time.
        cpu_ms: u64,
    },
    /// It did not.
    Failed {
        /// What was observed instead.
        #[serde(rename = "seen")]
        observed: String,
    },
}

/// The file that remembers the boots on this host, until it or QEMU changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Remembered {
    /// Boot id of the host, version of QEMU, release of the host's kernel.
    pub host: [String; 3],
    /// The boot under KVM.
    pub kvm: Option<Boot>,
    /// The boot under TCG.
    pub tcg: Option<Boot>,
    /// The cables that this QEMU has.
    #[serde(default)]
    pub cables: Option<CableKind>,
}

impl Remembered {
    /// Version of QEMU.
    pub fn qemu(&self) -> &str {
        &self.host[1]
    }

    /// What machines would use, and how slow the host is with it, where enough was probed to know.
    pub fn runs(&self) -> Option<(Accel, CableKind, Slowness)> {
        let (accel, cpu_ms) = match (&self.kvm, &self.tcg) {
            (Some(Boot::Booted { cpu_ms, .. }), _) => (Accel::Kvm, *cpu_ms),
            (_, Some(Boot::Booted { cpu_ms, .. })) => (Accel::Tcg, *cpu_ms),
            _ => return None,
        };
        Some((accel, self.cables?, slowness(cpu_ms)))
    }

    /// What `cache` remembers of this host as it is now. Nothing where the file is of another host, absent or damaged.
    pub fn read(cache: &Path, host: &[String; 3]) -> Self {
        std::fs::read(cache)
            .ok()
            .and_then(|bytes| serde_json::from_slice::<Self>(&bytes).ok())
            .filter(|r| r.host == *host)
            .unwrap_or_else(|| Self {
                host: host.clone(),
                kvm: None,
                tcg: None,
                cables: None,
            })
    }

    fn write(&self, cache: &Path) -> Result<()> {
        let what = "remember the acceleration";
        let dir = cache.parent().unwrap_or(Path::new("."));
        let bytes = serde_json::to_vec(self).expect("boots are plain data");
        fs_err::create_dir_all(dir).tried(what, cache.display())?;
        private::replace_unsynced(cache, &bytes).tried(what, cache.display())
    }
}

/// Probes, or remembers what was probed since this host's boot; `cache` is [`crate::files::Home::accel`].
///
/// # Errors
/// [`Error::Host`] where `force` names an acceleration that does not work, or nothing works.
pub fn probe(image: &Image, cache: &Path, force: Option<Accel>) -> Result<AccelVerdict> {
    Prober::new(QEMU, "/dev/kvm")?.probe(image, cache, force)
}

/// What is remembered of this host, for `doctor`, which boots nothing.
pub fn remembered(cache: &Path) -> Option<Remembered> {
    let host = Prober::new(QEMU, "/dev/kvm").ok()?.host().ok()?;
    Some(Remembered::read(cache, &host))
}

/// Probes with a QEMU and a device that tests can choose.
#[derive(Debug)]
struct Prober {
    qemu: PathBuf,
    device: PathBuf,
    kvm: Patience,
    tcg: Patience,
}

impl Prober {
    fn new(qemu: impl AsRef<Path>, device: impl Into<PathBuf>) -> Result<Self> {
        let qemu = qemu.as_ref();
        Ok(Self {
            qemu: find_program(qemu).ok_or_else(|| missing("run virtual machines", qemu, "qemu-system-x86"))?,
            device: device.into(),
            kvm: KVM,
            tcg: TCG,
        })
    }

    fn probe(&self, image: &Image, cache: &Path, force: Option<Accel>) -> Result<AccelVerdict> {
        let mut known = Remembered::read(cache, &self.host()?);
        let before = known.clone();
        let verdict = self.decide(image, &mut known, force);
        if known != before {
            known.write(cache)?;
        }
        verdict
    }

    fn decide(&self, image: &Image, known: &mut Remembered, force: Option<Accel>) -> Result<AccelVerdict> {
        let what = "run machines with KVM";
        let cables = match known.cables {
            Some(cables) => cables,
            None => *known.cables.insert(self.cables()?),
        };
        let verdict = |accel, boot, why: &str| verdict(accel, cables, boot, why);
        let kvm = match force {
            Some(Accel::Tcg) => Err("it was asked for".to_owned()),
            _ => self.kvm(image, &mut known.kvm, force.is_some()),
        };
        let why = match kvm {
            Ok(boot) => return Ok(verdict(Accel::Kvm, boot, "a guest booted")),
            Err(observed) if force == Some(Accel::Kvm) => {
                let remedy = "use `--accel tcg` or `auto`; if KVM should work, see `failoverlab doctor`";
                return Err(Error::Host(
                    Problem::new(what)
                        .on(self.device.display())
                        .observed(observed)
                        .remedy(remedy),
                ));
            }
            Err(why) => why,
        };
        let boot = match &known.tcg {
            Some(boot @ Boot::Booted { .. }) => boot.clone(),
            _ => self.boot(image, Accel::Tcg, self.tcg)?,
        };
        known.tcg = Some(boot.clone());
        match boot {
            Boot::Booted { wall_ms, cpu_ms } => Ok(verdict(Accel::Tcg, (wall_ms, cpu_ms), &format!("since {why}; a guest booted"))),
            Boot::Failed { observed } => Err(Error::Host(
                Problem::new("boot a machine with either KVM or emulation")
                    .on(&image.name)
                    .observed(format!("KVM: {why}. Emulation: {observed}"))
                    .remedy("see `failoverlab doctor`; if it finds nothing, build the image again: `failoverlab image rm`, `image build`"),
            )),
        }
    }

    /// Wall and processor milliseconds of a boot under KVM, or why there is none. `again`: do not believe an old failure.
    fn kvm(&self, image: &Image, known: &mut Option<Boot>, again: bool) -> Result<(u64, u64), String> {
        // The device may have come or become ours since: this look costs nothing and is never remembered.
        if let Err(e) = std::fs::File::options().read(true).write(true).open(&self.device) {
            let device = self.device.display();
            return Err(match e.kind() {
                std::io::ErrorKind::NotFound => format!("there is no {device}"),
                std::io::ErrorKind::PermissionDenied => {
                    format!("{device} is not yours to open: `sudo adduser $USER kvm`, log in again")
                }
                _ => format!("{device} does not open: {e}"),
            });
        }
        let boot = match known.take() {
            Some(boot @ Boot::Booted { .. }) => boot,
            Some(boot) if !again => boot,
            _ => self.boot(image, Accel::Kvm, self.kvm).map_err(|e| e.to_string())?,
        };
        *known = Some(boot.clone());
        match boot {
            Boot::Booted { wall_ms, cpu_ms } => Ok((wall_ms, cpu_ms)),
            Boot::Failed { observed } => Err(format!(
                "{} opens but no guest boots with it: {observed}",
                self.device.display()
            )),
        }
    }

    /// Boots the image's kernel without a root disk until it panics.
    fn boot(&self, image: &Image, accel: Accel, patience: Patience) -> Result<Boot> {
        // It dies with us, whatever becomes of us: a guest that hangs would stay for ever.
        let setpriv = find_program("setpriv")
            .ok_or_else(|| missing("probe the acceleration", Path::new("setpriv"), "util-linux"))?;
        let mut command = Command::new(setpriv);
        command.args(["--pdeathsig", "KILL", "--"]).arg(&self.qemu);
        match accel {
            Accel::Kvm => command.args(["-accel", "kvm", "-cpu", "host"]),
            Accel::Tcg => command.args(["-accel", "tcg", "-cpu", "max"]),
        };
        // A talking kernel tells a hang from slowness; under emulation its talk would cost half a second.
        let keep = |word: &&str| !word.starts_with("root=") && (accel == Accel::Tcg || *word != "quiet");
        let words: Vec<&str> = image.cmdline.split_whitespace().filter(keep).collect();
        command.args([
            "-machine",
            "q35",
            "-smp",
            "1",
            "-m",
            "384",
            "-no-user-config",
            "-nodefaults",
            "-display",
            "none",
            "-no-reboot",
        ]);
        command
            .args(["-serial", "stdio", "-append"])
            .arg(format!("{} panic=-1", words.join(" ")));
        command
            .arg("-kernel")
            .arg(&image.kernel)
            .arg("-initrd")
            .arg(&image.initrd);
        let begin = Instant::now();
        let mut child = command
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .tried("start QEMU", self.qemu.display())?;
        let boot = watch(&mut child, begin, patience);
        end_group(&mut child);
        Ok(boot)
    }

    /// What QEMU says of its own networks: the best kind of cable that it has.
    fn cables(&self) -> Result<CableKind> {
        let out = Command::new(&self.qemu)
            .args(["-netdev", "help"])
            .stdin(Stdio::null())
            .output()
            .tried("ask QEMU for its networks", self.qemu.display())?;
        if !out.status.success() {
            let seen = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            let problem = Problem::new("ask QEMU for its networks").on(self.qemu.display());
            return Err(Error::Host(problem.observed(format!("{}: {seen}", out.status))));
        }
        let has = String::from_utf8_lossy(&out.stdout)
            .lines()
            .any(|l| l.trim() == "dgram");
        Ok(if has { CableKind::Unix } else { CableKind::Udp })
    }

    fn host(&self) -> Result<[String; 3]> {
        let what = "ask for QEMU's version";
        let out = Command::new(&self.qemu)
            .arg("--version")
            .stdin(Stdio::null())
            .output()
            .tried(what, self.qemu.display())?;
        let version = String::from_utf8_lossy(&out.stdout)
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned();
        let boot = fs_err::read_to_string("/proc/sys/kernel/random/boot_id").tried(what, "boot_id")?;
        let release = rustix::system::uname().release().to_string_lossy().into_owned();
        Ok([boot.trim().to_owned(), version, release])
    }
}

/// Reads what the guest and QEMU print until the panic, the end or the end of patience.
fn watch(child: &mut Child, begin: Instant, patience: Patience) -> Boot {
    let whole = Deadline::after(patience.whole);
    let (tell, hear) = channel();
    let complain = tell.clone();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    std::thread::spawn(move || stdout.map(|o| for_each_line(o, |l| tell.send((true, l)).is_ok())));
    std::thread::spawn(move || stderr.map(|o| for_each_line(o, |l| complain.send((false, l)).is_ok())));
    let (mut guest, mut qemu) = (String::new(), String::new());
    let last = |guest: &str, qemu: &str| {
        let said = if guest.is_empty() {
            "the guest printed nothing".to_owned()
        } else {
            format!("the guest's last line: {guest}")
        };
        if qemu.is_empty() {
            said
        } else {
            format!("{said}; QEMU: {qemu}")
        }
    };
    loop {
        match hear.recv_timeout(whole.at_most(patience.silent).left()) {
            Ok((true, line)) if line.contains(PANIC) => {
                return Boot::Booted {
                    wall_ms: begin.elapsed().as_millis() as u64,
                    cpu_ms: Stat::of(child.id()).map_or(begin.elapsed(), |s| s.cpu()).as_millis() as u64,
                };
            }
            Ok((true, line)) => guest = if line.is_empty() { guest } else { line },
            Ok((false, line)) => qemu = line,
            Err(RecvTimeoutError::Timeout) => {
                return Boot::Failed {
                    observed: format!(
                        "it hung for {:.0?}: {}",
                        patience.silent.min(begin.elapsed()),
                        last(&guest, &qemu)
                    ),
                };
            }
            Err(RecvTimeoutError::Disconnected) => {
                let status = child.wait().map_or_else(|e| e.to_string(), |s| s.to_string());
                return Boot::Failed {
                    observed: format!("QEMU ended ({status}): {}", last(&guest, &qemu)),
                };
            }
        }
    }
}

/// By the processor time that a boot took.
fn slowness(cpu_ms: u64) -> Slowness {
    Slowness::new(cpu_ms as f64 / REFERENCE.as_millis() as f64)
}

fn verdict(accel: Accel, cables: CableKind, (wall_ms, cpu_ms): (u64, u64), why: &str) -> AccelVerdict {
    let slowness = slowness(cpu_ms);
    let name = match accel {
        Accel::Kvm => "KVM",
        Accel::Tcg => "TCG",
    };
    AccelVerdict {
        accel,
        cables,
        slowness,
        detail: format!(
            "{name}: {why} in {:.1} s, {:.1} s of processor time, slowness {:.1}",
            wall_ms as f64 / 1000.0,
            cpu_ms as f64 / 1000.0,
            slowness.factor()
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::DiskFormat;

    /// A folder with a QEMU that answers `--version` and names the networks in its file `networks`, else does `then` (`$accel` is set), counts its boots, and a device.
    struct Mock(tempfile::TempDir);

    impl Mock {
        fn new(then: &str) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let script = format!(
                "#!/bin/sh\n[ \"$1\" = --version ] && {{ echo mock 1; exit; }}\n\
                 [ \"$1\" = -netdev ] && {{ cat \"$0.networks\"; exit; }}\nfor a; do case $a in kvm|tcg) accel=$a ;; esac; done\n\
                 echo \"$*\" >> {}/boots\n{then}\n",
                dir.path().display()
            );
            std::fs::write(dir.path().join("kvm"), "").unwrap();
            std::fs::write(
                dir.path().join("qemu.networks"),
                "Available netdev backend types:\nsocket\ndgram\n",
            )
            .unwrap();
            let mut writer = Command::new("sh")
                .args(["-c", "cat > \"$1\"; chmod 755 \"$1\"", "sh"])
                .arg(dir.path().join("qemu"))
                .stdin(Stdio::piped())
                .spawn()
                .unwrap();
            std::io::Write::write_all(&mut writer.stdin.take().unwrap(), script.as_bytes()).unwrap();
            assert!(writer.wait().unwrap().success());
            Self(dir)
        }
        fn probe(&self, force: Option<Accel>) -> Result<AccelVerdict> {
            let mut prober = Prober::new(self.0.path().join("qemu"), self.0.path().join("kvm")).unwrap();
            prober.kvm = Patience {
                silent: Duration::from_millis(1500),
                whole: Duration::from_secs(5),
            };
            prober.probe(&image(), &self.cache(), force)
        }
        fn cache(&self) -> PathBuf {
            self.0.path().join("cache/accel.json")
        }
        fn boots(&self) -> Vec<String> {
            let text = std::fs::read_to_string(self.0.path().join("boots")).unwrap_or_default();
            text.lines().map(str::to_owned).collect()
        }
    }

    fn image() -> Image {
        Image {
            digest: "0".repeat(64),
            name: "debian-12".parse().unwrap(),
            disk: "/i/disk".into(),
            format: DiskFormat::Qcow2,
            kernel: "/i/vmlinuz".into(),
            initrd: "/i/initrd".into(),
            cmdline: "root=/dev/vda rw console=ttyS0 quiet x=y".into(),
        }
    }

    const PANICS: &str =
        "echo 'Linux version 6.1'; echo '[ 1.0] Kernel panic - not syncing: Attempted to kill init!'; sleep 60";

    #[test]
    fn kvm_is_chosen_when_a_guest_booted_and_that_is_remembered() {
        let mock = Mock::new(PANICS);
        let found = mock.probe(None).unwrap();
        assert_eq!((found.accel, found.slowness), (Accel::Kvm, Slowness::NONE));
        assert_eq!(mock.probe(Some(Accel::Kvm)).unwrap(), found);
        let boots = mock.boots();
        assert_eq!(boots.len(), 1);
        assert!(
            boots[0].contains("-append rw console=ttyS0 x=y panic=-1 ") && !boots[0].contains("vda"),
            "{boots:?}"
        );
    }

    #[test]
    fn a_guest_that_hangs_under_kvm_means_emulation() {
        let mock = Mock::new(&format!("[ $accel = kvm ] && {{ echo SeaBIOS; sleep 60; }}\n{PANICS}"));
        let found = mock.probe(None).unwrap();
        assert_eq!(found.accel, Accel::Tcg);
        assert!(
            found.detail.contains("opens but no guest boots") && found.detail.contains("SeaBIOS"),
            "{}",
            found.detail
        );
        mock.probe(None).unwrap();
        assert_eq!(mock.boots().len(), 2, "the hang is remembered");
        let e = mock.probe(Some(Accel::Kvm)).unwrap_err();
        assert_eq!(e.exit_code(), 4);
        assert_eq!(mock.boots().len(), 3, "who forces it gets a new try");
    }

    #[test]
    fn an_abort_is_told_in_qemus_words() {
        let mock = Mock::new(&format!(
            "[ $accel = kvm ] && {{ echo 'error: failed to set MSR 0x122' >&2; kill -ABRT $$; }}\n{PANICS}"
        ));
        let e = mock.probe(Some(Accel::Kvm)).unwrap_err();
        assert!(
            e.to_string().contains("failed to set MSR 0x122") && e.to_string().contains("SIGABRT"),
            "{e}"
        );
        assert_eq!(mock.probe(None).unwrap().accel, Accel::Tcg);
    }

    #[test]
    fn a_device_that_is_not_there_is_not_probed() {
        let mock = Mock::new(PANICS);
        std::fs::remove_file(mock.0.path().join("kvm")).unwrap();
        let found = mock.probe(None).unwrap();
        assert!(
            found.accel == Accel::Tcg && found.detail.contains("there is no"),
            "{}",
            found.detail
        );
        assert_eq!(mock.boots().len(), 1);
        std::fs::write(mock.0.path().join("kvm"), "").unwrap();
        assert_eq!(mock.probe(None).unwrap().accel, Accel::Kvm, "it may come later");
    }

    #[test]
    fn cables_are_what_qemu_says_that_it_has() {
        let mock = Mock::new(PANICS);
        let networks = mock.0.path().join("qemu.networks");
        assert_eq!(mock.probe(None).unwrap().cables, CableKind::Unix);
        std::fs::write(&networks, "socket\nnodgram\n").unwrap();
        assert_eq!(
            mock.probe(None).unwrap().cables,
            CableKind::Unix,
            "asked once for each QEMU"
        );
        std::fs::remove_file(mock.cache()).unwrap();
        assert_eq!(mock.probe(None).unwrap().cables, CableKind::Udp);
        // One that does not answer has not said that it has none.
        std::fs::remove_file(mock.cache()).unwrap();
        std::fs::remove_file(&networks).unwrap();
        assert_eq!(mock.probe(None).unwrap_err().exit_code(), 4);
    }

    #[test]
    fn nothing_that_boots_is_the_hosts_problem() {
        let mock = Mock::new("echo \"$accel: no such cpu\" >&2; exit 1");
        let e = mock.probe(None).unwrap_err();
        assert_eq!(e.exit_code(), 4);
        assert!(
            e.to_string().contains("kvm: no such cpu") && e.to_string().contains("tcg: no such cpu"),
            "{e}"
        );
        assert_eq!(Prober::new("/nonexistent/qemu", "/dev/kvm").unwrap_err().exit_code(), 4);
    }

    #[test]
    fn a_damaged_or_foreign_memory_is_forgotten() {
        let mock = Mock::new(PANICS);
        std::fs::create_dir_all(mock.cache().parent().unwrap()).unwrap();
        for text in [
            "",
            "{",
            "{\"host\":[\"a\",\"b\",\"c\"],\"kvm\":{\"result\":\"failed\",\"seen\":\"x\"},\"tcg\":null}",
            "\0",
        ] {
            std::fs::write(mock.cache(), text).unwrap();
            assert_eq!(mock.probe(None).unwrap().accel, Accel::Kvm);
        }
        assert_eq!(mock.boots().len(), 4);
    }

    #[test]
    fn more_processor_time_than_the_reference_is_slowness() {
        assert_eq!(
            verdict(Accel::Tcg, CableKind::Udp, (9000, 4800), "x").slowness.factor(),
            2.0
        );
        assert_eq!(
            verdict(Accel::Tcg, CableKind::Udp, (9000, 60_000), "x")
                .slowness
                .factor(),
            5.0
        );
    }
}
