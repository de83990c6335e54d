//! The kinds of faults: one word each, the same everywhere.

use crate::error::{Error, Problem, Result};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`super::Fault::PowerOff`].
    PowerOff,
    /// [`super::Fault::PowerOn`].
    PowerOn,
    /// [`super::Fault::Freeze`].
    Freeze,
    /// [`super::Fault::Resume`].
    Resume,
    /// [`super::Fault::LinkDown`].
    LinkDown,
    /// [`super::Fault::LinkUp`].
    LinkUp,
    /// [`super::Fault::Kill`].
    Kill,
    /// Something that is done inside a machine.
    Inside(InsideKind),
    /// Something that the fabric does to frames.
    Traffic(TrafficKind),
}

/// A parameter and what it is, for help and errors.
pub type Parameter = (&'static str, &'static str);

/// What is said of a kind.
struct About {
    /// Its word in scenario files, on the command line and in reports.
    word: &'static str,
    /// What happens.
    what: &'static str,
    /// What proves it.
    proof: &'static str,
    /// The parameters of its own.
    parameters: &'static [Parameter],
}

const fn about(word: &'static str, what: &'static str, proof: &'static str, parameters: &'static [Parameter]) -> About {
    About {
        word,
        what,
        proof,
        parameters,
    }
}

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
const DROPPED: &str = "frames that its rules dropped, counted until it is undone";

/// An enum, all its values, and what is said of each: one row for a kind.
macro_rules! kinds {
    ($(#[$doc:meta])* $name:ident { $($kind:ident: $word:literal, $what:literal, $proof:expr, $parameters:expr;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $(#[doc = $what] $kind,)*
        }

        impl $name {
            /// Every one.
            pub const ALL: &[$name] = &[$($name::$kind,)*];

            fn about(self) -> About {
                match self {
                    $($name::$kind => about($word, $what, $proof, &$parameters),)*
                }
            }
        }
    };
}

kinds! {
    /// The kinds of faults that the fabric makes: something happens to frames.
    TrafficKind {
        Cut: "cut", "frames are dropped silently", DROPPED, [];
        Loss: "loss", "a share of the frames is dropped", DROPPED, [
            ("loss", "share, like 30%"),
            ("burst", "mean length of a burst of losses, in frames; each by itself where absent"),
            SEED,
        ];
        Delay: "delay", "frames take longer", "frames that its rules delayed", [
            ("delay", "time on the way, like 100 ms"),
            ("jitter", "how much it varies, like 10 ms"),
            ("distribution", "uniform, normal or pareto; uniform where absent"),
            SEED,
        ];
        Duplicate: "duplicate", "a share of the frames arrives twice", "frames that were doubled", [
            ("duplicate", "share, like 5%"),
            SEED,
        ];
        Reorder: "reorder", "frames are delayed, and a share of them overtakes",
            "frames that were delayed and frames that overtook", [
            ("reorder", "share that overtakes, like 5%"),
            ("delay", "of the others, like 10 ms"),
            SEED,
        ];
        Rate: "rate", "only so much passes; the rest waits in a queue, and is dropped where that is full",
            "frames that waited or were dropped", [
            ("rate", "like 10 Mbit/s"),
            ("queue", "bound of what waits, like 64 KiB, which it is where absent"),
        ];
        Mtu: "mtu", "longer packets are dropped without a word", DROPPED, [
            ("mtu", "longest IP packet that passes, in bytes"),
        ];
        Flap: "flap", "the cable is cut and whole by turns", DROPPED, [
            ("down", "how long it is cut, like 1 s"),
            ("up", "how long it is whole, like 5 s"),
        ];
        Corrupt: "corrupt", "one byte is changed in a share of the frames", "frames that were changed", [
            ("corrupt", "share, like 1%"),
            (
                "mend",
                "true: with right checksums, so that the application sees it; else the receiver's kernel drops it",
            ),
            SEED,
        ];
        Isolate: "isolate", "the machine reaches no other one", DROPPED, [OWN_NETWORK];
        Partition: "partition", "the machines of each side reach only one another", DROPPED, [
            ("sides", "machines, comma between them, a slash between the sides: a/b,hub"),
            NETWORK,
        ];
        CutWitness: "cut-witness", "the machine does not reach the share `witness` (SMB); all else passes", DROPPED,
            [NETWORK];
        SwitchDead: "switch-dead", "no machine reaches another one", DROPPED, [NETWORK];
    }
}

const DISK: Parameter = ("disk", "name of one of the machine's disks; data where absent");

