//! What CLI and supervisor say to each other over the lab's unix socket: JSON lines (CONTRACTS "Supervisor socket").
//!
//! The supervisor greets; the client sends one request; the supervisor answers with events while it works and one
//! [`Reply::Ok`] or [`Reply::Error`]. After the `ok` of [`Verb::Dial`] and [`Verb::Capture`] the connection is a raw byte stream.
//! A client that goes away cancels its request.

use crate::error::{Error, Problem};
use crate::event::Event;
use crate::fabric::{CaptureFilter, Counters, Revision, Rule};
use crate::fault::Fault;
use crate::hypervisor::{self, Domain};
use crate::spec::{Node, NodeRole};
use crate::units::Name;
use crate::verify::{Merged, Moment, NodeLook, NodeView, Observation};
use ccr_contract::status::Status;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::net::SocketAddrV4;

/// Version of the protocol. Another one is refused with the name of the build that runs.
pub const PROTO: u32 = 1;

/// Longest line either side takes, in bytes.
pub const LINE_MAX: usize = 16 << 20;

/// This build, as the greeting names it.
pub fn build() -> String {
    format!(
        "{}+{}",
        env!("CARGO_PKG_VERSION"),
        option_env!("FAILOVERLAB_BUILD").unwrap_or("dev")
    )
}

/// First line of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Greeting {
    /// Version and build of the supervisor.
    pub failoverlab: String,
    /// Its protocol.
    pub proto: u32,
    /// The lab or fork it keeps.
    pub lab: String,
    /// Its process.
    pub pid: u32,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client; comes back in the reply.
    pub id: u64,
    /// What to do.
    #[serde(flatten)]
    pub verb: Verb,
}

/// What a supervisor can be asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "verb", content = "args", rename_all = "kebab-case")]
pub enum Verb {
    /// Make what is missing; ends when the lab is healthy.
    Up(Box<UpArgs>),
    /// Keep the lab as a checkpoint of this name: the answer is its `Meta`.
    Checkpoint {
        /// Name of the checkpoint.
        name: Name,
    },
    /// Bring the lab, or a new fork, back to the instant of a checkpoint.
    Restore(RestoreArgs),
    /// Remove everything that carries the lab's label, then end.
    Down,
    /// Machines, networks and what the runtime says: [`LabStatus`].
    Status(Option<Look>),
    /// Wait until something was heard: the answer is [`LabStatus::heard`] as it is then.
    News {
        /// More than this is waited for.
        beyond: u64,
        /// Longest wait in milliseconds.
        within_ms: u64,
    },
    /// Suspend all machines.
    Pause,
    /// Let all machines run again.
    Resume,
    /// Break something: the answer is a `FaultRecord`.
    Fault(Box<Fault>),
    /// Undo faults: one by number, or all. The answer is the list of their records.
    Heal {
        /// Number of the fault; all where absent.
        id: Option<u64>,
    },
    /// A word of the pack's contract: `move`, `stop`, `start`, `suspend`, `resume`, `reseed`, `set`: the answer is the runtime's
    /// `Answer`, also where it refuses.
    Operate {
        /// The word.
        word: String,
        /// Its arguments.
        args: Vec<String>,
        /// The node to ask; the active one where absent.
        node: Option<String>,
    },
    /// What the stores hold: a list of `Dump`, null for a node that does not answer.
    Dump,
    /// A connection from the workstation's own port to an address of the lab.
    Dial {
        /// Where to.
        to: SocketAddrV4,
        /// Longest wait in milliseconds.
        within_ms: u64,
    },
    /// Puts a person's own rules in force in the fabric, in place of those that it had. The rules of faults stay.
    Rules {
        /// All of the person's.
        rules: Vec<Rule>,
    },
    /// The fabric's counters and rules: [`Networks`].
    Counters,
    /// What is wrong with the lab before the next failure shows it: a [`crate::preflight::lab::Report`].
    Preflight,
    /// What passes the networks' ports from now on: after `ok` the connection carries pcapng until either side hangs up.
    Capture(CaptureFilter),
    /// Copies the ring, all that passed until now, into a file of the same host.
    KeepRing {
        /// The file.
        to: std::path::PathBuf,
    },
    /// Runs a command in a machine over its agent: after `ok` the connection carries frames of `lab_agent`, of one session that runs
    /// one command.
    Agent {
        /// The machine.
        node: String,
    },
    /// Every event from a number on, or from now on, until the client goes away.
    Events(Option<Since>),
    /// Wait until the journal has every event that the nodes had at this moment: the answer is [`CaughtUp`].
    CatchUp,
}

