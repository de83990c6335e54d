//! The picture of a lab: one fold from looks, counters, events, faults and operations to what pages, reports and lessons draw. Pure.
//!
//! Looks say what is; events and faults say exactly when it changed. What no source knows is null. Orders come as the events by
//! which nodes tell of them.

mod cables;
mod clients;
mod faults;
mod node;
mod patch;
mod sentence;
mod state;
#[cfg(test)]
mod tests;
pub mod text;
pub mod tokens;
mod tracks;

pub use cables::{Cable, CableState};
pub use clients::{Clients, ClientsState, NOTICEABLE_US};
pub use faults::{FaultPicture, fault_of};
pub use node::NodePicture;
pub use patch::{Change, Patch};
pub use sentence::sentence;
pub use state::{Role, Shape};
pub use tracks::{Extent, Place, Stretch, Track, Tracks, VotesSeen, inputs, order};

use crate::event::{Event, RuntimeEvent};
use crate::fabric::{Counters, Rule};
use crate::spec::{Lab, NodeRole};
use crate::verify::merged::copies;
use crate::verify::{FaultRecord, Merged, Observation, OpLine, unhealthy};
use ccr_contract::event::EventKind;
use ccr_contract::status::{Copy, Intent, ServiceState, Witness};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What a picture is made of, each with its time on the journal's clock.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A look at every node.
    Look(&'a Observation),
    /// The rules of the networks at this time, and what was counted.
    Counters(u64, &'a [Rule], &'a Counters),
    /// A line of the journal.
    Event(&'a Event),
    /// A fault begins.
    Injected(&'a FaultRecord),
    /// It is undone.
    Healed(&'a FaultRecord),
    /// A line of the clients' journal.
    Op(&'a OpLine),
}

impl Input<'_> {
    /// When it was so, in microseconds since the journal began.
    pub fn t_us(&self) -> u64 {
        match self {
            Self::Look(o) => o.t_us,
            Self::Counters(t_us, ..) => *t_us,
            Self::Event(e) => e.t_us,
            Self::Injected(f) => f.begin_us,
            Self::Healed(f) => f.end_us.unwrap_or(f.begin_us),
            Self::Op(OpLine::Invoke { t_us, .. } | OpLine::Complete { t_us, .. }) => *t_us,
        }
    }
}

/// A lab at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Picture {
    /// The newest input, in microseconds since the journal began.
    pub t_us: u64,
    /// What is wrong by the last look, in words; null before the first one.
    pub unhealthy: Option<Vec<String>>,
    /// From when until when the networks were dark, as far as is known.
    pub dark: Vec<(u64, u64)>,
    /// Each node, by name.
    pub nodes: BTreeMap<String, NodePicture>,
    /// The witness, as whoever knows best says it.
    pub witness: Option<Witness>,
    /// The member that holds the witness file; null while none is known to.
    pub held_by: Option<String>,
    /// Each direction of each cable, as `node/network/out` and `…/in`.
    pub cables: BTreeMap<String, Cable>,
    /// Whether heartbeats arrive, as `network/from>to`; null where it cannot be known.
    pub paths: BTreeMap<String, Option<bool>>,
    /// The service.
    pub service: ServicePicture,
    /// Each copy, as `group/node`.
    pub copies: BTreeMap<String, Copy>,
    /// The faults in force, by number.
    pub faults: BTreeMap<u64, FaultPicture>,
    /// What an operator ordered last.
    pub order: Option<OrderPicture>,
    /// The clients.
    pub clients: Clients,
    #[serde(skip)]
    networks: cables::Networks,
    #[serde(skip)]
    lab: Arc<Lab>,
}

/// The service, as whoever knows best says it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct ServicePicture {
    /// Its state; null where no node that runs says it.
    pub state: Option<ServiceState>,
    /// The member that serves.
    pub active: Option<String>,
    /// The epoch of its answers.
    pub epoch: Option<u64>,
    /// What the operator wants of it.
    pub intent: Option<Intent>,
    /// When an event said so last: what was heard before does not count.
    #[serde(skip)]
    told_us: u64,
    /// Since when a look says so at least: what happened before is no news.
    #[serde(skip)]
    looked_us: u64,
}

/// An operator's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct OrderPicture {
    /// When a node told of it, in microseconds since the journal began.
    pub t_us: u64,
    /// The node.
    pub node: String,
    /// What was ordered, in words.
    pub text: String,
}

