//! libvirt's in-process QEMU driver: no daemon, no root.

use super::memory::Image;
use super::refusal;
use super::{
    Described, Domain, DomainEvent, DomainState, Hypervisor, Listener, edit, ffi, lifecycle, orphans, power_cut,
};
use crate::error::{Cause, Error, IoContext, Problem, Result};
use crate::lock::lock;
use crate::process;
use crate::wait::{Deadline, Probe, wait_until};
use std::fmt::Write as _;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::Duration;
use virt::connect::Connect;
use virt::error::ErrorNumber;
use virt::sys;

/// How much nicer than the supervisor (and its fabric) the machines are.
const NICENESS: i32 = 5;

/// How long the process of a destroyed domain may take to go; libvirt itself sends SIGKILL after 10 s.
const GONE: Duration = Duration::from_secs(30);

/// How long QEMU may take to write a machine's memory.
const SAVED: Duration = Duration::from_secs(300);

type Listeners = Arc<RwLock<Vec<Listener>>>;

/// A connection to the driver within this process. One root for each process, one process for each root.
pub struct Embedded {
    conn: Connect,
    root: PathBuf,
    capabilities: PathBuf,
    listeners: Listeners,
}

impl std::fmt::Debug for Embedded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Embedded")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

/// Environment for the process that will open an [`Embedded`]: libvirt writes its own log to `log`, not to stderr.
pub fn log_environment(log: &Path) -> [(&'static str, String); 1] {
    [("LIBVIRT_LOG_OUTPUTS", format!("3:file:{}", log.display()))]
}

impl Embedded {
    /// Opens the driver on `root`, a short path of our own; machines that run in it from before are found again. Those that libvirt lost,
    /// because it died while it started them, are ended.
    ///
    /// `capabilities` keeps what libvirt learnt of QEMU for the next root: without it, opening a fresh root starts QEMU several times.
    ///
    /// # Errors
    /// The root is open in another process, or another root is open in this one.
    pub fn open(root: &Path, capabilities: &Path) -> Result<Embedded> {
        static OPENED: Mutex<bool> = Mutex::new(false);
        let mut opened = lock(&OPENED);
        let problem = || Problem::new("open libvirt's embedded driver").on(root.display());
        let refuse = |seen: &str, remedy: &str| Error::Operation(problem().observed(seen).remedy(remedy));
        // An attempt that fails leaves the driver unusable for the rest of the process: what can be known before is asked before.
        if *opened {
            let seen = "this process opened a root before, and can open one only";
            return Err(refuse(seen, "open each root in a process of its own"));
        }
        prepare(root)?;
        if held(root) {
            let remedy = "let that process do the work, or end it: the machines live on";
            return Err(refuse("another process has it open", remedy));
        }
        copy_missing(capabilities, &root.join(CAPABILITIES))
            .tried("copy libvirt's knowledge of QEMU", root.display())?;
        orphans::forget_unfinished(root)?;
        virt::error::clear_error_callback();
        start_event_loop()?;
        *opened = true;
        let conn = Connect::open(Some(&uri(root))).map_err(|e| {
            let problem = refusal::refused(problem(), &error_text(&e));
            let remedy = match problem.cause {
                Some(Cause::NoServiceAccount) => {
                    "libvirt as root wants the user of its packages: install libvirt-daemon-system, or work as an ordinary user"
                }
                _ => "what libvirt logged says more",
            };
            Error::Operation(problem.remedy(remedy))
        })?;
        let listeners = Listeners::default();
        let hear = listeners.clone();
        ffi::register_lifecycle(
            &conn,
            Box::new(move |name, event, detail| {
                let (what, detail) = lifecycle::words(event, detail);
                let event = DomainEvent {
                    name: name.to_owned(),
                    what,
                    detail,
                    monotonic_us: crate::event::monotonic_us(),
                };
                for f in hear.read().unwrap_or_else(PoisonError::into_inner).iter() {
                    f(event.clone());
                }
            }),
        )
        .map_err(failed("register for events of machines", root.display()))?;
        let this = Embedded {
            conn,
            root: root.to_owned(),
            capabilities: capabilities.to_owned(),
            listeners,
        };
        this.keep_capabilities();
        orphans::end(root, &this.known()?)?;
        this.end_saves()?;
        Ok(this)
    }

    /// What libvirt learnt is a cache: failing to keep it costs the next root a second, nothing else.
    fn keep_capabilities(&self) {
        let _ = copy_missing(&self.root.join(CAPABILITIES), &self.capabilities);
    }

    fn find(&self, name: &str) -> Result<Option<virt::domain::Domain>> {
        match self.conn.lookup_domain_by_name(name) {
            Ok(d) => Ok(Some(d)),
            Err(e) if is(&e, ErrorNumber::NoDomain) => Ok(None),
            Err(e) => Err(failed("look for the machine", name)(e)),
        }
    }

    fn get(&self, name: &str) -> Result<virt::domain::Domain> {
        self.find(name)?.ok_or_else(|| {
            Error::Operation(
                Problem::new("find the machine")
                    .on(name)
                    .observed("libvirt has no such domain"),
            )
        })
    }

    /// The process id in libvirt's pid file, where that process lives.
    fn pid(&self, name: &str) -> Option<u32> {
        orphans::pid_file(&self.root, name)
            .ok()
            .filter(|&pid| process::runs(pid))
    }

    /// The processes of libvirt's machines: every other one of this root is an orphan. One whose process id cannot be told is none.
    fn known(&self) -> Result<Vec<u32>> {
        let mut known = Vec::new();
        for domain in self.list()? {
            match orphans::pid_file(&self.root, &domain.name) {
                Ok(pid) => known.push(pid),
                // It ended since, and its file went with it.
                Err(_) if self.find(&domain.name)?.is_none() => {}
                Err(e) => return Err(e).tried("learn the process id of the machine", &domain.name),
            }
        }
        Ok(known)
    }

    /// Has QEMU write the memory of a suspended domain to a file from which libvirt restores it.
    fn save_memory(&self, d: &virt::domain::Domain, name: &str, path: &Path) -> Result<()> {
        const WHAT: &str = "save the machine's memory";
        let flags = sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_MIGRATABLE;
        let image = Image::begin(path, &d.xml_desc(flags).map_err(failed("describe the machine", name))?)?;
        let take = r#"{"execute":"getfd","arguments":{"fdname":"memory"}}"#;
        let answer = ffi::monitor_with_file(d, take, image.file.as_fd()).map_err(failed(WHAT, name))?;
        super::refused(WHAT, name, &answer)?;
        // As fast as it goes: nothing else runs meanwhile.
        self.monitor(
            name,
            r#"{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":1099511627776}}"#,
        )?;
        self.monitor(name, r#"{"execute":"migrate","arguments":{"uri":"fd:memory"}}"#)?;
        wait_until(&format!("save the memory of {name}"), Deadline::after(SAVED), || {
            let answer = self.monitor(name, r#"{"execute":"query-migrate"}"#)?;
            let answer: serde_json::Value = serde_json::from_str(&answer).tried(WHAT, name)?;
            let answer = &answer["return"];
            match answer["status"].as_str() {
                Some("completed") => Ok(Probe::Ready(())),
                Some("failed" | "cancelled") => {
                    let seen = answer["error-desc"].as_str().unwrap_or("QEMU does not say why");
                    Err(Error::Operation(Problem::new(WHAT).on(name).observed(seen)))
                }
                _ => Ok(Probe::NotYet(answer.to_string())),
            }
        })?;
        image.finish(path)
    }

    /// Ends saves that no process waits for any more: the one that began them died. QEMU would stop the machine again when one is complete,
    /// whatever was said to it meanwhile.
    fn end_saves(&self) -> Result<()> {
        const WHAT: &str = "end a save of the machine that was cut short";
        for domain in self.list()? {
            let name = domain.name.as_str();
            wait_until(WHAT, Deadline::after(SAVED), || {
                let answer = self.monitor(name, r#"{"execute":"query-migrate"}"#)?;
                let answer: serde_json::Value = serde_json::from_str(&answer).tried(WHAT, name)?;
                match answer["return"]["status"].as_str() {
                    None | Some("none" | "completed" | "failed" | "cancelled") => Ok(Probe::Ready(())),
                    Some(status) => {
                        self.monitor(name, r#"{"execute":"migrate_cancel"}"#)?;
                        Ok(Probe::NotYet(status.to_owned()))
                    }
                }
            })?;
        }
        Ok(())
    }

    fn set_unmanaged_link(&self, name: &str, id: &str, up: bool) -> Result<()> {
        let command = serde_json::json!({"execute": "set_link", "arguments": {"name": id, "up": up}});
        self.monitor(name, &command.to_string()).map(drop)
    }

    /// Takes the carrier from the ports that libvirt does not know and that shall have none.
    fn take_carriers(&self, machine: &Described) -> Result<()> {
        machine
            .unmanaged_down()
            .try_for_each(|id| self.set_unmanaged_link(&machine.name, id, false))
    }

    fn describe(&self, d: &virt::domain::Domain) -> Result<Domain, virt::error::Error> {
        use virt::domain::DomainState as S;
        use virt::enumutil::Enum::Known;
        let name = d.name()?;
        let state = match d.state()?.0 {
            Known(S::Running | S::Blocked) => DomainState::Running,
            Known(S::Paused) => DomainState::Paused,
            Known(S::Shutdown | S::Shutoff) => DomainState::Off,
            _ => DomainState::Other,
        };
        let label = d
            .xml_desc(0)
            .ok()
            .and_then(|x| Described::parse(&x).ok()?.label().map(str::to_owned));
        let pid = self.pid(&name);
        Ok(Domain {
            name,
            state,
            pid,
            label,
        })
    }
}

impl Hypervisor for Embedded {
    fn create(&self, xml: &str, paused: bool) -> Result<()> {
        let described = Described::parse(xml)?;
        let name = described.name.as_str();
        // A port without carrier has none from the first instruction on.
        let dark = described.unmanaged_down().next().is_some();
        let flags = if paused || dark {
            sys::VIR_DOMAIN_START_PAUSED
        } else {
            0
        };
        niced(|| self.conn.create_domain_xml(xml, flags)).map_err(failed("start the machine", name))?;
        self.keep_capabilities();
        if dark {
            self.take_carriers(&described)?;
        }
        if dark && !paused {
            self.resume(name)?;
        }
        Ok(())
    }

    fn list(&self) -> Result<Vec<Domain>> {
        let all = self
            .conn
            .list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)
            .map_err(failed("list the machines", self.root.display()))?;
        let described = all.iter().map(|d| match self.describe(d) {
            Ok(domain) => Ok(Some(domain)),
            // One that goes while we look is not there.
            Err(e) if is(&e, ErrorNumber::NoDomain) => Ok(None),
            Err(e) => Err(failed("look at the machines", self.root.display())(e)),
        });
        described.filter_map(Result::transpose).collect()
    }

    fn lookup(&self, name: &str) -> Result<Option<Domain>> {
        let Some(d) = self.find(name)? else { return Ok(None) };
        match self.describe(&d) {
            Ok(d) => Ok(Some(d)),
            Err(e) if is(&e, ErrorNumber::NoDomain) => Ok(None),
            Err(e) => Err(failed("look at the machine", name)(e)),
        }
    }

    fn xml(&self, name: &str) -> Result<String> {
        self.get(name)?
            .xml_desc(0)
            .map_err(failed("describe the machine", name))
    }

    fn suspend(&self, name: &str) -> Result<()> {
        self.get(name)?.suspend().map_err(failed("suspend the machine", name))
    }

    fn resume(&self, name: &str) -> Result<()> {
        self.get(name)?.resume().map_err(failed("resume the machine", name))
    }

    fn destroy(&self, name: &str) -> Result<()> {
        let Some(d) = self.find(name)? else { return Ok(()) };
        let pid = self.pid(name);
        let sockets = pid.and_then(|pid| power_cut::kill(&self.root, pid));
        // Right after adoption libvirt may say that there is no such domain although it did end the process: what counts is that it
        // is gone.
        if let Err(e) = d.destroy()
            && self.find(name)?.is_some()
        {
            return Err(failed("end the machine", name)(e));
        }
        drop(sockets);
        let Some(pid) = pid else { return Ok(()) };
        wait_until(&format!("end the process of {name}"), Deadline::after(GONE), || {
            Ok(if process::runs(pid) {
                Probe::NotYet(format!("process {pid} is still there"))
            } else {
                Probe::Ready(())
            })
        })
    }

    fn set_link(&self, name: &str, mac: &str, up: bool) -> Result<()> {
        let on = format!("{name} {mac}");
        let d = self.get(name)?;
        let xml = d.xml_desc(0).map_err(failed("describe the machine", name))?;
        if let Some(interface) = edit::interface_with_link(&xml, mac, up)? {
            d.update_device_flags(&interface, sys::VIR_DOMAIN_AFFECT_LIVE)
                .map_err(failed("set the carrier", on))?;
            return Ok(());
        }
        let described = Described::parse(&xml)?;
        let Some(id) = described.unmanaged_nic(mac) else {
            return Err(Error::Operation(
                Problem::new("set the carrier").on(on).observed("no port has this MAC"),
            ));
        };
        self.set_unmanaged_link(name, id, up)?;
        let Some(mut lab) = described.metadata.lab.clone() else {
            return Ok(());
        };
        lab.note_carrier(mac, up);
        let note = edit::label(&lab)?;
        d.set_metadata(
            sys::VIR_DOMAIN_METADATA_ELEMENT as i32,
            Some(&note),
            Some("failoverlab"),
            Some(super::NAMESPACE),
            sys::VIR_DOMAIN_AFFECT_LIVE,
        )
        .map_err(failed("note the carrier", on))
    }

    fn monitor(&self, name: &str, command: &str) -> Result<String> {
        let answer = self
            .get(name)?
            .qemu_monitor_command(command, 0)
            .map_err(failed("ask QEMU's monitor", name))?;
        super::refused("ask QEMU's monitor", name, &answer)?;
        Ok(answer)
    }

    fn agent(&self, name: &str, command: &str, timeout: Duration) -> Result<String> {
        // libvirt counts whole seconds; 0 would mean "do not wait at all".
        let seconds = i32::try_from(timeout.as_millis().div_ceil(1000).max(1)).unwrap_or(i32::MAX);
        let answer = self
            .get(name)?
            .qemu_agent_command(command, seconds, 0)
            .map_err(failed("ask the guest agent", name))?;
        super::refused("ask the guest agent", name, &answer)?;
        Ok(answer)
    }

    fn snapshot(&self, name: &str, memory: &Path, disks: &[(String, PathBuf)]) -> Result<()> {
        let d = self.get(name)?;
        let xml = d.xml_desc(0).map_err(failed("describe the machine", name))?;
        let layers = edit::snapshot(&Described::parse(&xml)?, disks)?;
        self.save_memory(&d, name, memory)?;
        let flags = sys::VIR_DOMAIN_SNAPSHOT_CREATE_NO_METADATA
            | sys::VIR_DOMAIN_SNAPSHOT_CREATE_ATOMIC
            | sys::VIR_DOMAIN_SNAPSHOT_CREATE_REUSE_EXT
            | sys::VIR_DOMAIN_SNAPSHOT_CREATE_DISK_ONLY;
        d.create_snapshot_xml(&layers, flags)
            .map(drop)
            .map_err(failed("layer the machine's disks", name))
    }

    fn restore(&self, memory: &Path, xml: &str) -> Result<()> {
        let described = Described::parse(xml)?;
        let name = described.name.as_str();
        let file = super::template::path(memory)
            .map_err(|seen| Error::Operation(Problem::new("restore the machine").on(name).observed(seen)))?;
        niced(|| {
            self.conn
                .restore_domain_flags(file, Some(xml), sys::VIR_DOMAIN_SAVE_PAUSED)
        })
        .map_err(failed("restore the machine", name))?;
        self.take_carriers(&described)
    }

    fn listen(&self, f: Listener) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(f);
    }
}

/// Runs `f` on a thread of its own that is nicer: the QEMU process that it starts inherits that from its first moment.
fn niced<T: Send>(f: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|s| {
        let thread = s.spawn(|| {
            // On Linux niceness belongs to the calling thread. Failing only costs the fabric its precedence.
            let _ = rustix::process::nice(NICENESS);
            f()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Starts the thread of libvirt's event loop, once in a process and before its first connection.
pub(super) fn start_event_loop() -> Result<()> {
    static LOOP: OnceLock<Result<(), String>> = OnceLock::new();
    LOOP.get_or_init(|| {
        virt::event::event_register_default_impl().map_err(|e| error_text(&e))?;
        std::thread::Builder::new()
            .name("libvirt-events".into())
            .spawn(|| {
                loop {
                    // An error concerns one file descriptor of one round; the loop has to go on for all others.
                    let _ = virt::event::event_run_default_impl();
                }
            })
            .map(drop)
            .map_err(|e| e.to_string())
    })
    .clone()
    .map_err(|seen| Error::Operation(Problem::new("start libvirt's event loop").observed(seen)))
}

/// Where a root keeps what libvirt learnt of QEMU.
const CAPABILITIES: &str = "cache/qemu/capabilities";

/// Makes the root's folders and writes the driver's configuration.
fn prepare(root: &Path) -> Result<()> {
    let etc = root.join("etc");
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&etc)
        .tried("make libvirt's folder", etc.display())?;
    let mut conf = String::from(
        "# Written by failoverlab at every start.\n\
         # No daemon that would keep the consoles' logs.\n\
         stdio_handler = \"file\"\n\
         # The files are ours already, and so are the limits.\n\
         remember_owner = 0\n\
         dynamic_ownership = 0\n\
         security_driver = \"none\"\n\
         namespaces = []\n\
         cgroup_controllers = []\n\
         save_image_format = \"raw\"\n\
         snapshot_image_format = \"raw\"\n",
    );
    if rustix::process::geteuid().is_root() {
        // Without it libvirt gives the process to another user, to whom /dev/kvm looks different than to its probe: it would probe
        // again at every start.
        conf.push_str("user = \"root\"\ngroup = \"root\"\n");
    }
    let path = etc.join("qemu.conf");
    std::fs::write(&path, conf).tried("write libvirt's configuration", path.display())
}

/// Whether another process has the root open: libvirt locks this file as long as it lives.
fn held(root: &Path) -> bool {
    let Ok(file) = std::fs::OpenOptions::new()
        .write(true)
        .open(root.join("run/qemu/driver.pid"))
    else {
        return false;
    };
    // The lock is given back as the file is closed.
    rustix::fs::fcntl_lock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).is_err()
}

/// Copies the files of `from` that `to` has not got, or has otherwise, each atomically.
fn copy_missing(from: &Path, to: &Path) -> std::io::Result<()> {
    let entries = match std::fs::read_dir(from) {
        Ok(e) => e,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    for entry in entries {
        let entry = entry?;
        if !entry.file_type()?.is_file() {
            continue;
        }
        let content = std::fs::read(entry.path())?;
        let target = to.join(entry.file_name());
        if std::fs::read(&target).is_ok_and(|there| there == content) {
            continue;
        }
        let mut copy = tempfile::NamedTempFile::new_in(to)?;
        copy.write_all(&content)?;
        copy.persist(&target)?;
    }
    Ok(())
}

/// `qemu:///embed?root=…` with everything escaped that a query cannot carry.
fn uri(root: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let mut uri = String::from("qemu:///embed?root=");
    for &b in root.as_os_str().as_bytes() {
        if b.is_ascii_alphanumeric() || b"/-._~".contains(&b) {
            uri.push(char::from(b));
        } else {
            let _ = write!(uri, "%{b:02X}");
        }
    }
    uri
}

fn is(e: &virt::error::Error, code: ErrorNumber) -> bool {
    e.code().is_known_and(|c| c == code)
}

/// libvirt's own words and code.
fn error_text(e: &virt::error::Error) -> String {
    format!("{} (libvirt error {}: {})", e.message(), e.code().to_raw(), e.code())
}

fn failed(what: &'static str, on: impl std::fmt::Display) -> impl FnOnce(virt::error::Error) -> Error {
    move |e| Error::Operation(refusal::refused(Problem::new(what).on(on), &error_text(&e)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_with_odd_characters_is_escaped() {
        assert_eq!(
            uri(Path::new("/run/a b&c=%/é")),
            "qemu:///embed?root=/run/a%20b%26c%3D%25/%C3%A9"
        );
    }

    #[test]
    fn the_cache_is_copied_once_and_again_when_it_changed() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("from"), dir.path().join("to/deep"));
        copy_missing(&from, &to).unwrap();
        assert!(!to.exists());
        std::fs::create_dir(&from).unwrap();
        std::fs::write(from.join("a.xml"), "one").unwrap();
        copy_missing(&from, &to).unwrap();
        std::fs::write(from.join("a.xml"), "two").unwrap();
        copy_missing(&from, &to).unwrap();
        assert_eq!(std::fs::read(to.join("a.xml")).unwrap(), b"two");
    }

    #[test]
    fn errors_keep_libvirts_words_and_code() {
        let e = Connect::open(Some("test:///no/such/file")).unwrap_err();
        let ours = failed("open", "here")(e.clone());
        let seen = ours.problem().unwrap().observed.clone().unwrap();
        assert!(
            seen.starts_with(e.message()) && seen.contains(&e.code().to_raw().to_string()),
            "{seen}"
        );
    }
}
