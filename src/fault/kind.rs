//! The kinds of faults: one word each, the same everywhere.

use crate::error::{Error, Problem, Result};
use serde::{Deserialize, Serialize};

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "`Kind::says` has a sentence on each")]
pub enum Kind {
    PowerOff,
    PowerOn,
    Freeze,
    Resume,
    LinkDown,
    LinkUp,
    Cut,
    Loss,
    Delay,
    Duplicate,
    Reorder,
    Rate,
    Mtu,
    Flap,
    Corrupt,
    Isolate,
    Partition,
    CutWitness,
    SwitchDead,
    Kill,
}

/// A parameter and what it is, for help and errors.
pub type Parameter = (&'static str, &'static str);

const NETWORK: Parameter = ("network", "networks, comma between them; all where absent");
const OWN_NETWORK: Parameter = (
    "network",
    "networks, comma between them; all of the machine's where absent",
);
/// Whose frames.
const WHOSE: [Parameter; 2] = [
    (
        "direction",
        "both, in or out, seen from the machine or from the first of `between`",
    ),
    ("between", "two machines, comma between them"),
];
/// Which of them.
const WHICH: [Parameter; 4] = [
    ("proto", "tcp, udp or icmp"),
    ("port", "TCP or UDP port, either end"),
    ("ethertype", "arp, ipv4, ipv6 or a number like 0x88cc"),
    (
        "address",
        "IPv4 address, or the name of the service or cluster, either end",
    ),
];
const SEED: Parameter = ("seed", "of the random choices; the run's in a scenario, else 0");

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 20] = [
        Kind::PowerOff,
        Kind::PowerOn,
        Kind::Freeze,
        Kind::Resume,
        Kind::LinkDown,
        Kind::LinkUp,
        Kind::Cut,
        Kind::Loss,
        Kind::Delay,
        Kind::Duplicate,
        Kind::Reorder,
        Kind::Rate,
        Kind::Mtu,
        Kind::Flap,
        Kind::Corrupt,
        Kind::Isolate,
        Kind::Partition,
        Kind::CutWitness,
        Kind::SwitchDead,
        Kind::Kill,
    ];

    /// Its word in scenario files, on the command line and in reports.
    pub fn word(self) -> &'static str {
        match self {
            Kind::PowerOff => "power-off",
            Kind::PowerOn => "power-on",
            Kind::Freeze => "freeze",
            Kind::Resume => "resume",
            Kind::LinkDown => "link-down",
            Kind::LinkUp => "link-up",
            Kind::Cut => "cut",
            Kind::Loss => "loss",
            Kind::Delay => "delay",
            Kind::Duplicate => "duplicate",
            Kind::Reorder => "reorder",
            Kind::Rate => "rate",
            Kind::Mtu => "mtu",
            Kind::Flap => "flap",
            Kind::Corrupt => "corrupt",
            Kind::Isolate => "isolate",
            Kind::Partition => "partition",
            Kind::CutWitness => "cut-witness",
            Kind::SwitchDead => "switch-dead",
            Kind::Kill => "kill",
        }
    }

    /// What happens, and what proves it: for help and docs.
    pub fn says(self) -> (&'static str, &'static str) {
        const DROPPED: &str = "frames that its rules dropped, counted until it is undone";
        match self {
            Kind::PowerOff => (
                "the machine stops at once, its memory is lost",
                "domain and process are gone",
            ),
            Kind::PowerOn => ("a machine that is off starts again", "the domain runs"),
            Kind::Freeze => (
                "the processors stand still",
                "the domain is paused; the guest's boot-time clock stood still",
            ),
            Kind::Resume => ("a frozen machine goes on", "the domain runs"),
            Kind::LinkDown => (
                "the carrier goes away",
                "the guest's own view of the carrier, else the domain's",
            ),
            Kind::LinkUp => ("the carrier comes back", "the same"),
            Kind::Cut => ("frames are dropped silently", DROPPED),
            Kind::Loss => ("a share of the frames is dropped", DROPPED),
            Kind::Delay => ("frames take longer", "frames that its rules delayed"),
            Kind::Duplicate => ("a share of the frames arrives twice", "frames that were doubled"),
            Kind::Reorder => (
                "frames are delayed, and a share of them overtakes",
                "frames that were delayed and frames that overtook",
            ),
            Kind::Rate => (
                "only so much passes; the rest waits in a queue, and is dropped where that is full",
                "frames that waited or were dropped",
            ),
            Kind::Mtu => ("longer packets are dropped without a word", DROPPED),
            Kind::Flap => ("the cable is cut and whole by turns", DROPPED),
            Kind::Corrupt => (
                "one byte is changed in a share of the frames",
                "frames that were changed",
            ),
            Kind::Isolate => ("the machine reaches no other one", DROPPED),
            Kind::Partition => ("the machines of each side reach only one another", DROPPED),
            Kind::CutWitness => (
                "the machine does not reach the share `witness` (SMB); all else passes",
                DROPPED,
            ),
            Kind::SwitchDead => ("no machine reaches another one", DROPPED),
            Kind::Kill => ("a process gets a signal", "the process is gone (STOP: stands still)"),
        }
    }

    /// The parameters that it takes.
    pub fn parameters(self) -> Vec<Parameter> {
        let own: &[Parameter] = match self {
            Kind::PowerOff | Kind::PowerOn | Kind::Freeze | Kind::Resume => &[],
            Kind::LinkDown | Kind::LinkUp => &[OWN_NETWORK],
            Kind::Kill => &[
                ("process", "name of the process, at most 15 bytes"),
                ("signal", "KILL, TERM, ABRT or STOP; KILL where absent"),
            ],
            Kind::Isolate => &[OWN_NETWORK],
            Kind::CutWitness | Kind::SwitchDead => &[NETWORK],
            Kind::Partition => &[
                (
                    "sides",
                    "machines, comma between them, a slash between the sides: a/b,hub",
                ),
                NETWORK,
            ],
            Kind::Cut => &[],
            Kind::Loss => &[
                ("loss", "share, like 30%"),
                (
                    "burst",
                    "mean length of a burst of losses, in frames; each by itself where absent",
                ),
                SEED,
            ],
            Kind::Delay => &[
                ("delay", "time on the way, like 100 ms"),
                ("jitter", "how much it varies, like 10 ms"),
                ("distribution", "uniform, normal or pareto; uniform where absent"),
                SEED,
            ],
            Kind::Duplicate => &[("duplicate", "share, like 5%"), SEED],
            Kind::Reorder => &[
                ("reorder", "share that overtakes, like 5%"),
                ("delay", "of the others, like 10 ms"),
                SEED,
            ],
            Kind::Rate => &[
                ("rate", "like 10 Mbit/s"),
                ("queue", "bound of what waits, like 64 KiB, which it is where absent"),
            ],
            Kind::Mtu => &[("mtu", "longest IP packet that passes, in bytes")],
            Kind::Flap => &[
                ("down", "how long it is cut, like 1 s"),
                ("up", "how long it is whole, like 5 s"),
            ],
            Kind::Corrupt => &[
                ("corrupt", "share, like 1%"),
                (
                    "mend",
                    "true: with right checksums, so that the application sees it; else the receiver's kernel drops it",
                ),
                SEED,
            ],
        };
        let mut all = own.to_vec();
        if self.takes_frames() {
            all.push(NETWORK);
            all.extend(WHOSE);
            all.extend(WHICH);
        }
        all
    }

    /// Whether it is done to frames that can be chosen: of one machine, two, or a network; by protocol, port, address.
    pub fn takes_frames(self) -> bool {
        match self {
            Kind::Cut | Kind::Loss | Kind::Delay | Kind::Duplicate => true,
            Kind::Reorder | Kind::Rate | Kind::Mtu | Kind::Flap | Kind::Corrupt => true,
            Kind::PowerOff | Kind::PowerOn | Kind::Freeze | Kind::Resume | Kind::LinkDown | Kind::LinkUp => false,
            Kind::Isolate | Kind::Partition | Kind::CutWitness | Kind::SwitchDead | Kind::Kill => false,
        }
    }

    /// Whether it hits a machine that must be named.
    pub(super) fn needs_target(self) -> bool {
        !self.takes_frames() && !matches!(self, Kind::Partition | Kind::SwitchDead)
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.word())
    }
}

impl std::str::FromStr for Kind {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        Kind::ALL.into_iter().find(|k| k.word() == s).ok_or_else(|| {
            let known = Kind::ALL.map(Kind::word).join(", ");
            Error::Usage(
                Problem::new("find the fault")
                    .on(format!("`{}`", s.escape_debug()))
                    .observed("there is no such fault")
                    .remedy(format!("the faults are {known}")),
            )
        })
    }
}