impl Verb {
    /// Its word, for messages.
    pub fn word(&self) -> &'static str {
        match self {
            Verb::Up(_) => "up",
            Verb::Checkpoint { .. } => "checkpoint",
            Verb::Restore(_) => "restore",
            Verb::Down => "down",
            Verb::Status(_) => "status",
            Verb::News { .. } => "news",
            Verb::Pause => "pause",
            Verb::Resume => "resume",
            Verb::Fault(_) => "fault",
            Verb::Heal { .. } => "heal",
            Verb::Operate { .. } => "operate",
            Verb::Dump => "dump",
            Verb::Dial { .. } => "dial",
            Verb::Rules { .. } => "rules",
            Verb::Counters => "counters",
            Verb::Preflight => "preflight",
            Verb::Capture(_) => "capture",
            Verb::KeepRing { .. } => "keep-ring",
            Verb::Agent { .. } => "agent",
            Verb::Events(_) => "events",
            Verb::CatchUp => "catch-up",
        }
    }
}

/// What is wanted of a look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// What a node says counts only where it was so after this, in microseconds since the journal began; a time yet to come means now.
    /// A node that has said nothing since is asked. What is as new as a watch makes it where absent.
    #[serde(default)]
    pub since_us: Option<u64>,
}

impl Look {
    /// What is so from now on.
    pub fn now() -> Self {
        Self::since(u64::MAX)
    }

    /// What was so after this, in microseconds since the journal began.
    pub fn since(us: u64) -> Self {
        Self { since_us: Some(us) }
    }
}

/// Where to begin to hear events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Since {
    /// Number of the first event; the next one that happens where absent.
    pub from: Option<u64>,
}

/// How far the journal has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaughtUp {
    /// The number of the journal's next event: who has all before it has all.
    pub next: u64,
    /// What is still missing, in words; empty where nothing is.
    pub behind: Vec<String>,
}

/// What `up` needs: everything that was decided before the supervisor began.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UpArgs {
    /// The lab and its image, acceleration, seed.
    #[serde(rename = "wish")]
    pub desired: super::record::DesiredState,
    /// Leave what was made when `up` fails, for a look.
    pub keep: bool,
    /// Boot, even where a checkpoint could be brought back.
    pub cold: bool,
}

/// Which checkpoint to come back from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RestoreArgs {
    /// The lab that it is of.
    pub lab: Name,
    /// Its name.
    pub checkpoint: Name,
}

/// A line of the supervisor after its greeting.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reply {
    /// Something happened.
    Event(Event),
    /// Events that cannot be told: the first and the last number. Never silence.
    Gap {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// The request is done.
    Ok {
        /// The request.
        id: u64,
        /// Its result.
        result: Value,
    },
    /// The request failed and was undone.
    Error {
        /// The request.
        id: u64,
        /// The exit code.
        code: u8,
        /// The problem; absent where the request was interrupted.
        problem: Option<Problem>,
    },
}

impl Reply {
    /// The reply for a result.
    pub fn of(id: u64, result: Result<Value, Error>) -> Self {
        match result {
            Ok(result) => Reply::Ok { id, result },
            Err(e) => Reply::Error {
                id,
                code: e.exit_code(),
                problem: e.problem().cloned(),
            },
        }
    }
}

/// The error that a reply carries.
pub fn error_of(code: u8, problem: Option<Problem>) -> Error {
    match (code, problem) {
        (2, Some(p)) => Error::Usage(p),
        (4, Some(p)) => Error::Host(p),
        (5, Some(p)) => Error::Operation(p),
        (130, _) => Error::Interrupted,
        (_, Some(p)) => Error::Bug(p),
        (code, None) => Error::Bug(
            Problem::new("understand the supervisor").observed(format!("an error of code {code} without words")),
        ),
    }
}

/// What the networks are doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Networks {
    /// Number of the rule set in force.
    pub revision: Revision,
    /// The rules in force.
    pub rules: Vec<Rule>,
    /// What was counted since the fabric began.
    pub counters: Counters,
}

