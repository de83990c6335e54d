//! A history as tracks: what was so from when until when, each on the one clock. Made by the one fold.

use super::{ClientsState, Input, Picture, Role};
use crate::spec::{Lab, NodeRole};
use crate::verify::{History, OpLine};
use ccr_contract::status::{CopyStatus, ServiceState, Votes, WitnessHealth};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

/// From when until when something is shown, in microseconds since the journal began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Extent {
    /// The first that happened.
    pub from_us: u64,
    /// The last, at least a second later.
    pub to_us: u64,
}

impl Extent {
    /// Of looks, faults and operations; none where nothing happened.
    pub fn of(history: &History) -> Option<Self> {
        let lines = history.ops.iter().map(|l| Input::Op(l).t_us());
        let looks = history.observations.iter().map(|o| o.t_us);
        let faults = history
            .faults
            .iter()
            .flat_map(|f| [Some(f.begin_us), f.end_us])
            .flatten();
        let (from_us, to_us) = lines.chain(looks).chain(faults).fold(None, |all, t| match all {
            None => Some((t, t)),
            Some((from, to)) => Some((t.min(from), t.max(to))),
        })?;
        Some(Self {
            from_us,
            to_us: to_us.max(from_us + 1_000_000),
        })
    }
}

/// What was so for some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Stretch<T> {
    /// From, in microseconds since the journal began.
    pub from_us: u64,
    /// Until.
    pub to_us: u64,
    /// What.
    pub what: T,
}

/// Stretches without gaps, in time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Track<T>(pub Vec<Stretch<T>>);

impl<T> Default for Track<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: PartialEq> Track<T> {
    /// From `t_us` on it is `what`; the first stretch begins where the track does.
    fn set(&mut self, extent: Extent, t_us: u64, what: T) {
        let t_us = t_us.clamp(extent.from_us, extent.to_us);
        let from_us = match self.0.last_mut() {
            Some(last) if last.what == what => return,
            Some(last) => {
                last.to_us = t_us.max(last.from_us);
                last.to_us
            }
            None => extent.from_us,
        };
        let to_us = extent.to_us;
        self.0.retain(|s| s.to_us > s.from_us);
        self.0.push(Stretch { from_us, to_us, what });
        // What came back at once was never away.
        if let [.., before, last] = &mut self.0[..]
            && before.what == last.what
        {
            before.to_us = to_us;
            self.0.pop();
        }
    }

    fn end(&mut self) {
        self.0.retain(|s| s.to_us > s.from_us);
    }
}

/// The votes, as one member counts them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VotesSeen {
    /// The votes; null where it says nothing.
    pub votes: Option<Votes>,
}

impl VotesSeen {
    /// `2 of 3`; `–` where it says nothing.
    pub fn text(&self) -> String {
        match &self.votes {
            Some(v) => format!("{} of {}", v.have.len(), v.total),
            None => "–".to_owned(),
        }
    }

    /// Whether they are a majority; none where it says nothing.
    pub fn enough(&self) -> Option<bool> {
        self.votes.as_ref().map(|v| v.have.len() >= v.needed as usize)
    }
}

/// The service: its state, and who serves.
pub type ServiceSeen = (Option<ServiceState>, Option<String>);
/// The witness: its health, and who holds it.
pub type WitnessSeen = (Option<WitnessHealth>, Option<String>);

/// All tracks of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tracks {
    /// From when until when.
    pub extent: Extent,
    /// What each node was, in the order of the lab file; hubs behind the others.
    pub roles: Vec<(String, Track<Role>)>,
    /// The votes, as each member counted them.
    pub votes: Vec<(String, Track<VotesSeen>)>,
    /// The service.
    pub service: Track<ServiceSeen>,
    /// The epoch in which the service is.
    pub epoch: Track<Option<u64>>,
    /// The witness.
    pub witness: Track<WitnessSeen>,
    /// Whether heartbeats arrive, as `network/from>to`; only of those that ever did not.
    pub paths: Vec<(String, Track<Option<bool>>)>,
    /// The status of each copy, as `group/node`; none where no node says it.
    pub copies: Vec<(String, Track<Option<CopyStatus>>)>,
    /// What operators ordered, and when.
    pub orders: Vec<(u64, String)>,
    /// The clients.
    pub clients: Track<ClientsState>,
    /// From when until when the networks were dark.
    pub dark: Vec<(u64, u64)>,
    /// From when until when clients waited longest for an answer of the store; none where they did not.
    pub outage: Option<(u64, u64)>,
}