impl Picture {
    /// Of a lab of which nothing is known.
    pub fn new(lab: Arc<Lab>) -> Self {
        let node = |n: &crate::spec::Node| (n.name.to_string(), NodePicture::new(n.role));
        Self {
            t_us: 0,
            unhealthy: None,
            dark: Vec::new(),
            nodes: lab.nodes.iter().map(node).collect(),
            witness: None,
            held_by: None,
            cables: BTreeMap::new(),
            paths: BTreeMap::new(),
            service: ServicePicture::default(),
            copies: BTreeMap::new(),
            faults: BTreeMap::new(),
            order: None,
            clients: Clients::default(),
            networks: cables::Networks::default(),
            lab,
        }
    }

    /// The same at the begin of a run, whose networks are whole but for its faults.
    pub fn of_run(lab: Arc<Lab>) -> Self {
        let mut picture = Self::new(lab);
        picture.draw_cables();
        picture
    }

    /// Takes in what comes next. Inputs come in time; one that comes late counts as of now.
    pub fn apply(&mut self, input: Input<'_>) {
        self.t_us = self.t_us.max(input.t_us());
        match input {
            Input::Look(o) => self.look(o),
            Input::Counters(_, rules, counters) => {
                self.networks.counted(rules, counters);
                self.draw_cables();
            }
            Input::Event(event) => {
                if let Some(told) = event.runtime_event() {
                    self.told(&told);
                }
            }
            Input::Injected(f) => self.injected(f),
            Input::Healed(f) => {
                self.faults.remove(&f.id);
                self.networks.healed(f.id);
                self.draw_cables();
                if let Some(node) = self.hit(f) {
                    node.healed(&f.kind, f.end_us.unwrap_or(f.begin_us));
                }
            }
            Input::Op(line) => {
                self.clients.line(line);
                if let OpLine::Complete { by: Some(by), t_us, .. } = line
                    && let Some(node) = self.nodes.get_mut(&by.node)
                {
                    node.answered(*t_us);
                }
            }
        }
        self.clients.now(self.t_us);
    }

    /// Time has come to `t_us`, and nothing was heard.
    pub fn pass(&mut self, t_us: u64) {
        self.t_us = self.t_us.max(t_us);
        self.clients.now(self.t_us);
    }

    /// What pages are sent: the picture as JSON.
    pub fn json(&self) -> Value {
        serde_json::to_value(self).expect("a picture is plain data")
    }

    fn look(&mut self, o: &Observation) {
        for (name, view) in &o.nodes {
            if let Some(node) = self.nodes.get_mut(name) {
                node.look(view, o.t_us);
            }
        }
        self.dark.clone_from(&o.network_outages);
        let lab = self.lab.clone();
        let looks = o.looks(&lab);
        self.unhealthy = Some(unhealthy(&lab, &looks));
        let of = |c: &Copy| (format!("{}/{}", c.group, c.node), c.clone());
        let told = copies(&looks).into_iter().map(of);
        self.copies.extend(told);
        let merged = Merged::of(&looks);
        if let Some(cluster) = merged.cluster() {
            self.witness.clone_from(&cluster.witness);
        }
        for (_, status) in o.statuses() {
            let networks = status.cluster.iter().flat_map(|c| &c.networks);
            for (network, path) in networks.flat_map(|n| n.paths.iter().map(move |p| (&n.name, p))) {
                let key = format!("{network}/{}>{}", path.from, path.to);
                // Who hears knows best.
                if status.node == path.to || !self.paths.contains_key(&key) {
                    self.paths.insert(key, path.up);
                }
            }
        }
        let heard = merged.by.map(|by| {
            let moment = o.nodes.get(&by.node).and_then(|v| v.moment);
            moment.map_or((o.t_us, o.t_us), |m| (m.after_us, m.heard_us))
        });
        if let Some(service) = merged.service()
            && let Some((after_us, heard_us)) = heard
            && heard_us >= self.service.told_us
        {
            self.service.looked_us = after_us;
            self.service.state = Some(service.state);
            self.service.active.clone_from(&service.active);
            self.service.epoch = service.epoch.or(merged.by.map(|by| by.epoch));
            self.service.intent = Some(service.intent);
        }
        self.nobody_serves_from_a_machine_that_stands_still();
    }