/// What `status` shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LabStatus {
    /// The lab or fork.
    pub lab: String,
    /// Title of the lab.
    pub title: String,
    /// Acceleration in use.
    pub accel: crate::hypervisor::Accel,
    /// Recorded slowness of the host.
    pub slowness: f64,
    /// Microseconds since the journal began.
    pub t_us: u64,
    /// How often something was heard of the nodes until this look began.
    #[serde(default)]
    pub heard: u64,
    /// The machines.
    pub machines: Vec<MachineStatus>,
    /// Misconfigurations that are in it on purpose, for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mutations: Vec<String>,
    /// Faults in force.
    pub faults: Vec<crate::verify::FaultRecord>,
    /// Since when the networks were dark, and until when, in microseconds since the journal began: the supervisor had died.
    #[serde(rename = "dark")]
    pub network_outages: Vec<(u64, u64)>,
    /// Why the lab is not healthy, or why that is not known; absent where it is.
    pub unhealthy: Option<String>,
    /// Whether it is not known how the lab is: something could not be asked.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unknown: bool,
}

impl From<LabStatus> for Observation {
    fn from(status: LabStatus) -> Self {
        let view = |m: MachineStatus| {
            (
                m.node,
                NodeView {
                    machine: m.domain,
                    status: m.runtime,
                    error: m.runtime_error,
                    moment: m.moment,
                },
            )
        };
        Observation {
            t_us: status.t_us,
            nodes: status.machines.into_iter().map(view).collect(),
            network_outages: status.network_outages,
        }
    }
}

/// One machine in `status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// The node.
    pub node: String,
    /// Its role in the lab file.
    pub role: Option<crate::spec::NodeRole>,
    /// Its state; one that has no domain is off. Absent only where an older build answers.
    pub domain: Option<hypervisor::DomainState>,
    /// Its QEMU process.
    pub pid: Option<u32>,
    /// TCP port on 127.0.0.1 that leads to its SSH.
    pub ssh_port: u16,
    /// Network and address of each of its ports.
    pub addresses: Vec<(String, std::net::Ipv4Addr)>,
    /// What its runtime says; absent where it does not answer.
    pub runtime: Option<Status>,
    /// When that was so, in microseconds since the journal began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moment: Option<Moment>,
    /// How long ago that was heard, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Why its runtime does not answer.
    pub runtime_error: Option<String>,
}

/// What was seen of the machines.
pub fn looks(machines: &[MachineStatus]) -> Vec<NodeLook<'_>> {
    machines.iter().map(MachineStatus::look).collect()
}

/// The member that serves and answers for itself; `None` where none does.
pub fn active(machines: &[MachineStatus]) -> Option<&str> {
    let looks = looks(machines);
    let node = Merged::of(&looks).service()?.active.as_deref()?;
    let answers = |m: &&MachineStatus| m.node == node && m.runtime.is_some();
    machines.iter().find(answers).map(|m| m.node.as_str())
}

/// A member whose runtime answers.
pub fn any_member(machines: &[MachineStatus]) -> Option<&str> {
    machines
        .iter()
        .find(|m| m.role == Some(NodeRole::Member) && m.runtime.is_some())
        .map(|m| m.node.as_str())
}

impl MachineStatus {
    /// What was seen of it.
    pub fn look(&self) -> NodeLook<'_> {
        NodeLook {
            node: &self.node,
            role: self.role,
            machine: self.domain,
            status: self.runtime.as_ref(),
            error: self.runtime_error.as_deref(),
        }
    }

    /// Of a machine of the lab's record, by what the hypervisor has and its runtime said until `now_us`.
    pub fn of(
        node: &Node,
        ssh_port: u16,
        domains: &[Domain],
        runtime: Option<Result<(Status, Moment), Error>>,
        now_us: u64,
    ) -> Self {
        let (said, runtime_error) = match runtime {
            Some(Ok(said)) => (Some(said), None),
            Some(Err(e)) => (None, Some(e.to_string())),
            None => (None, None),
        };
        let (runtime, moment) = said.unzip();
        Self {
            node: node.name.to_string(),
            role: node.role,
            domain: Some(hypervisor::power(domains, &node.name)),
            pid: domains
                .iter()
                .find(|d| d.name == node.name.as_str())
                .and_then(|d| d.pid),
            ssh_port,
            addresses: node.nics.iter().map(|n| (n.network.to_string(), n.address)).collect(),
            runtime,
            moment,
            age_ms: moment.map(|m| now_us.saturating_sub(m.heard_us) / 1000),
            runtime_error,
        }
    }
}

