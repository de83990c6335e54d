//! Making a machine, and waiting while it boots: through its agent, which begins long before its SSH server; by SSH where there is none.

use super::Engine;
use crate::deploy;
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Draft, Severity, Source, Step};
use crate::guest::keys::Keys;
use crate::guest::{self, Ready, Remote};
use crate::hypervisor::{Credential, DomainState, mgmt_is_up};
use crate::image;
use crate::lab::cancel::Cancel;
use crate::lab::record::LabRecord;
use crate::lab::{channel, machines};
use crate::private;
use crate::spec::Node;
use crate::wait::{Deadline, Probe, wait_until};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The longest that a machine may take from its start until its boot has ended, on a fast host (measured: 13 s alone under TCG).
const BOOT: Duration = Duration::from_secs(120);
/// How long one hello to an agent waits before the machine is looked at from outside. The hello itself waits in the port until the
/// agent begins.
const HELLO: Duration = Duration::from_secs(2);
/// How long an agent may be silent after its machine's network is up, on a fast host: it begins before that.
const SILENT: Duration = Duration::from_secs(6);
/// How many of the console's last lines are told.
const LINES: usize = 3;

/// A machine that boots, and the ways into it.
trait Booting {
    /// Its name.
    fn node(&self) -> &str;
    /// An error where it is gone, or nobody waits for it any more.
    fn check(&self) -> Result<()>;
    /// Says hello to its agent.
    fn agent(&self, deadline: Deadline) -> Result<Box<dyn Remote>>;
    /// Whether its system has brought up the tool's own port.
    fn port_is_up(&self) -> Result<bool>;
    /// Knocks until SSH answers.
    fn ssh(&self, deadline: Deadline, seen: &mut dyn FnMut(&str) -> Result<()>) -> Result<Box<dyn Remote>>;
}

/// A machine whose boot has ended.
struct Booted {
    remote: Box<dyn Remote>,
    ready: Ready,
    /// Why the agent is not the way in.
    silent: Option<Error>,
}

/// Waits until the boot has ended. `patience` is how long an agent may be silent once the port is up.
fn wait(machine: &dyn Booting, deadline: Deadline, patience: Duration, say: &mut dyn FnMut(&str)) -> Result<Booted> {
    let (mut remote, silent) = way_in(machine, deadline, patience, say)?;
    let ready = guest::wait_booted(&mut *remote, machine.node(), deadline, &mut |seen| {
        say(seen);
        machine.check()
    })?;
    Ok(Booted { remote, ready, silent })
}

/// The agent as soon as it answers. SSH where the port is up and the agent is silent all the same.
fn way_in(
    machine: &dyn Booting,
    deadline: Deadline,
    patience: Duration,
    say: &mut dyn FnMut(&str),
) -> Result<(Box<dyn Remote>, Option<Error>)> {
    let mut up_since: Option<Instant> = None;
    let what = format!("reach {} while it boots", machine.node());
    let (agent, silent) = wait_until(&what, deadline, || {
        machine.check()?;
        let silent = match machine.agent(deadline.at_most(HELLO)) {
            Ok(agent) => return Ok(Probe::Ready((Some(agent), None))),
            Err(e) => e,
        };
        if up_since.is_none() && machine.port_is_up()? {
            up_since = Some(Instant::now());
        }
        Ok(match up_since {
            Some(since) if since.elapsed() >= patience => Probe::Ready((None, Some(silent))),
            _ => Probe::NotYet(silent.to_string()),
        })
    })?;
    if let Some(agent) = agent {
        say("its agent answers, it is still booting");
        return Ok((agent, None));
    }
    let ssh = machine.ssh(deadline, &mut |seen| {
        say(seen);
        machine.check()
    })?;
    Ok((ssh, silent))
}

impl Engine {
    /// Creates a machine from the record, on the disks that it has.
    pub(super) fn create_machine(&self, record: &LabRecord, node: &str) -> Result<()> {
        let unknown = || Error::Bug(Problem::new("find the machine's record").on(node));
        let spec = record.desired.lab.node(node).ok_or_else(unknown)?;
        let credentials = self.credentials(record, spec)?;
        let mut machine = machines::machine(record, &self.files, spec, credentials).ok_or_else(unknown)?;
        if let Some(initrd) = self.initrd(record, spec)? {
            machine.initrd = initrd;
        }
        self.fabric()?.renew(node)?;
        self.hypervisor()?.create(&machine.to_xml()?, false)
    }