/// Where in a history an input is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Of the looks.
    Look(usize),
    /// Of the faults: its begin.
    Injected(usize),
    /// Of the faults: its end.
    Healed(usize),
    /// Of the lines of the clients' journal.
    Op(usize),
    /// Of the events.
    Event(usize),
}

impl Place {
    /// What is there.
    pub fn of(self, history: &History) -> Input<'_> {
        match self {
            Self::Look(i) => Input::Look(&history.observations[i]),
            Self::Injected(i) => Input::Injected(&history.faults[i]),
            Self::Healed(i) => Input::Healed(&history.faults[i]),
            Self::Op(i) => Input::Op(&history.ops[i]),
            Self::Event(i) => Input::Event(&history.events[i]),
        }
    }
}

/// All of a history, in time. Of what is of one time, looks come first, then faults, operations, events.
pub fn order(history: &History) -> Vec<Place> {
    let faults = 0..history.faults.len();
    let healed = faults.clone().filter(|i| history.faults[*i].end_us.is_some());
    let all = (0..history.observations.len()).map(Place::Look);
    let all = all.chain(faults.map(Place::Injected)).chain(healed.map(Place::Healed));
    let all = all.chain((0..history.ops.len()).map(Place::Op));
    let mut all: Vec<Place> = all.chain((0..history.events.len()).map(Place::Event)).collect();
    all.sort_by_key(|place| place.of(history).t_us());
    all
}

/// The same as what is there.
pub fn inputs(history: &History) -> Vec<Input<'_>> {
    order(history).into_iter().map(|place| place.of(history)).collect()
}

impl Tracks {
    /// Of a run; none where nothing happened. Also the picture at its end.
    pub fn of(lab: &Lab, history: &History) -> Option<(Self, Picture)> {
        let extent = Extent::of(history)?;
        let mut picture = Picture::new(Arc::new(lab.clone()));
        let mut fold = Fold {
            extent,
            roles: BTreeMap::new(),
            votes: BTreeMap::new(),
            service: Track::default(),
            epoch: Track::default(),
            witness: Track::default(),
            paths: BTreeMap::new(),
            copies: BTreeMap::new(),
            orders: Vec::new(),
            clients: Track::default(),
        };
        for input in inputs(history) {
            picture.apply(input);
            // A message changes nothing but the clients.
            let all = !matches!(input, Input::Op(OpLine::Invoke { .. }));
            fold.record(&picture, input.t_us(), all);
        }
        picture.clients.now(extent.to_us);
        fold.record(&picture, extent.to_us, true);
        if picture.clients.state == ClientsState::Lost {
            // Behind their last word nobody waits any more.
            fold.clients.set(extent, picture.clients.asked_us, ClientsState::Idle);
        }
        picture.clients.end();
        let Fold {
            mut roles,
            mut votes,
            mut service,
            mut epoch,
            mut witness,
            paths,
            copies,
            orders,
            mut clients,
            ..
        } = fold;
        epoch.end();
        service.end();
        witness.end();
        clients.end();
        let of_lab = |hubs: bool| {
            let nodes = lab.nodes.iter();
            nodes.filter(move |n| (n.role == Some(NodeRole::Hub)) == hubs)
        };
        let names = of_lab(false).chain(of_lab(true)).map(|n| n.name.to_string());
        let end = |(name, mut track): (String, Track<_>)| {
            track.end();
            (name, track)
        };
        let tracks = Self {
            extent,
            roles: names
                .clone()
                .filter_map(|n| roles.remove_entry(&n))
                .map(end)
                .filter(|(_, t)| t.0.iter().any(|s| s.what != Role::Unknown))
                .collect(),
            votes: names
                .filter_map(|n| votes.remove_entry(&n))
                .filter(|(_, t)| t.0.iter().any(|s| s.what.votes.is_some()))
                .map(|(name, mut track)| {
                    track.end();
                    (name, track)
                })
                .collect(),
            service,
            epoch,
            witness,
            paths: ended(paths, |up| *up == Some(false)),
            copies: ended(copies, Option::is_some),
            orders,
            clients,
            dark: picture.dark.clone(),
            outage: (picture.clients.longest_us > 0).then(|| {
                let end = picture.clients.longest_end_us;
                (end - picture.clients.longest_us, end)
            }),
        };
        Some((tracks, picture))
    }
}

