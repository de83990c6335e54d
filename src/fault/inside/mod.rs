//! Faults that are made inside a machine: by argument vectors that run there, proven by what the machine says behind them.
//!
//! Each kind is a type with what it needs of the words, [`Injury`] is what it does. What an undo needs is on disk before anything is
//! done ([`Scene::about_to`]).

mod clock;
mod crash;
mod damage;
mod disk;
mod share;
mod starve;
mod unit;

use super::{FaultContext, InsideKind, Target, Words};
use crate::error::{Error, Problem, Result};
use crate::guest::{Command, Output, Remote};
use crate::hypervisor::DomainState;
use crate::spec::{Lab, Node};
use crate::verify::FaultRecord;
use crate::wait::{Deadline, Probe, wait_until};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// A few commands in a guest, or one that writes a disk full.
const ACT: Duration = Duration::from_secs(60);
/// A machine that was started again answers in about half of it.
const BOOT: Duration = Duration::from_secs(90);

/// A fault inside a machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inside<T> {
    /// The machine.
    #[serde(flatten)]
    pub on: Target,
    /// What is done there.
    #[serde(flatten)]
    pub what: T,
}

/// What a kind does.
trait Injury {
    /// What is not right with it in this lab, on this node: what, and what would be.
    fn misfit(&self, lab: &Lab, node: &Node) -> Option<(String, String)> {
        let _ = (lab, node);
        None
    }