    /// Writes the initramfs of `node` with what its pack wants to be there before the system starts; `None` where that is nothing. A
    /// machine that is restored needs none of it.
    fn initrd(&self, record: &LabRecord, node: &Node) -> Result<Option<PathBuf>> {
        let Some(pack) = channel::pack(record)?.filter(|_| node.role.is_some()) else {
            return Ok(None);
        };
        let artifacts = deploy::Artifacts::of(Some(&pack), &self.backends.programs, self.files.keys())?;
        let Some(early) = deploy::early(&record.desired.lab, node, &pack, &artifacts)? else {
            return Ok(None);
        };
        let of_image = &record.desired.image.initrd;
        let mut bytes = fs_err::read(of_image).tried("read the image's initramfs", of_image.display())?;
        bytes.extend(image::early(&early));
        let path = self.files.node(&node.name).initrd();
        private::replace_unsynced(&path, &bytes).tried("write the machine's initramfs", path.display())?;
        Ok(Some(path))
    }

    /// Writes the boot credentials of `node`; keys that are there stay.
    pub(super) fn credentials(&self, record: &LabRecord, node: &Node) -> Result<Vec<Credential>> {
        let lab = &record.desired.lab;
        let keys = Keys::ensure(&self.files, lab.nodes.iter().map(|n| n.name.as_str()))?;
        guest::credentials::write(lab, node, &keys, &self.files.node(&node.name))
    }

    pub(super) fn wait_ready(&self, record: &LabRecord, node: &Node, cancel: &Cancel) -> Result<()> {
        let step = Step::begin(self.journal(), "boot", Some(&node.name), "waiting for its agent");
        let slowness = record.desired.slowness;
        let machine = Machine {
            engine: self,
            record,
            node: &node.name,
            cancel,
        };
        let (deadline, patience) = (Deadline::scaled(BOOT, slowness), slowness.scale(SILENT));
        let booted = wait(&machine, deadline, patience, &mut |seen| step.say(seen))
            .map_err(|e| with_console(e, &self.console_tail(&node.name)))?;
        if let Some(e) = booted.silent {
            let text = format!("SSH is the way in: {e}");
            let silent = Draft::new(Source::Tool, "agent.silent").node(node.name.to_string());
            self.journal()
                .emit(silent.severity(Severity::Warning).data(json!({"text": text})));
        }
        self.channels.keep(&node.name, booted.remote);
        step.done(&match booted.ready.failed.as_slice() {
            [] => "has booted".to_owned(),
            failed => format!("has booted; failed units: {}", failed.join(", ")),
        });
        Ok(())
    }

    /// The last lines of a machine's console.
    fn console_tail(&self, node: &str) -> String {
        let text = fs_err::read(self.files.node(node).console_log()).unwrap_or_default();
        tail(&String::from_utf8_lossy(&text))
    }
}

/// The last lines that say something, in one.
fn tail(text: &str) -> String {
    let said: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    match said.get(said.len().saturating_sub(LINES)..) {
        Some(last) if !last.is_empty() => last.join(" / "),
        _ => "nothing".to_owned(),
    }
}

/// The same error, with what the console said last.
fn with_console(e: Error, tail: &str) -> Error {
    let Error::Operation(mut problem) = e else { return e };
    let seen = problem.observed.take().unwrap_or_default();
    problem.observed = Some(format!("{seen}; its console ends with: {tail}"));
    Error::Operation(problem)
}

/// A machine of the lab that this supervisor keeps.
struct Machine<'a> {
    engine: &'a Engine,
    record: &'a LabRecord,
    node: &'a str,
    cancel: &'a Cancel,
}

