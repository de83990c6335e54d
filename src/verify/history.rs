//! What a run left behind: the only input of the checkers.

use super::{FaultRecord, OpKind, OpLine, Outcome};
use crate::event::Event;
use crate::hypervisor::DomainState;
use crate::spec::{Lab, Node, NodeRole};
use ccr_contract::dump::Dump;
use ccr_contract::reply::By;
use ccr_contract::status::{ClusterState, Hub, Service, ServiceState, Status};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Everything that is known about a run, on one clock: microseconds of the host's monotonic clock since the lab's journal began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// When the run began. Events before it are kept for what they say of the state that it began in, and not judged.
    #[serde(default)]
    pub from_us: u64,
    /// The client's journal, in the order it was written.
    pub ops: Vec<OpLine>,
    /// The final reads, one for each node that answered.
    pub dumps: Vec<Dump>,
    /// The event journal.
    pub events: Vec<Event>,
    /// The faults, undone, with their proof.
    pub faults: Vec<FaultRecord>,
    /// Every look at the lab, in order.
    pub observations: Vec<Observation>,
    /// What `down` and the heals left behind that was not there before; null where no look was taken.
    #[serde(default, rename = "leftovers")]
    pub leaks: Option<Vec<String>>,
    /// Evidence that had not arrived when the run ended, in words.
    #[serde(default)]
    pub missing: Vec<String>,
    /// When the scenario itself had expected that no node serves, and saw it.
    #[serde(default)]
    pub absences: Vec<u64>,
    /// Steps with a label, in order, and behind them the end of the steps, which has none.
    #[serde(default)]
    pub marks: Vec<Mark>,
    /// What the scenario kept of a status, in order.
    #[serde(default)]
    pub samples: Vec<Sample>,
}

/// A field of a node's status at a moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// What the scenario calls it.
    pub label: Option<String>,
    /// The node that said it.
    pub node: String,
    /// The field: `service.epoch`.
    pub path: String,
    /// When it was looked at, microseconds since the journal began.
    pub t_us: u64,
    /// What it was.
    pub value: serde_json::Value,
}

/// When a step ran, and who was who behind it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Mark {
    /// Its label; none of the end of the steps.
    pub label: Option<String>,
    /// When it began, microseconds since the journal began.
    pub begin_us: u64,
    /// The machine of each role that had one behind it.
    pub nodes: BTreeMap<String, String>,
}

/// One look at the whole lab.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// When it was complete, microseconds since the journal began.
    pub t_us: u64,
    /// Each node, by name.
    pub nodes: BTreeMap<String, NodeView>,
    /// From when until when the networks were dark, as far as whoever was asked knows: microseconds since the journal began.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "dark")]
    pub network_outages: Vec<(u64, u64)>,
}

/// One node in an [`Observation`].
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeView {
    /// What the hypervisor says of the machine; null where it was not asked.
    pub machine: Option<DomainState>,
    /// What the node says of itself; null where it did not answer.
    pub status: Option<Status>,
    /// Why it did not answer, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When that was so; null where it was asked in this look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moment: Option<Moment>,
}

/// When what a node said of itself was so, on the clock of whoever heard it, in microseconds: at a moment between these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moment {
    /// Certainly after this.
    pub after_us: u64,
    /// When it was heard.
    pub heard_us: u64,
}

/// One node at one moment, borrowed from whoever looked.
#[derive(Debug, Clone, Copy)]
pub struct NodeLook<'a> {
    /// Its name.
    pub node: &'a str,
    /// Its role in the lab.
    pub role: Option<NodeRole>,
    /// What the hypervisor says of the machine; none where it was not asked.
    pub machine: Option<DomainState>,
    /// What the node says of itself; none where it did not answer.
    pub status: Option<&'a Status>,
    /// Why it did not answer.
    pub error: Option<&'a str>,
}

/// Whether who says this says that it serves by itself.
pub(super) fn serves(s: &Status) -> bool {
    s.service.as_ref().is_some_and(|v| {
        v.active.as_deref() == Some(&s.node) && matches!(v.state, ServiceState::Online | ServiceState::PartiallyOnline)
    })
}

impl NodeView {
    /// Its service group, as this node sees it.
    pub fn service(&self) -> Option<&Service> {
        self.status.as_ref()?.service.as_ref()
    }
    /// Whether this node says that it serves by itself.
    pub fn serves(&self) -> bool {
        self.status.as_ref().is_some_and(serves)
    }
    /// Where it stands in the cluster.
    pub fn cluster_state(&self) -> Option<ClusterState> {
        Some(self.status.as_ref()?.cluster.as_ref()?.state)
    }
    /// Its transport.
    pub fn hub(&self) -> Option<&Hub> {
        self.status.as_ref()?.hub.as_ref()
    }
}

