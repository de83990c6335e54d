//! What a page can see: labs that are up, each followed while somebody looks, or the scenarios of a run.

use super::orders::Ordered;
use crate::error::{Error, Problem, Result};
use crate::event::monotonic_us;
use crate::files::Home;
use crate::lab::record::LabRecord;
use crate::lock::lock;
use crate::picture::sentence;
use crate::spec::{Lab, NodeRole};
use crate::view::{Link, News, Replay, View, live};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, Weak};
use tokio::sync::watch;

/// Lines of a journal that are kept for queries.
pub(super) const KEPT: usize = 10_000;

/// What there is to see.
#[derive(Debug)]
pub enum Shows {
    /// Labs and forks that are up: this one, or all.
    Labs {
        /// Where they are.
        home: Home,
        /// The only one that is shown.
        only: Option<String>,
        /// Those that somebody looks at.
        live: Mutex<BTreeMap<String, Weak<Live>>>,
    },
    /// The scenarios of a run.
    Run {
        /// The folder, for people.
        folder: String,
        /// Each of them.
        all: Vec<Replay>,
    },
}

/// A lab that somebody looks at.
#[derive(Debug)]
pub struct Live {
    /// Its name.
    pub(super) name: String,
    pub(super) view: Mutex<View>,
    /// The host's clock at the journal's zero, in microseconds; none before it is known.
    zero_us: Mutex<Option<u64>>,
    /// What was ordered from a page, oldest first.
    pub(super) ordered: Mutex<Vec<Ordered>>,
    changed: watch::Sender<u64>,
}

impl Live {
    /// Changes whenever there is something new.
    pub(super) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    pub(super) fn take(&self, news: News) {
        if let News::Look(status) = &news {
            *lock(&self.zero_us) = Some(monotonic_us().saturating_sub(status.t_us));
        }
        lock(&self.view).take(news);
        self.tell();
    }

    /// There is something new.
    pub(super) fn tell(&self) {
        self.changed.send_modify(|n| *n += 1);
    }

    /// The lab's clock, in microseconds since its journal began.
    pub(super) fn now_us(&self) -> u64 {
        let heard = lock(&self.view).picture.t_us;
        match (*lock(&self.zero_us), &lock(&self.view).link) {
            (Some(zero), Link::Live | Link::Silent(..)) => monotonic_us().saturating_sub(zero).max(heard),
            _ => heard,
        }
    }

    /// All that a page draws of it.
    pub(super) fn document(&self) -> Value {
        let now_us = self.now_us();
        let mut view = lock(&self.view);
        view.picture.pass(now_us);
        let mut all = document(&view);
        all["ordered"] = serde_json::to_value(&*lock(&self.ordered)).expect("orders are plain data");
        all
    }
}

impl Shows {
    /// Labs that are up: this one, or all.
    pub fn labs(home: Home, only: Option<String>) -> Self {
        Self::Labs {
            home,
            only,
            live: Mutex::default(),
        }
    }

    /// What there is, for the page's list.
    pub(super) fn list(&self) -> Result<Value> {
        Ok(match self {
            Self::Run { folder, all } => {
                let row = |r: &Replay| json!({"name": r.name, "title": r.report.title, "verdict": r.report.verdict});
                json!({"kind": "run", "of": folder, "labs": all.iter().map(row).collect::<Vec<_>>()})
            }
            Self::Labs { home, only, .. } => {
                let names = match only {
                    Some(name) => vec![name.clone()],
                    None => home.instances()?,
                };
                let row = |name: &String| match LabRecord::load(&home.lab(name).record()) {
                    Ok(Some(r)) => Some(json!({"name": name, "title": r.desired.lab.title})),
                    Ok(None) => None,
                    // One that cannot be read is not absent.
                    Err(e) => Some(json!({"name": name, "title": "", "error": e.to_string()})),
                };
                json!({"kind": "labs", "labs": names.iter().filter_map(row).collect::<Vec<_>>()})
            }
        })
    }