kinds! {
    /// The kinds of faults that are made inside a machine.
    InsideKind {
        Reset: "reset", "the machine loses power and gets it back at once", "its process is another one", [];
        Panic: "panic", "the kernel panics, and the machine stands still until it is undone: its power is taken and given back",
            "what the console says", [];
        Clock: "clock", "the real-time clock jumps, once or by turns", "the clock, against that of this host", [
            ("step", "by how much, like 1 h, or -1 h for back"),
            ("strobe", "by turns there and back: how long it stays, like 500 ms; once where absent"),
        ];
        StopUnit: "stop-unit", "a unit of systemd is stopped, as by an operator", "systemd's word", [
            ("unit", "its name, like ccrd.service"),
        ];
        MaskUnit: "mask-unit", "a unit of systemd is stopped, and nothing can start it, not even a restart of the machine",
            "a start that is refused", [
            ("unit", "its name, like ccrd.service"),
        ];
        DiskFull: "disk-full", "a file takes all the room of a disk; it is removed again", "room that is left", [
            ("disk", "name of one of the machine's disks, or root; data where absent"),
        ];
        DiskReadOnly: "disk-read-only",
            "the file system of a disk gives up as behind an error: nothing can be written; undone by a new start",
            "a write that is refused", [DISK];
        DiskGone: "disk-gone", "a disk is pulled out, what is asked of it fails; undone by a new start",
            "the kernel lists it no more", [DISK];
        DamageFile: "damage-file",
            "a file of the runtime is damaged; undone, it is as before, unless the runtime has changed it since",
            "digests of the file", [
            ("file", "what it is; the pack has the words, like log or segment"),
            ("how", "flip (one byte), truncate, zero, delete, or old-copy (the one before it stands in its place)"),
            ("which", "first, middle or last of several, by name; middle where absent"),
        ];
        WitnessShare: "witness-share", "something is wrong with the share `witness`", "what its machine says", [
            ("how", "stopped, read-only, wrong-rights or gone"),
        ];
        CpuStarve: "cpu-starve", "others take ten of eleven parts of the processors' time", "processors that are never idle", [];
        MemoryPressure: "memory-pressure", "memory is taken until little is left", "what the kernel says is left", [
            ("leave", "how much is left, like 16 MiB, which it is where absent"),
        ];
    }
}

impl TrafficKind {
    /// Whether it is done to frames that can be chosen: of one machine, two, or a network; by protocol, port, address.
    pub fn takes_frames(self) -> bool {
        use TrafficKind::{CutWitness, Isolate, Partition, SwitchDead};
        !matches!(self, Isolate | Partition | CutWitness | SwitchDead)
    }

    /// Whether it makes random choices, which a seed repeats.
    pub(super) fn is_random(self) -> bool {
        self.about().parameters.contains(&SEED)
    }

    /// Whether it hits a machine that must be named.
    pub(super) fn needs_target(self) -> bool {
        matches!(self, TrafficKind::Isolate | TrafficKind::CutWitness)
    }
}

impl Kind {
    /// Every kind, in the order of help and docs.
    pub fn all() -> impl Iterator<Item = Kind> {
        use Kind::{Freeze, Kill, LinkDown, LinkUp, PowerOff, PowerOn, Resume};
        let traffic = TrafficKind::ALL.iter().copied().map(Kind::Traffic);
        let before = [PowerOff, PowerOn, Freeze, Resume, LinkDown, LinkUp];
        let inside = InsideKind::ALL.iter().copied().map(Kind::Inside);
        before.into_iter().chain(traffic).chain([Kill]).chain(inside)
    }

    fn about(self) -> About {
        match self {
            Kind::PowerOff => about(
                "power-off",
                "the machine stops at once, its memory is lost",
                "domain and process are gone",
                &[],
            ),
            Kind::PowerOn => about("power-on", "a machine that is off starts again", "the domain runs", &[]),
            Kind::Freeze => about(
                "freeze",
                "the processors stand still",
                "the domain is paused; the guest's boot-time clock stood still",
                &[],
            ),
            Kind::Resume => about("resume", "a frozen machine goes on", "the domain runs", &[]),
            Kind::LinkDown => about(
                "link-down",
                "the carrier goes away",
                "the guest's own view of the carrier, else the domain's",
                &[OWN_NETWORK],
            ),
            Kind::LinkUp => about("link-up", "the carrier comes back", "the same", &[OWN_NETWORK]),
            Kind::Kill => about(
                "kill",
                "a process gets a signal",
                "the process is gone (STOP: stands still)",
                &[
                    ("process", "name of the process, at most 15 bytes"),
                    ("signal", "KILL, TERM, ABRT or STOP; KILL where absent"),
                ],
            ),
            Kind::Traffic(kind) => kind.about(),
            Kind::Inside(kind) => kind.about(),
        }
    }

    /// Its word in scenario files, on the command line and in reports.
    pub fn word(self) -> &'static str {
        self.about().word
    }

    /// What happens, and what proves it: for help and docs.
    pub fn says(self) -> (&'static str, &'static str) {
        let about = self.about();
        (about.what, about.proof)
    }

    /// The parameters that it takes.
    pub fn parameters(self) -> Vec<Parameter> {
        let mut all = self.about().parameters.to_vec();
        if let Kind::Traffic(kind) = self
            && kind.takes_frames()
        {
            all.push(NETWORK);
            all.extend(WHOSE);
            all.extend(WHICH);
        }
        all
    }

    /// Whether it hits a machine that must be named.
    pub(super) fn needs_target(self) -> bool {
        match self {
            Kind::Traffic(kind) => kind.needs_target(),
            _ => true,
        }
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
        Kind::all().find(|k| k.word() == s).ok_or_else(|| {
            let known: Vec<_> = Kind::all().map(Kind::word).collect();
            Error::Usage(
                Problem::new("find the fault")
                    .on(format!("`{}`", s.escape_debug()))
                    .observed("there is no such fault")
                    .remedy(format!("the faults are {}", known.join(", "))),
            )
        })
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, s: S) -> std::result::Result<S::Ok, S::Error> {
        s.serialize_str(self.word())
    }
}

impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: Deserializer<'de>>(d: D) -> std::result::Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}
