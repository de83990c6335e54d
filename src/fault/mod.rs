//! The fault vocabulary: each injector returns evidence that it took effect, and has an undo that may be called twice.
//!
//! A fault has one word, the same in a scenario file, on the command line (`failoverlab fault LAB KIND [--on T]
//! [key=value]…`) and in the report. [`Words`] is what a person says, [`Fault`] is what was understood: every role is a
//! node by then. [`inject`] and [`undo`] act through a [`FaultContext`], which the supervisor is.

mod inside;
mod kill;
mod kind;
mod link;
mod power;
#[cfg(test)]
mod tests;
mod traffic;
mod words;

pub use inside::{Inside, What};
pub use kind::{InsideKind, Kind, Parameter, TrafficKind};
pub use traffic::Traffic;
pub use words::Words;

use crate::deploy::Places;
use crate::error::{Error, Problem, Result};
use crate::event::{Draft, Journal, Severity, Source};
use crate::fabric::{Control, Rule};
use crate::guest::Remote;
use crate::hypervisor::Hypervisor;
use crate::spec::Lab;
use crate::verify::FaultRecord;
use crate::wait::{Deadline, Slowness};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// What an injector needs of the process that runs the lab.
pub trait FaultContext {
    /// The resolved lab.
    fn lab(&self) -> &Lab;
    /// Its machines.
    fn hypervisor(&self) -> &dyn Hypervisor;
    /// Its networks.
    fn fabric(&self) -> &dyn Control;
    /// A way into a machine that needs no lab network.
    fn remote(&self, node: &str, deadline: Deadline) -> Result<Box<dyn Remote>>;
    /// Where the runtime has what in a machine.
    fn places(&self, node: &str) -> Result<Places>;
    /// Powers a machine on that is off: creates it again from its record, on the disks that it had.
    fn restart_machine(&self, node: &str) -> Result<()>;
    /// Where faults are journalled.
    fn journal(&self) -> &Journal;
    /// How slow this machine is.
    fn slowness(&self) -> Slowness;
    /// A number for the next fault, never given twice in the life of the lab.
    fn next_fault(&self) -> u64;
    /// Keeps the record of a fault where whoever comes after this process finds it; one of the same number is replaced.
    fn keep(&self, record: &FaultRecord) -> Result<()>;
    /// Forgets the record of a fault that was never made.
    fn forget(&self, id: u64) -> Result<()>;
}

/// A fault with everything resolved. Its JSON is `{"kind":…,"target":…}`, the first two fields of a [`FaultRecord`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(into = "Tagged", try_from = "Tagged")]
pub enum Fault {
    /// The machine stops at once, as if its cable had been pulled; its memory is lost.
    PowerOff(Target),
    /// A machine that is off starts again.
    PowerOn(Target),
    /// The machine's processors stand still; its boot-time clock too.
    Freeze(Target),
    /// A frozen machine goes on.
    Resume(Target),
    /// The carrier goes away, as the guest sees it.
    LinkDown(Cable),
    /// The carrier comes back.
    LinkUp(Cable),
    /// A process in the machine gets a signal.
    Kill(Process),
    /// Something is done inside a machine.
    Inside(Box<Inside<What>>),
    /// Something happens to frames.
    Traffic {
        /// What it is called, and what proves it.
        kind: TrafficKind,
        /// Which frames, and what happens to them.
        spec: Box<Traffic>,
    },
}

/// A fault as JSON has it: its word, and whom it hits.
#[derive(Serialize, Deserialize)]
struct Tagged {
    kind: Kind,
    target: Value,
}

/// A machine, and by which role it was named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// `active`, `witness` …; none where it was named itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The node.
    pub node: String,
}

/// Some of a machine's cables.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cable {
    /// The machine.
    #[serde(flatten)]
    pub on: Target,
    /// The networks they lead to.
    pub networks: Vec<String>,
}

/// A process in a machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// The machine.
    #[serde(flatten)]
    pub on: Target,
    /// Its name, as the kernel has it (at most 15 bytes).
    pub process: String,
    /// The signal.
    pub signal: Signal,
}

/// A signal that [`Fault::Kill`] sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Signal {
    /// Ends it at once.
    Kill,
    /// Asks it to end.
    Term,
    /// Ends it as a crash would.
    Abrt,
    /// It stands still, and the kernel keeps its connections.
    Stop,
}

impl Signal {
    const ALL: [Signal; 4] = [Signal::Kill, Signal::Term, Signal::Abrt, Signal::Stop];