impl Observation {
    /// The nodes of `lab` that were looked at, in its order.
    pub fn looks(&self, lab: &Lab) -> Vec<NodeLook<'_>> {
        let look = |node: &Node| {
            let (name, view) = self.nodes.get_key_value(node.name.as_str())?;
            Some(NodeLook {
                node: name,
                role: node.role,
                machine: view.machine,
                status: view.status.as_ref(),
                error: view.error.as_deref(),
            })
        };
        lab.nodes.iter().filter_map(look).collect()
    }
    /// The statuses that were answered, by node.
    pub fn statuses(&self) -> impl Iterator<Item = (&str, &Status)> {
        self.nodes
            .iter()
            .filter_map(|(n, v)| Some((n.as_str(), v.status.as_ref()?)))
    }
    /// The nodes that say that they serve.
    pub fn serving(&self) -> impl Iterator<Item = (&str, &NodeView)> {
        self.nodes
            .iter()
            .filter(|(_, v)| v.serves())
            .map(|(n, v)| (n.as_str(), v))
    }
    /// The one node that says that it serves; none where none or more than one does.
    pub fn active(&self) -> Option<&str> {
        let mut serving = self.serving().map(|(n, _)| n);
        let first = serving.next()?;
        serving.next().is_none().then_some(first)
    }
}

/// An operation: its two lines joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Op<'a> {
    /// Its number.
    pub op: u64,
    /// The client.
    pub client: &'a str,
    /// What it did.
    pub kind: OpKind,
    /// The message's key.
    pub key: &'a str,
    /// Whose mailbox.
    pub mailbox: &'a str,
    /// When it was written down, before the first byte left.
    pub begin_us: u64,
    /// When it ended; none where no line says so.
    pub end_us: Option<u64>,
    /// How it ended; unknown where no line says so.
    pub outcome: Outcome,
    /// Who answered.
    pub by: Option<&'a By>,
    /// The last reply, or the cause.
    pub seen: &'a str,
    /// Of `read`: keys that the mailbox held.
    pub keys: &'a [String],
    /// Of `read`: keys whose content was not what had been sent.
    pub damaged: &'a [String],
}

impl Op<'_> {
    /// Acknowledged.
    pub fn acked(&self) -> bool {
        self.outcome == Outcome::Ok
    }
    /// Acknowledged by the store itself, not by a queue.
    pub fn store_answer(&self) -> Option<&By> {
        self.by.filter(|_| self.acked() && self.kind != OpKind::Submit)
    }
}

/// A journal that contradicts itself: nothing can be concluded from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadJournal(pub String);

impl History {
    /// The operations, in the order of their invocation.
    pub fn operations(&self) -> Result<Vec<Op<'_>>, BadJournal> {
        let mut ops: Vec<Op<'_>> = Vec::new();
        let mut at: BTreeMap<u64, usize> = BTreeMap::new();
        for line in &self.ops {
            match line {
                OpLine::Invoke {
                    op,
                    client,
                    kind,
                    key,
                    mailbox,
                    t_us,
                } => {
                    if at.insert(*op, ops.len()).is_some() {
                        return Err(BadJournal(format!("operation {op} begins twice")));
                    }
                    ops.push(Op {
                        op: *op,
                        client,
                        kind: *kind,
                        key,
                        mailbox,
                        begin_us: *t_us,
                        end_us: None,
                        outcome: Outcome::Unknown,
                        by: None,
                        seen: "",
                        keys: &[],
                        damaged: &[],
                    });
                }
                OpLine::Complete {
                    op,
                    outcome,
                    by,
                    seen,
                    keys,
                    damaged,
                    t_us,
                } => {
                    let Some(o) = at.get(op).map(|i| &mut ops[*i]) else {
                        return Err(BadJournal(format!("operation {op} ends and never began")));
                    };
                    if o.end_us.is_some() {
                        return Err(BadJournal(format!("operation {op} ends twice")));
                    }
                    if *t_us < o.begin_us {
                        return Err(BadJournal(format!("operation {op} ends before it begins")));
                    }
                    o.end_us = Some(*t_us);
                    o.outcome = *outcome;
                    o.by = by.as_ref();
                    o.seen = seen;
                    o.keys = keys.as_deref().unwrap_or_default();
                    o.damaged = damaged.as_deref().unwrap_or_default();
                }
            }
        }
        Ok(ops)
    }
}