struct Fold {
    extent: Extent,
    roles: BTreeMap<String, Track<Role>>,
    votes: BTreeMap<String, Track<VotesSeen>>,
    service: Track<ServiceSeen>,
    epoch: Track<Option<u64>>,
    witness: Track<WitnessSeen>,
    paths: BTreeMap<String, Track<Option<bool>>>,
    copies: BTreeMap<String, Track<Option<CopyStatus>>>,
    orders: Vec<(u64, String)>,
    clients: Track<ClientsState>,
}

/// The tracks that were ever so.
fn ended<T: PartialEq>(all: BTreeMap<String, Track<T>>, ever: impl Fn(&T) -> bool) -> Vec<(String, Track<T>)> {
    let end = |(name, mut track): (String, Track<T>)| {
        track.end();
        (name, track)
    };
    let shown = |(_, track): &(String, Track<T>)| track.0.iter().any(|s| ever(&s.what));
    all.into_iter().map(end).filter(shown).collect()
}

impl Fold {
    fn record(&mut self, picture: &Picture, t_us: u64, all: bool) {
        let extent = self.extent;
        let clients = &picture.clients;
        self.clients.set(extent, clients.since_us, clients.state);
        if !all {
            return;
        }
        for (name, node) in &picture.nodes {
            track(&mut self.roles, name).set(extent, t_us, node.role);
            if node.kind == Some(NodeRole::Member) {
                let votes = node.votes.clone();
                track(&mut self.votes, name).set(extent, t_us, VotesSeen { votes });
            }
        }
        let service = &picture.service;
        self.service.set(extent, t_us, (service.state, service.active.clone()));
        self.epoch.set(extent, t_us, service.epoch);
        for (path, up) in &picture.paths {
            since(track(&mut self.paths, path), extent, t_us, *up);
        }
        for (name, copy) in &picture.copies {
            // Whoever serves has the original.
            let status = (service.active.as_ref() != Some(&copy.node)).then_some(copy.status);
            since(track(&mut self.copies, name), extent, t_us, status);
        }
        if let Some(order) = &picture.order
            && order.t_us >= extent.from_us
            && self
                .orders
                .last()
                .is_none_or(|(t, text)| (*t, text) != (order.t_us, &order.text))
        {
            self.orders.push((order.t_us, order.text.clone()));
        }
        let health = picture.witness.as_ref().map(|w| w.health);
        self.witness.set(extent, t_us, (health, picture.held_by.clone()));
    }
}

/// Sets what was not known before the first time.
fn since<T: PartialEq>(track: &mut Track<Option<T>>, extent: Extent, t_us: u64, what: Option<T>) {
    if track.0.is_empty() {
        track.set(extent, extent.from_us, None);
    }
    track.set(extent, t_us, what);
}

fn track<'a, T>(of: &'a mut BTreeMap<String, Track<T>>, name: &str) -> &'a mut Track<T> {
    of.entry(name.to_owned()).or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_first_said_late_was_not_known_before() {
        let extent = Extent { from_us: 0, to_us: 10 };
        let mut track = Track::default();
        since(&mut track, extent, 6, Some("Healthy"));
        let seen: Vec<_> = track.0.iter().map(|s| (s.from_us, s.to_us, s.what)).collect();
        assert_eq!(seen, [(0, 6, None), (6, 10, Some("Healthy"))]);
    }
}