    /// A lab that is up, followed from now on for as long as it is held.
    pub(super) fn live(&self, name: &str) -> Result<Arc<Live>> {
        let unknown = || Problem::new("find the lab").on(name.escape_debug());
        let Self::Labs { home, only, live } = self else {
            return Err(Error::Usage(unknown().observed("this page shows a run")));
        };
        let allowed = only.as_ref().is_none_or(|o| o == name) && crate::files::is_instance(name);
        let record = match allowed {
            true => LabRecord::load(&home.lab(name).record())?,
            false => None,
        };
        let mut live = lock(live);
        let known = live.get(name).and_then(Weak::upgrade);
        let is_down = |l: &Arc<Live>| lock(&l.view).link == Link::Down;
        match (known, record) {
            // One that is down is shown as it was, until it is up again.
            (Some(known), None) if allowed => Ok(known),
            (Some(known), _) if !is_down(&known) => Ok(known),
            (_, None) => Err(Error::Usage(unknown().observed("it is not up"))),
            (_, Some(record)) => {
                let new = Arc::new(Live {
                    name: name.to_owned(),
                    view: Mutex::new(View::new(name, Arc::new(record.desired.lab), KEPT)),
                    zero_us: Mutex::default(),
                    ordered: Mutex::default(),
                    changed: watch::channel(0).0,
                });
                let heard = Arc::downgrade(&new);
                let tell = move |news| heard.upgrade().map(|l| l.take(news)).is_some();
                live::follow(home, name, Arc::new(tell))
                    .map_err(|e| Error::Operation(Problem::new("follow the lab").on(name).observed(e)))?;
                live.insert(name.to_owned(), Arc::downgrade(&new));
                Ok(new)
            }
        }
    }

    /// A scenario of the run.
    pub(super) fn replay(&self, name: &str) -> Result<&Replay> {
        let found = match self {
            Self::Run { all, .. } => all.iter().find(|r| r.name == name),
            Self::Labs { .. } => None,
        };
        found.ok_or_else(|| Error::Usage(Problem::new("find the scenario").on(name.escape_debug())))
    }
}

/// What a page draws of a scenario: all that was so, and what stands out.
pub(super) fn run(replay: &Replay) -> Value {
    json!({
        "name": replay.name, "title": replay.report.title, "verdict": replay.report.verdict, "why": replay.report.why,
        "timings": replay.report.timings, "extent": replay.extent, "moments": replay.moments, "tracks": replay.tracks,
    })
}

/// What a page draws of a view.
pub(super) fn document(view: &View) -> Value {
    let link = match &view.link {
        Link::Asking => json!({"state": "asking"}),
        Link::Live => json!({"state": "live"}),
        Link::Silent(since_us, why) => json!({"state": "silent", "since_us": since_us, "why": why}),
        Link::Down => json!({"state": "down"}),
        Link::Replay => json!({"state": "replay"}),
    };
    let machines = view.status.iter().flat_map(|s| &s.machines);
    let machines = machines.map(|m| json!({"node": m.node, "pid": m.pid, "ssh_port": m.ssh_port}));
    let newest = view.lines.back().map(|l| match l {
        crate::view::Line::Event(e) => e.seq,
        crate::view::Line::Gap(_, to) => *to,
    });
    json!({
        "name": view.name, "title": view.title, "link": link, "from_us": view.from_us, "lab": shape(&view.lab),
        "sentence": sentence(&view.picture, view.from_us), "picture": view.picture.json(), "newest": newest,
        "machines": machines.collect::<Vec<_>>(),
        "host": view.status.as_ref().map(|s| json!({"accel": s.accel, "slowness": s.slowness, "mutations": s.mutations})),
    })
}

/// What of a lab never changes: who is on which network.
fn shape(lab: &Lab) -> Value {
    let nodes = lab.nodes.iter().map(|n| {
        let nics = n
            .nics
            .iter()
            .map(|nic| json!({"network": nic.network, "address": nic.address}));
        json!({"name": n.name, "role": n.role, "nics": nics.collect::<Vec<_>>()})
    });
    let networks = lab.networks.iter();
    let networks = networks.map(|n| json!({"name": n.name, "subnet": n.subnet.to_string(), "role": n.role}));
    let members = lab.nodes.iter().filter(|n| n.role == Some(NodeRole::Member));
    json!({
        "name": lab.name, "nodes": nodes.collect::<Vec<_>>(), "networks": networks.collect::<Vec<_>>(),
        "witness": lab.witness(), "members": members.map(|n| n.name.as_str()).collect::<Vec<_>>(),
        "service": lab.runtime.as_ref().and_then(|r| r.service.as_ref()),
        "cluster": lab.runtime.as_ref().and_then(|r| r.cluster.as_ref()),
    })
}
