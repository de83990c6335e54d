//! Who was what, when: the bars of the timeline.

use crate::event::Event;
use crate::hypervisor::DomainState;
use crate::verify::{History, NodeView};
use ccr_contract::event::EventKind;
use ccr_contract::status::ClusterState;

/// What a node was for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Role {
    /// It serves.
    Active,
    /// It stands by, or is a hub that runs.
    Passive,
    /// It runs and does not answer, or has no quorum.
    Apart,
    /// Its processors stand still.
    Frozen,
    /// It has no power.
    Off,
}

impl Role {
    pub fn word(self) -> &'static str {
        match self {
            Role::Active => "active",
            Role::Passive => "passive",
            Role::Apart => "apart",
            Role::Frozen => "frozen",
            Role::Off => "off",
        }
    }
}

/// An interval, microseconds since the journal began.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RoleInterval {
    pub from_us: u64,
    pub to_us: u64,
    pub role: Role,
}

fn looked(view: &NodeView) -> Role {
    match (view.machine, &view.status) {
        (Some(DomainState::Off), _) => Role::Off,
        (Some(DomainState::Paused), _) => Role::Frozen,
        (_, None) => Role::Apart,
        (_, Some(_)) if view.serves() => Role::Active,
        (_, Some(_))
            if matches!(
                view.cluster_state(),
                Some(ClusterState::NoQuorum | ClusterState::Stopped)
            ) =>
        {
            Role::Apart
        }
        (_, Some(_)) => Role::Passive,
    }
}

/// What an event says of the node that it comes from.
fn role_after(what: &EventKind) -> Option<Role> {
    match what {
        EventKind::Online { .. } => Some(Role::Active),
        EventKind::Offline { .. } | EventKind::ClusterJoined { .. } | EventKind::ClusterFormed { .. } => {
            Some(Role::Passive)
        }
        EventKind::QuorumLost { .. } => Some(Role::Apart),
        _ => None,
    }
}

/// The bars of one node from `from_us` to `to_us`. Looks say what it was; events and faults say exactly when that changed.
pub(super) fn role_intervals(history: &History, node: &str, from_us: u64, to_us: u64) -> Vec<RoleInterval> {
    let looks = history
        .observations
        .iter()
        .filter_map(|o| Some((o.t_us, looked(o.nodes.get(node)?))));
    let faults = history
        .faults
        .iter()
        .filter(|f| f.target.get("node").is_some_and(|n| n == node));
    let faults = faults.filter_map(|f| match f.kind.as_str() {
        "power-off" => Some((f.begin_us, Role::Off)),
        "freeze" => Some((f.begin_us, Role::Frozen)),
        _ => None,
    });
    let events = history
        .events
        .iter()
        .filter_map(Event::runtime_event)
        .filter(|t| t.node == node)
        .filter_map(|t| Some((t.event.t_us, role_after(&t.what)?)));
    let mut marks: Vec<(u64, Role)> = looks.chain(faults).chain(events).collect();
    marks.sort_by_key(|(t, _)| *t);
    let mut out: Vec<RoleInterval> = Vec::new();
    for (t, role) in marks {
        let t = t.clamp(from_us, to_us);
        match out.last_mut() {
            Some(last) if last.role == role => {}
            Some(last) => {
                last.to_us = t;
                out.push(RoleInterval {
                    from_us: t,
                    to_us,
                    role,
                });
            }
            None => out.push(RoleInterval { from_us, to_us, role }),
        }
    }
    out.retain(|s| s.to_us > s.from_us);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::sample::{Change, Plan, history};

    #[test]
    fn a_failover_is_seen_in_the_bars() {
        let h = history(&Plan::new(&[Change::PowerOff]));
        let roles = |node| {
            let bars = role_intervals(&h, node, 0, 60_000_000);
            assert!(bars.windows(2).all(|w| w[0].to_us == w[1].from_us), "{bars:?}");
            bars.iter().map(|s| s.role).collect::<Vec<_>>()
        };
        assert_eq!(roles("node1"), [Role::Active, Role::Off, Role::Passive]);
        assert_eq!(roles("node2"), [Role::Passive, Role::Active]);
        let off = role_intervals(&h, "node1", 0, 60_000_000)[1];
        assert_eq!(off.from_us, h.faults[0].begin_us);
    }
}