    /// Makes it happen and proves it.
    fn make(&self, scene: &mut Scene<'_>) -> Result<()>;

    /// Takes it back, whole or in part; what is taken back already is left alone.
    fn mend(&self, scene: &mut Scene<'_>) -> Result<()>;
}

/// One line for each kind: its word's kind, and the type that knows it.
macro_rules! injuries {
    ($($kind:ident($injury:ty))*) => {
        /// What is done inside a machine. Its JSON is that of the kind's own fields; the kind stands beside it.
        #[derive(Debug, Clone, PartialEq, Serialize)]
        #[serde(untagged)]
        pub enum What {
            $(#[doc = concat!("[`InsideKind::", stringify!($kind), "`].")] $kind($injury),)*
        }

        impl What {
            /// Its kind.
            pub fn kind(&self) -> InsideKind {
                match self {
                    $(What::$kind(_) => InsideKind::$kind,)*
                }
            }

            /// What the words say.
            pub(super) fn said(kind: InsideKind, words: &Words) -> Result<Self> {
                Ok(match kind {
                    $(InsideKind::$kind => What::$kind(<$injury>::said(words)?),)*
                })
            }

            /// What a record says.
            pub(super) fn recorded(kind: InsideKind, target: Value) -> serde_json::Result<Inside<What>> {
                Ok(match kind {
                    $(InsideKind::$kind => {
                        let Inside { on, what } = serde_json::from_value::<Inside<$injury>>(target)?;
                        Inside { on, what: What::$kind(what) }
                    })*
                })
            }

            fn injury(&self) -> &dyn Injury {
                match self {
                    $(What::$kind(injury) => injury,)*
                }
            }
        }
    };
}

injuries! {
    Reset(crash::Reset)
    Panic(crash::Panic)
    Clock(clock::Clock)
    StopUnit(unit::StopUnit)
    MaskUnit(unit::MaskUnit)
    DiskFull(disk::DiskFull)
    DiskReadOnly(disk::DiskReadOnly)
    DiskGone(disk::DiskGone)
    DamageFile(damage::DamageFile)
    WitnessShare(share::WitnessShare)
    CpuStarve(starve::CpuStarve)
    MemoryPressure(starve::MemoryPressure)
}

impl Inside<What> {
    /// The fault, where it makes sense in this lab.
    pub(super) fn resolve(words: &Words, kind: InsideKind, lab: &Lab, on: Target) -> Result<Self> {
        let what = What::said(kind, words)?;
        let node = lab.node(&on.node);
        if let Some((seen, remedy)) = node.and_then(|n| what.injury().misfit(lab, n)) {
            return Err(words.wrong(seen, remedy));
        }
        Ok(Self { on, what })
    }
}

pub(super) fn make(context: &dyn FaultContext, fault: &Inside<What>, record: &mut FaultRecord) -> Result<()> {
    let mut scene = Scene::new(context, &fault.on, record, ACT);
    fault.what.injury().make(&mut scene)
}

pub(super) fn mend(context: &dyn FaultContext, fault: &Inside<What>, record: &mut FaultRecord) -> Result<()> {
    // Nothing was begun: what an undo needs is kept before. Or it is over.
    let begun = record.proof.as_object().is_some_and(|p| !p.is_empty());
    if !begun || record.end_us.is_some() {
        return Ok(());
    }
    let mut scene = Scene::new(context, &fault.on, record, BOOT);
    fault.what.injury().mend(&mut scene)
}

/// The machine in which something is done, and the record of it.
struct Scene<'a> {
    context: &'a dyn FaultContext,
    on: &'a Target,
    record: &'a mut FaultRecord,
    deadline: Deadline,
    guest: Option<Box<dyn Remote>>,
}

impl<'a> Scene<'a> {
    fn new(context: &'a dyn FaultContext, on: &'a Target, record: &'a mut FaultRecord, time: Duration) -> Self {
        Self {
            context,
            on,
            record,
            deadline: Deadline::scaled(time, context.slowness()),
            guest: None,
        }
    }

    /// Whether the machine can be acted in. One in which something outlives a restart is waited for; another one was hit by another
    /// fault, and comes back without this one.
    fn reached(&mut self, outlives: bool) -> Result<bool> {
        let (context, node, deadline) = (self.context, &self.on.node, self.deadline);
        let must = outlives || self.record.pending;
        self.guest = wait_until("reach the machine to undo a fault in it", deadline, || {
            let state = context.hypervisor().lookup(node)?.map(|d| d.state);
            let seen = match state {
                Some(DomainState::Running) => match context.remote(node, deadline) {
                    Ok(guest) => return Ok(Probe::Ready(Some(guest))),
                    Err(e) => e.to_string(),
                },
                other => format!("{node} is {}", other.map_or("off".to_owned(), |s| format!("{s:?}"))),
            };
            Ok(if must { Probe::NotYet(seen) } else { Probe::Ready(None) })
        })?;
        Ok(self.guest.is_some())
    }

    /// Runs a command in the machine.
    fn run(&mut self, command: &Command) -> Result<Output> {
        let guest = match &mut self.guest {
            Some(guest) => guest,
            none => none.insert(self.context.remote(&self.on.node, self.deadline)?),
        };
        guest.exec(command, self.deadline)
    }

    /// What a command printed that has to end well.
    fn text<S: Into<String>>(&mut self, what: &str, argv: impl IntoIterator<Item = S>) -> Result<String> {
        let on = self.on.node.clone();
        self.run(&Command::new(argv))?.check_text(what, on)
    }

    /// Keeps what an undo needs, before anything is done.
    fn about_to(&mut self, proof: Value) -> Result<()> {
        self.record.proof = proof;
        self.context.keep(self.record)
    }

    /// Notes that it happened now, what was seen behind it, and whether that proves it.
    fn happened(&mut self, began_us: u64, seen: Value, effective: Option<bool>) {
        self.record.begin_us = began_us;
        if let (Some(proof), Value::Object(seen)) = (self.record.proof.as_object_mut(), seen) {
            proof.extend(seen);
        }
        self.record.effective = effective;
    }

    fn now_us(&self) -> u64 {
        self.context.journal().now_us()
    }

    /// A name for what belongs to this fault in the machine.
    fn own_name(&self) -> String {
        format!("failoverlab-fault-{}", self.record.id)
    }

    fn refused(&self, what: &str, on: impl std::fmt::Display, seen: impl std::fmt::Display) -> Error {
        let on = format!("{on} on {}", self.on.node);
        Error::Usage(Problem::new(what).on(on).observed(seen))
    }

    /// The process of the machine.
    fn pid(&self) -> Result<Option<u32>> {
        Ok(self.context.hypervisor().lookup(&self.on.node)?.and_then(|d| d.pid))
    }

    /// Takes the power and gives it back, where the machine is still the one that the fault hit.
    fn power_cycle(&self) -> Result<()> {
        let hypervisor = self.context.hypervisor();
        let hit = self.record.proof["pid"].as_u64();
        match hypervisor.lookup(&self.on.node)? {
            Some(d) if d.state != DomainState::Off => {
                if d.pid.map(u64::from) != hit {
                    return Ok(());
                }
                hypervisor.destroy(&self.on.node)?;
            }
            _ => {}
        }
        self.context.restart_machine(&self.on.node)
    }
}
