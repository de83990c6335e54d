//! What several checkers need of a history, computed once.

use super::takeover::{self, Takeover};
use super::{BadJournal, History, Op, OpKind};
use crate::event::{Event, RuntimeEvent};
use crate::spec::{Lab, Limits, NodeRole};
use crate::wait::Slowness;
use ccr_contract::dump::{Dump, Message};
use std::collections::BTreeMap;

/// What a history is judged with.
#[derive(Debug, Clone, PartialEq)]
pub struct Context {
    /// What a failover is held against.
    pub limits: Limits,
    /// How slow the machine was.
    pub slowness: Slowness,
    /// The members.
    pub members: Vec<String>,
    /// The hubs.
    pub hubs: Vec<String>,
    /// The machine with the witness.
    pub witness: Option<String>,
}

impl Context {
    /// Of this lab on this machine.
    pub fn of(lab: &Lab, slowness: Slowness) -> Self {
        let with = |role| lab.with_role(role).map(|n| n.name.to_string()).collect();
        Self {
            limits: lab.limits,
            slowness,
            members: with(NodeRole::Member),
            hubs: with(NodeRole::Hub),
            witness: lab.witness().map(str::to_owned),
        }
    }
}

/// A history with everything that more than one checker asks for worked out once.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// The history.
    pub history: &'a History,
    /// What it is judged with.
    pub context: &'a Context,
    /// Its operations.
    pub ops: Vec<Op<'a>>,
    /// What the nodes told, before the run too.
    pub runtime_events: Vec<RuntimeEvent<'a>>,
    /// Its takeovers.
    pub takeovers: Vec<Takeover>,
    /// The member that served at the end.
    pub last_active: Option<String>,
}

impl<'a> Evidence<'a> {
    /// Works it out.
    ///
    /// # Errors
    /// Where the client's journal contradicts itself.
    pub fn of(history: &'a History, context: &'a Context) -> Result<Self, BadJournal> {
        let runtime_events: Vec<RuntimeEvent<'_>> = history.events.iter().filter_map(Event::runtime_event).collect();
        let takeovers = takeover::takeovers_of(history, &runtime_events);
        let last_active = history
            .observations
            .iter()
            .rev()
            .find_map(|o| o.active().map(str::to_owned));
        Ok(Self {
            ops: history.operations()?,
            runtime_events,
            takeovers,
            last_active,
            history,
            context,
        })
    }

    /// The final read of the store that served at the end.
    pub fn final_store(&self) -> Option<&'a Dump> {
        let node = self.last_active.as_deref()?;
        self.history.dumps.iter().find(|d| d.node == node)
    }

    /// Its messages by key.
    pub fn stored(&self) -> Option<BTreeMap<&'a str, Vec<&'a Message>>> {
        let mut stored: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
        for message in self.final_store()?.groups.iter().flat_map(|g| &g.messages) {
            if let Some(key) = &message.key {
                stored.entry(key).or_default().push(message);
            }
        }
        Some(stored)
    }

    /// What the nodes told in this run.
    pub fn runtime_events(&self) -> impl Iterator<Item = &RuntimeEvent<'a>> {
        let from = self.history.from_us;
        self.runtime_events.iter().filter(move |t| t.event.t_us >= from)
    }

    /// Events of this name in this run, whoever tells of it.
    pub fn events(&self, kind: &str) -> impl Iterator<Item = &'a Event> {
        let from = self.history.from_us;
        self.history
            .events
            .iter()
            .filter(move |e| e.kind == kind && e.t_us >= from)
    }
}

/// Whether an operation writes.
pub(super) fn writes(op: &Op<'_>) -> bool {
    matches!(op.kind, OpKind::Submit | OpKind::Deliver)
}
