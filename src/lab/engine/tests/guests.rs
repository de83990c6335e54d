//! What is inside the fake machines, and the ways into them.

use crate::error::{Error, Problem, Result};
use crate::files::LabFiles;
use crate::guest::agent::{Agents, Line};
use crate::guest::ssh::Target;
use crate::guest::{Command, Followed, Output, Remote};
use crate::hypervisor::{DomainState, Fake};
use crate::lab::protocol::sample;
use crate::lab::ways::Connector;
use crate::lock::lock;
use crate::spec::Lab;
use crate::wait::{Deadline, Probe, wait_until};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// What a machine says at the end of its boot.
const BOOTED: &str = "running\n\n\n0a4be2a6-7b6e-4ae5-a9c8-3a1f0f3a1d57\n";

/// What the machines do, by node.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Neither the agent nor SSH answers.
    pub(super) silent: BTreeSet<String>,
    /// What is asked of it has no end.
    pub(super) hung: BTreeSet<String>,
    /// What is installed there fails.
    pub(super) refusing: BTreeSet<String>,
    /// What the program `is-well` prints there; it is not asked for anywhere else.
    pub(super) well: BTreeMap<String, String>,
    /// Digest of what is deployed.
    pub(super) deployed: BTreeMap<String, String>,
    /// How often somebody tried to get in.
    pub(super) knocks: u32,
    /// How often somebody who listens to a machine found that it stands still.
    pub(super) stalls: u32,
}

/// The insides of all machines.
#[derive(Debug)]
pub(super) struct Guests {
    state: Mutex<State>,
    begin: Instant,
}

impl Default for Guests {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            begin: Instant::now(),
        }
    }
}

impl Guests {
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

/// The ways into them. The lines to agents are real; what is run in a machine goes past them.
#[derive(Debug)]
pub(super) struct Fakes {
    files: LabFiles,
    agents: Agents,
    machine: Machine,
}

#[derive(Debug, Clone)]
struct Machine {
    lab: Lab,
    fake: Arc<Fake>,
    guests: Arc<Guests>,
}

impl Fakes {
    pub(super) fn new(files: LabFiles, lab: Lab, fake: Arc<Fake>, guests: Arc<Guests>) -> Self {
        Self {
            files,
            agents: Agents::new([7; 16]),
            machine: Machine { lab, fake, guests },
        }
    }

    fn session(&self, node: &str) -> Result<Box<dyn Remote>> {
        let mut state = self.machine.guests.state();
        state.knocks += 1;
        let refused = || Error::Operation(Problem::new("reach the machine").on(node).observed("not a word"));
        let domain = self.machine.fake.domain(node);
        let domain = domain.filter(|_| !state.silent.contains(node)).ok_or_else(refused)?;
        Ok(Box::new(Session {
            node: node.to_owned(),
            pid: domain.pid,
            machine: self.machine.clone(),
        }))
    }
}

impl Connector for Fakes {
    fn connect(&self, target: &Target, _: Deadline) -> Result<Box<dyn Remote>> {
        self.agents.check_open(&target.node)?;
        self.session(&target.node)
    }

    fn hello(&self, node: &str, _: Deadline) -> Result<Box<dyn Remote>> {
        self.session(node)
    }

    fn knock(
        &self,
        target: &Target,
        deadline: Deadline,
        seen: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Box<dyn Remote>> {
        wait_until("reach the machine over SSH", deadline, || {
            Ok(match self.session(&target.node) {
                Ok(session) => Probe::Ready(session),
                Err(e) => {
                    seen(&e.to_string())?;
                    Probe::NotYet(e.to_string())
                }
            })
        })
    }

    fn line(&self, node: &str, deadline: Deadline) -> Result<Arc<Line>> {
        self.agents.line(node, &self.files.node(node).agent(), deadline)
    }

    fn agents(&self) -> &Agents {
        &self.agents
    }
}

/// A session with a machine, as long as its process is the same.
#[derive(Debug)]
struct Session {
    node: String,
    pid: u32,
    machine: Machine,
}

impl Session {
    fn failed(&self, seen: &str) -> Error {
        Error::Operation(Problem::new("act in the machine").on(&self.node).observed(seen))
    }