impl Booting for Machine<'_> {
    fn node(&self) -> &str {
        self.node
    }

    /// One that went away will never answer: no use in waiting for the deadline.
    fn check(&self) -> Result<()> {
        self.cancel.check()?;
        match self.engine.hypervisor()?.lookup(self.node)? {
            Some(d) if d.state != DomainState::Off => Ok(()),
            _ => Err(Error::Operation(
                Problem::new("boot the machine")
                    .on(self.node)
                    .observed("it is gone")
                    .remedy("failoverlab doctor"),
            )),
        }
    }

    fn agent(&self, deadline: Deadline) -> Result<Box<dyn Remote>> {
        self.engine.channels.hello(self.record, self.node, deadline)
    }

    fn port_is_up(&self) -> Result<bool> {
        mgmt_is_up(&*self.engine.hypervisor()?, self.node)
    }

    fn ssh(&self, deadline: Deadline, seen: &mut dyn FnMut(&str) -> Result<()>) -> Result<Box<dyn Remote>> {
        self.engine.channels.knock(self.record, self.node, deadline, seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::fake::FakeRemote;
    use std::cell::{Cell, RefCell};

    const BOOTED: &str = "running\n\n\n0a4be2a6-7b6e-4ae5-a9c8-3a1f0f3a1d57\n";

    /// A machine that is told when what of it begins, in looks from outside.
    #[derive(Default)]
    struct Fake {
        /// The hello that is answered.
        agent_at: Option<u32>,
        hellos: Cell<u32>,
        /// The hello after which the port is up.
        port_at: Option<u32>,
        gone_at: Option<u32>,
        ssh: bool,
        ways: RefCell<Vec<&'static str>>,
    }

    impl Booting for Fake {
        fn node(&self) -> &str {
            "node1"
        }
        fn check(&self) -> Result<()> {
            match self.gone_at {
                Some(at) if self.hellos.get() >= at => Err(Error::Operation(
                    Problem::new("boot the machine").observed("it is gone"),
                )),
                _ => Ok(()),
            }
        }
        fn agent(&self, _: Deadline) -> Result<Box<dyn Remote>> {
            self.hellos.set(self.hellos.get() + 1);
            if self.agent_at.is_none_or(|at| self.hellos.get() < at) {
                return Err(Error::Operation(Problem::new("reach the agent").observed("not a word")));
            }
            self.ways.borrow_mut().push("agent");
            Ok(Box::new(FakeRemote::new().answer(&["sh", "-c"], 0, BOOTED)))
        }
        fn port_is_up(&self) -> Result<bool> {
            Ok(self.port_at.is_some_and(|at| self.hellos.get() >= at))
        }
        fn ssh(&self, deadline: Deadline, _: &mut dyn FnMut(&str) -> Result<()>) -> Result<Box<dyn Remote>> {
            self.ways.borrow_mut().push("ssh");
            if self.ssh {
                return Ok(Box::new(FakeRemote::new().answer(&["sh", "-c"], 0, BOOTED)));
            }
            wait_until("reach node1 over SSH", deadline, || Ok(Probe::NotYet("refused".into())))
        }
    }

    fn wait_for(machine: &Fake) -> Result<Booted> {
        let deadline = Deadline::after(Duration::from_millis(400));
        wait(machine, deadline, Duration::from_millis(30), &mut |_| ())
    }

    #[test]
    fn the_agent_is_the_way_in_and_ssh_is_not_asked() {
        // It begins before the port is up, as a rule; a busy machine's may begin after it.
        for (agent_at, port_at) in [(1, None), (3, None), (4, Some(3))] {
            let machine = Fake {
                agent_at: Some(agent_at),
                port_at,
                ..Fake::default()
            };
            let booted = wait_for(&machine).unwrap();
            assert!(booted.silent.is_none());
            assert_eq!(*machine.ways.borrow(), ["agent"]);
            assert_eq!(booted.ready.state, "running");
        }
    }

    #[test]
    fn ssh_is_the_way_into_a_machine_without_an_agent() {
        let machine = Fake {
            port_at: Some(2),
            ssh: true,
            ..Fake::default()
        };
        let booted = wait_for(&machine).unwrap();
        assert!(booted.silent.unwrap().to_string().contains("not a word"));
        assert_eq!(*machine.ways.borrow(), ["ssh"]);
        // Not before its network is up.
        assert!(machine.hellos.get() > 2);
    }

    #[test]
    fn a_machine_that_does_not_come_up_is_told_with_what_was_seen() {
        let silent = wait_for(&Fake::default()).err().unwrap().to_string();
        assert!(silent.contains("node1") && silent.contains("not a word"), "{silent}");
        let machine = Fake {
            gone_at: Some(2),
            ..Fake::default()
        };
        let gone = wait_for(&machine).err().unwrap();
        assert_eq!(machine.hellos.get(), 2, "no use in waiting");
        let told = with_console(gone, &tail("a\r\n\nb\nKernel panic\r\n  \nnot syncing\n")).to_string();
        assert!(
            told.contains("it is gone; its console ends with: b / Kernel panic / not syncing"),
            "{told}"
        );
        assert_eq!(tail(" \n\n"), "nothing");
        // An interruption is none of the machine's words.
        assert!(matches!(with_console(Error::Interrupted, "x"), Error::Interrupted));
    }
}
