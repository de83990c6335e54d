//! Looks at a lab, as its nodes tell of themselves.

use super::super::{NodeView, Observation};
use super::{GROUP, MEMBERS, lab};
use crate::hypervisor::DomainState;
use crate::spec::Lab;
use ccr_contract::status::*;
use std::collections::BTreeMap;

/// A look at a healthy lab, node1 serving in epoch 3.
pub fn healthy() -> Observation {
    observation(&lab(), 0, "node1", 5, 5)
}

/// What the runtime of this node said, to be changed.
pub fn status<'a>(all: &'a mut Observation, name: &str) -> &'a mut Status {
    all.nodes.get_mut(name).unwrap().status.as_mut().unwrap()
}

/// A look at a lab where everything runs, with `active` serving.
pub fn observation(lab: &Lab, t_us: u64, active: &str, generated: u64, inspected: u64) -> Observation {
    let serves = MEMBERS.contains(&active);
    let mut nodes = BTreeMap::new();
    for node in &lab.nodes {
        let name = node.name.to_string();
        let member = MEMBERS.contains(&name.as_str());
        let cluster = member.then(|| cluster(&name));
        let service = member.then(|| service(serves.then_some(active)));
        let copies = (member && name != active).then(|| ccr_contract::status::Copy {
            group: GROUP.into(),
            node: name.clone(),
            status: CopyStatus::Healthy,
            generated,
            notified: generated,
            copied: inspected,
            inspected,
            replayed: inspected,
            copy_queue: generated.saturating_sub(inspected),
            replay_queue: 0,
            error: None,
        });
        let status = Status {
            schema: 1,
            node: name.clone(),
            version: "0.1.0".into(),
            epoch: 3,
            cluster,
            service,
            copies: copies.into_iter().collect(),
            hub: (!member).then_some(Hub {
                queued: 0,
                dumpster: 0,
                dumpster_bytes: 0,
                redeliveries: 0,
                epoch_seen: 3,
                set_aside: 0,
                refused: 0,
            }),
            events: None,
            node_t_us: None,
            facts: Default::default(),
            unread: Default::default(),
            wrong: Vec::new(),
        };
        nodes.insert(
            name,
            NodeView {
                machine: Some(DomainState::Running),
                status: Some(status),
                ..NodeView::default()
            },
        );
    }
    Observation {
        t_us,
        nodes,
        network_outages: Vec::new(),
    }
}

/// The cluster as the member `name` says it: up, with every vote.
fn cluster(name: &str) -> Cluster {
    Cluster {
        state: ClusterState::Up,
        quorum_owner: Some("node2".into()),
        cause: None,
        config_tag: 12,
        votes: Votes {
            total: 3,
            needed: 2,
            have: vec!["node1".into(), "node2".into(), "witness".into()],
        },
        members: MEMBERS
            .iter()
            .map(|m| Member {
                name: (*m).to_owned(),
                state: MemberState::Up,
            })
            .collect(),
        networks: Vec::new(),
        witness: Some(Witness {
            configured: r"\\hub\witness".into(),
            running: Some(r"\\hub\witness".into()),
            health: WitnessHealth::Ok,
            probed_by: BTreeMap::from([(
                name.to_owned(),
                WitnessProbe {
                    ok: true,
                    age_ms: 800,
                    error: None,
                },
            )]),
        }),
    }
}

/// The service, served by `active` or offline.
fn service(active: Option<&str>) -> Service {
    Service {
        name: "exmbx".into(),
        state: if active.is_some() {
            ServiceState::Online
        } else {
            ServiceState::Offline
        },
        active: active.map(str::to_owned),
        owner: None,
        epoch: None,
        cause: None,
        intent: Intent::Started,
        address: "10.77.1.21".into(),
        redelivery_due: false,
        failed_resources: Vec::new(),
    }
}