#[cfg(test)]
pub(crate) mod sample {
    use super::*;
    use hypervisor::DomainState;

    /// A healthy lab, node1 serving in epoch 3.
    pub fn machines() -> Vec<MachineStatus> {
        let lab = crate::verify::sample::lab();
        let seen = crate::verify::sample::observation(&lab, 0, "node1", 5, 5);
        let of = |n: &Node| MachineStatus {
            domain: Some(DomainState::Running),
            runtime: seen.nodes[n.name.as_str()].status.clone(),
            ..MachineStatus::of(n, 1, &[], None, 0)
        };
        lab.nodes.iter().map(of).collect()
    }

    /// The machine of this name.
    pub fn member<'a>(all: &'a mut [MachineStatus], name: &str) -> &'a mut MachineStatus {
        all.iter_mut().find(|m| m.node == name).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::sample::{machines, member};
    use super::*;

    #[test]
    fn orders_go_to_whoever_serves_and_answers() {
        let mut all = machines();
        assert_eq!(active(&all), Some("node1"));
        // What the other one last heard is no answer.
        member(&mut all, "node1").runtime = None;
        assert_eq!((active(&all), any_member(&all)), (None, Some("node2")));
    }

    #[test]
    fn an_observation_has_all_that_was_seen_of_the_nodes() {
        let mut all = machines();
        let silent = member(&mut all, "node2");
        (silent.runtime, silent.runtime_error) = (None, Some("no answer".into()));
        let lab = crate::verify::sample::lab();
        let status = LabStatus {
            lab: "ccr".into(),
            title: "x".into(),
            accel: hypervisor::Accel::Tcg,
            slowness: 1.0,
            t_us: 7,
            heard: 0,
            machines: all.clone(),
            mutations: Vec::new(),
            faults: Vec::new(),
            network_outages: Vec::new(),
            unhealthy: None,
            unknown: false,
        };
        let seen = Observation::from(status);
        let wrong = crate::verify::unhealthy(&lab, &seen.looks(&lab));
        assert_eq!(wrong, crate::verify::unhealthy(&lab, &looks(&all)));
        assert_eq!(wrong[0], "the runtime on node2 does not answer: no answer");
    }

    #[test]
    fn requests_are_the_words_of_the_contract() {
        let r = Request {
            id: 1,
            verb: Verb::Heal { id: None },
        };
        assert_eq!(
            serde_json::to_string(&r).unwrap(),
            r#"{"id":1,"verb":"heal","args":{"id":null}}"#
        );
        let parse = |text| serde_json::from_str::<Request>(text).unwrap().verb;
        assert_eq!(parse(r#"{"id":2,"verb":"status"}"#), Verb::Status(None));
        let since = Verb::Status(Some(Look::since(812)));
        assert_eq!(parse(r#"{"id":2,"verb":"status","args":{"since_us":812}}"#), since);
        let from = Verb::Events(Some(Since { from: Some(812) }));
        assert_eq!(parse(r#"{"id":3,"verb":"events","args":{"from":812}}"#), from);
        // As builds before asked: from now on.
        assert_eq!(parse(r#"{"id":4,"verb":"events"}"#), Verb::Events(None));
        let gap = serde_json::to_string(&Reply::Gap { from: 900, to: 1204 }).unwrap();
        assert_eq!(gap, r#"{"gap":{"from":900,"to":1204}}"#);
    }

    #[test]
    fn an_error_survives_the_socket() {
        let e = Error::Host(Problem::new("fit the lab").observed("1 GiB free"));
        let Reply::Error { code, problem, .. } = Reply::of(1, Err(e)) else {
            panic!()
        };
        let back = error_of(code, problem);
        assert_eq!(
            (back.exit_code(), back.to_string()),
            (4, "could not fit the lab: 1 GiB free".into())
        );
    }
}