    /// Returns as soon as the machine does something: its processors run, and it is not hung.
    fn awake(&self, deadline: Deadline) -> Result<()> {
        wait_until("act in the machine", deadline, || {
            let domain = self.machine.fake.domain(&self.node).filter(|d| d.pid == self.pid);
            let domain = domain.ok_or_else(|| self.failed("the connection was reset"))?;
            let hung = self.machine.guests.state().hung.contains(&self.node);
            Ok(if domain.state == DomainState::Running && !hung {
                Probe::Ready(())
            } else {
                Probe::NotYet("it stands still".into())
            })
        })
    }

    fn uptime(&self) -> Duration {
        self.machine.guests.begin.elapsed()
    }

    /// What the runtime says of its node, as a line.
    fn status(&self) -> String {
        let mut all = sample::machines();
        let status = sample::member(&mut all, &self.node).runtime.as_mut().unwrap();
        // Behind every reading of the clock so far, which has hundredths of a second.
        status.node_t_us = Some((self.uptime() + Duration::from_millis(20)).as_micros() as u64);
        serde_json::to_string(status).unwrap()
    }

    /// What is deployed, nothing of it from the beginning, no programs, and each port's name.
    fn deployed(&self) -> String {
        let state = self.machine.guests.state();
        let mut text = state.deployed.get(&self.node).cloned().unwrap_or_default() + "\n\n\n";
        for nic in &self.machine.lab.node(&self.node).unwrap().nics {
            text += &format!("{} {}\n", nic.mac, nic.interface);
        }
        text
    }

    fn install(&self, digest: &str) -> Output {
        let mut state = self.machine.guests.state();
        if state.refusing.contains(&self.node) {
            return output(1, "", "failoverlab: failed step 1\nno space left");
        }
        state.deployed.insert(self.node.clone(), digest.to_owned());
        output(0, "", "")
    }
}

fn output(status: i32, stdout: &str, stderr: &str) -> Output {
    Output {
        status,
        stdout: stdout.into(),
        stderr: stderr.into(),
    }
}

impl Remote for Session {
    fn exec(&mut self, command: &Command, deadline: Deadline) -> Result<Output> {
        self.awake(deadline)?;
        let argv: Vec<&str> = command.argv.iter().map(String::as_str).collect();
        Ok(match (argv.as_slice(), command.stdin.is_empty()) {
            (["true"], _) => output(0, "", ""),
            (["cat", "/proc/uptime"], _) => output(0, &format!("{:.2} 0.00", self.uptime().as_secs_f64()), ""),
            (["sh", "-c", _, _], _) => output(0, BOOTED, ""),
            (["sh", "-c", _, "sh", _, _, _], true) => output(0, &self.deployed(), ""),
            (["sh", "-c", _, "sh", _, digest, ..], false) => self.install(digest),
            (["ccrctl", "status", ..], _) => output(0, &self.status(), ""),
            (["is-well"], _) => {
                let said = self.machine.guests.state().well.get(&self.node).cloned();
                output(
                    0,
                    &said.ok_or_else(|| self.failed("this test did not expect a probe"))?,
                    "",
                )
            }
            _ => return Err(self.failed(&format!("this test did not expect {argv:?}"))),
        })
    }

    fn upload(&mut self, _: &[u8], to: &Path, _: u32, _: Deadline) -> Result<()> {
        Err(self.failed(&format!("this test did not expect {}", to.display())))
    }

    fn download(&mut self, from: &Path, _: Deadline) -> Result<Vec<u8>> {
        Err(self.failed(&format!("this test did not expect {}", from.display())))
    }

    /// The runtime says how it is again and again, and never has an event.
    fn follow(&mut self, command: &Command, on: &mut dyn FnMut(Followed<'_>) -> bool) -> Result<()> {
        if !on(Followed::Begun { ran: None }) {
            return Ok(());
        }
        let watch = command.argv.iter().any(|a| a == "status");
        loop {
            let awake = self.awake(Deadline::after(Duration::from_millis(50)));
            let gone = self.machine.fake.domain(&self.node).is_none_or(|d| d.pid != self.pid);
            let said = (awake.is_ok() && watch).then(|| self.status());
            if gone {
                return awake;
            }
            if awake.is_err() {
                self.machine.guests.state().stalls += 1;
            }
            if !on(said.as_deref().map_or(Followed::Nothing, Followed::Line)) {
                return Ok(());
            }
            crate::wait::pause(Duration::from_millis(130));
        }
    }
}