    /// As `kill -s` takes it.
    fn word(self) -> &'static str {
        match self {
            Signal::Kill => "KILL",
            Signal::Term => "TERM",
            Signal::Abrt => "ABRT",
            Signal::Stop => "STOP",
        }
    }
}

impl Fault {
    /// Its word.
    pub fn kind(&self) -> Kind {
        match self {
            Fault::PowerOff(_) => Kind::PowerOff,
            Fault::PowerOn(_) => Kind::PowerOn,
            Fault::Freeze(_) => Kind::Freeze,
            Fault::Resume(_) => Kind::Resume,
            Fault::LinkDown(_) => Kind::LinkDown,
            Fault::LinkUp(_) => Kind::LinkUp,
            Fault::Kill(_) => Kind::Kill,
            Fault::Inside(inside) => Kind::Inside(inside.what.kind()),
            Fault::Traffic { kind, .. } => Kind::Traffic(*kind),
        }
    }

    /// Gives its random choices a seed, where it has none of its own.
    #[must_use]
    pub fn seeded(mut self, seed: u64) -> Self {
        if let Fault::Traffic { kind, spec } = &mut self
            && kind.is_random()
        {
            spec.seed.get_or_insert(seed);
        }
        self
    }

    /// The machines that it hits; empty where it hits a whole network.
    pub fn nodes(&self) -> Vec<&str> {
        match self {
            Fault::PowerOff(t) | Fault::PowerOn(t) | Fault::Freeze(t) | Fault::Resume(t) => vec![&t.node],
            Fault::LinkDown(c) | Fault::LinkUp(c) => vec![&c.on.node],
            Fault::Kill(p) => vec![&p.on.node],
            Fault::Inside(inside) => vec![&inside.on.node],
            Fault::Traffic { spec, .. } => spec.nodes(),
        }
    }

    /// The fault that a record is about.
    pub fn of(record: &FaultRecord) -> Result<Fault> {
        let read = |kind| {
            Fault::try_from(Tagged {
                kind,
                target: record.target.clone(),
            })
            .map_err(|e| e.to_string())
        };
        let kind: Result<Kind> = record.kind.parse();
        kind.map_err(|e| e.to_string()).and_then(read).map_err(|e| {
            Error::Operation(
                Problem::new("read the record of a fault")
                    .on(format!("fault {} ({})", record.id, record.kind))
                    .observed(e),
            )
        })
    }

    /// A record of it, begun now and without proof.
    pub fn record(&self, id: u64, begin_us: u64) -> FaultRecord {
        let Tagged { kind, target } = self.clone().into();
        FaultRecord {
            id,
            kind: kind.word().to_owned(),
            target,
            begin_us,
            end_us: None,
            proof: json!({}),
            effective: None,
            pending: true,
        }
    }
}

impl From<Fault> for Tagged {
    fn from(fault: Fault) -> Self {
        let kind = fault.kind();
        let target = match fault {
            Fault::PowerOff(t) | Fault::PowerOn(t) | Fault::Freeze(t) | Fault::Resume(t) => serde_json::to_value(t),
            Fault::LinkDown(c) | Fault::LinkUp(c) => serde_json::to_value(c),
            Fault::Kill(p) => serde_json::to_value(p),
            Fault::Inside(inside) => serde_json::to_value(inside),
            Fault::Traffic { spec, .. } => serde_json::to_value(spec),
        };
        Tagged {
            kind,
            target: target.expect("a fault is plain data"),
        }
    }
}

impl TryFrom<Tagged> for Fault {
    type Error = serde_json::Error;
    fn try_from(Tagged { kind, target }: Tagged) -> serde_json::Result<Self> {
        use serde_json::from_value;
        Ok(match kind {
            Kind::PowerOff => Fault::PowerOff(from_value(target)?),
            Kind::PowerOn => Fault::PowerOn(from_value(target)?),
            Kind::Freeze => Fault::Freeze(from_value(target)?),
            Kind::Resume => Fault::Resume(from_value(target)?),
            Kind::LinkDown => Fault::LinkDown(from_value(target)?),
            Kind::LinkUp => Fault::LinkUp(from_value(target)?),
            Kind::Kill => Fault::Kill(from_value(target)?),
            Kind::Inside(kind) => Fault::Inside(Box::new(What::recorded(kind, target)?)),
            Kind::Traffic(kind) => Fault::Traffic {
                kind,
                spec: from_value(target)?,
            },
        })
    }
}