    fn nobody_serves_from_a_machine_that_stands_still(&mut self) {
        let still = |n: &NodePicture| matches!(n.role, Role::Off | Role::Frozen);
        if let Some(active) = &self.service.active
            && self.nodes.get(active).is_some_and(still)
        {
            (self.service.active, self.service.state) = (None, None);
        }
    }

    fn hit(&mut self, f: &FaultRecord) -> Option<&mut NodePicture> {
        if f.effective == Some(false) {
            return None;
        }
        self.nodes.get_mut(f.target.get("node")?.as_str()?)
    }

    fn injected(&mut self, f: &FaultRecord) {
        self.faults.insert(f.id, FaultPicture::of(f));
        self.networks.injected(f);
        self.draw_cables();
        if let Some(node) = self.hit(f) {
            node.injected(&f.kind, f.begin_us);
        }
        self.nobody_serves_from_a_machine_that_stands_still();
    }

    /// What is known by now of the effect of a fault in force.
    pub fn proven(&mut self, f: &FaultRecord) {
        if let Some(fault) = self.faults.get_mut(&f.id) {
            fault.effective = f.effective;
        }
    }

    fn draw_cables(&mut self) {
        self.cables = self.networks.cables(&self.lab);
    }

    fn told(&mut self, told: &RuntimeEvent<'_>) {
        if let Some(node) = self.nodes.get_mut(told.node) {
            node.told(told);
        }
        self.service_told(told);
        let here = |held: &Option<String>| held.as_deref() == Some(told.node);
        match &told.what {
            EventKind::ArbitrationWon { .. } => self.held_by = Some(told.node.to_owned()),
            EventKind::MemberUp { .. } | EventKind::ArbitrationLost { .. } | EventKind::QuorumLost { .. }
                if here(&self.held_by) =>
            {
                self.held_by = None;
            }
            EventKind::Path {
                network, from, to, up, ..
            } => {
                self.paths.insert(format!("{network}/{from}>{to}"), Some(*up));
            }
            _ => {}
        }
        let order = match &told.what {
            EventKind::MoveBegun { to, .. } => Some(format!("move to {to}")),
            EventKind::StopOrdered { .. } => Some("stop".to_owned()),
            EventKind::CopySuspendOrdered { group, .. } => Some(format!("suspend {group}")),
            EventKind::QuorumForced { .. } => Some("force the quorum".to_owned()),
            EventKind::LossAccepted { .. } => Some("mount whatever is lost".to_owned()),
            _ => None,
        };
        if let Some(text) = order {
            self.order = Some(OrderPicture {
                t_us: told.event.t_us,
                node: told.node.to_owned(),
                text,
            });
        }
    }

    fn service_told(&mut self, told: &RuntimeEvent<'_>) {
        let (state, epoch) = match &told.what {
            EventKind::Online { epoch, .. } | EventKind::Resumed { epoch, .. } => (ServiceState::Online, *epoch),
            EventKind::PartiallyOnline { epoch, .. } => (ServiceState::PartiallyOnline, *epoch),
            EventKind::OnlinePending { epoch, .. } => (ServiceState::OnlinePending, *epoch),
            EventKind::Fenced { epoch, .. } => (ServiceState::OfflinePending, *epoch),
            EventKind::Offline { epoch, .. } => (ServiceState::Offline, *epoch),
            _ => return,
        };
        let service = &mut self.service;
        // What ends in an older epoch is no news of the service.
        if service.epoch.is_some_and(|known| epoch < known) || told.event.t_us < service.looked_us {
            return;
        }
        let serves = matches!(state, ServiceState::Online | ServiceState::PartiallyOnline);
        service.state = Some(state);
        service.epoch = Some(epoch);
        service.active = serves.then(|| told.node.to_owned());
        service.told_us = told.event.t_us;
    }

    /// The members, in the order of the lab file.
    pub fn members(&self) -> impl Iterator<Item = (&str, &NodePicture)> {
        let members = self.lab.nodes.iter().filter(|n| n.role == Some(NodeRole::Member));
        members.filter_map(|n| {
            let (name, node) = self.nodes.get_key_value(n.name.as_str())?;
            Some((name.as_str(), node))
        })
    }
}