/// Makes the fault happen and returns what proves it.
///
/// Its record is kept as *pending* before anything is done and completed behind it, so that no fault is ever in force without one,
/// whatever happens to this process in between. A fault that could not be made is taken back; where that fails too, its record stays.
/// What is looked up behind the act belongs to the proof: a look that fails proves nothing, it undoes nothing.
///
/// The caller gives the record to [`undo`].
pub fn inject(context: &dyn FaultContext, fault: &Fault) -> Result<FaultRecord> {
    let mut record = fault.record(context.next_fault(), context.journal().now_us());
    if let Err(e) = context.keep(&record) {
        let failure = context.forget(record.id).err();
        return Err(e.with_rollback(failure.map(|f| f.to_string())));
    }
    if let Err(e) = act(context, fault, &mut record) {
        // What was refused was not begun.
        let taken_back = match &e {
            Error::Usage(_) => Ok(()),
            _ => restore(context, fault, &mut record),
        };
        let failure = taken_back.and_then(|()| context.forget(record.id)).err();
        return Err(e.with_rollback(failure.map(|f| f.to_string())));
    }
    record.pending = false;
    context.keep(&record)?;
    journal(context, "fault.begin", &record, record.begin_us);
    Ok(record)
}

fn act(context: &dyn FaultContext, fault: &Fault, record: &mut FaultRecord) -> Result<()> {
    match fault {
        Fault::PowerOff(t) => power::off(context, t, record),
        Fault::PowerOn(t) => power::on(context, t, record),
        Fault::Freeze(t) => power::freeze(context, t, record),
        Fault::Resume(t) => power::resume(context, t, record),
        Fault::LinkDown(c) => link::set(context, c, false, record),
        Fault::LinkUp(c) => link::set(context, c, true, record),
        Fault::Kill(p) => kill::send(context, p, record),
        Fault::Inside(i) => inside::make(context, i, record),
        Fault::Traffic { spec, .. } => traffic::set(context, spec, record),
    }
}

/// Undoes a fault and closes its record; what is undone already is left alone.
pub fn undo(context: &dyn FaultContext, record: &mut FaultRecord) -> Result<()> {
    let fault = Fault::of(record)?;
    let first = record.end_us.is_none();
    restore(context, &fault, record)?;
    if first {
        let now = context.journal().now_us();
        record.end_us = Some(now);
        journal(context, "fault.end", record, now);
    }
    Ok(())
}

/// Brings back what the fault took, whole or in part.
fn restore(context: &dyn FaultContext, fault: &Fault, record: &mut FaultRecord) -> Result<()> {
    match fault {
        // Cut short, it left the machine suspended.
        Fault::PowerOff(t) if record.pending => {
            power::go_on(context, t, record).and_then(|()| power::back_on(context, t))
        }
        Fault::PowerOff(t) => power::back_on(context, t),
        Fault::Freeze(t) => power::go_on(context, t, record),
        Fault::LinkDown(c) => link::back_up(context, c),
        Fault::Kill(p) => kill::back(context, p, record),
        Fault::Inside(i) => inside::mend(context, i, record),
        Fault::Traffic { kind, spec } => traffic::clear(context, *kind, spec, record),
        // It mended something: there is nothing to take back.
        Fault::PowerOn(_) | Fault::Resume(_) | Fault::LinkUp(_) => Ok(()),
    }
}

/// Looks at the evidence of a fault that lasts, and brings its record up to date.
pub fn evidence(context: &dyn FaultContext, record: &mut FaultRecord) -> Result<()> {
    let fault = Fault::of(record)?;
    if let (Fault::Traffic { kind, spec }, None) = (&fault, record.end_us) {
        traffic::count(context, *kind, spec, record);
    }
    Ok(())
}

/// The rules of the fabric that belong to the fault of `record`, as its owner: those of one that is in force. A fault that is only
/// about to be made, and one that is undone, have none.
pub fn rules(record: &FaultRecord) -> Result<Vec<Rule>> {
    Ok(match Fault::of(record)? {
        Fault::Traffic { spec, .. } if !record.pending && record.end_us.is_none() => traffic::rules(record.id, &spec),
        _ => Vec::new(),
    })
}

fn journal(context: &dyn FaultContext, kind: &str, record: &FaultRecord, t_us: u64) {
    let mut draft = Draft::new(Source::Tool, kind)
        .severity(Severity::Warning)
        .data(serde_json::to_value(record).expect("a record is plain data"));
    draft.t_us = Some(t_us);
    draft.node = record.target.get("node").and_then(|n| n.as_str()).map(str::to_owned);
    context.journal().emit(draft);
}
