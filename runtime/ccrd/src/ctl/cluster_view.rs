//! The cluster as the original's cluster tool lists it: nodes, groups, networks and the witness of the quorum resource.

use super::describe::word;
use ccr_contract::status::{ClusterState, MemberState, Network, ServiceState, Status, Witness};
use serde::Serialize;

/// What is not known.
const UNKNOWN: &str = "unknown";
/// Who has told nothing of a cluster.
const NO_MEMBER: &str = "this node is no member\n";

/// A node (`cluster node /status`).
#[derive(Debug, Serialize)]
pub struct Node {
    /// Its name.
    name: String,
    /// `Up`, `Down` or `Joining`, as the node sees it that is asked.
    status: &'static str,
    /// What it has of the two groups: `Active`, `Quorum Owner`.
    roles: Vec<&'static str>,
}

/// A group (`cluster group /status`).
#[derive(Debug, Serialize)]
pub struct Group {
    /// `Cluster Group`, or the name of the clustered mailbox server.
    name: String,
    /// Its owner; null where that is not known.
    node: Option<String>,
    /// `Online`, `Offline`, `Failed` …; null where that is not known.
    status: Option<String>,
}

/// A network (`cluster network /status`).
#[derive(Debug, Serialize)]
pub struct Net {
    /// Its name.
    name: String,
    /// What it may carry.
    role: String,
    /// `Up`, `Partitioned` where a direction is silent, `Down` where both are; null where nobody listens on it.
    status: Option<&'static str>,
    /// Directions without heartbeats: `node1>node2`.
    silent: Vec<String>,
}

/// The nodes, in the lab file's order; nothing on a hub.
pub fn nodes(s: &Status) -> Option<Vec<Node>> {
    let cluster = s.cluster.as_ref()?;
    let active = s.service.as_ref().and_then(|v| v.active.as_ref());
    let nodes = cluster.members.iter().map(|m| {
        let roles = [
            ("Active", active == Some(&m.name)),
            ("Quorum Owner", cluster.quorum_owner.as_ref() == Some(&m.name)),
        ];
        Node {
            name: m.name.clone(),
            status: match m.state {
                MemberState::Up => "Up",
                MemberState::Down => "Down",
                MemberState::Joining => "Joining",
            },
            roles: roles.into_iter().filter(|(_, is)| *is).map(|(role, _)| role).collect(),
        }
    });
    Some(nodes.collect())
}

/// The two groups; nothing on a hub.
pub fn groups(s: &Status) -> Option<Vec<Group>> {
    let cluster = s.cluster.as_ref()?;
    // Without a majority nobody has it online.
    let state = match cluster.state {
        ClusterState::Up => cluster.quorum_owner.as_ref().map(|_| ServiceState::Online),
        ClusterState::Forming | ClusterState::Stopped | ClusterState::NoQuorum => None,
    };
    let mut groups = vec![Group {
        name: "Cluster Group".into(),
        node: cluster.quorum_owner.clone(),
        status: state.map(|state| word(&state)),
    }];
    groups.extend(s.service.as_ref().map(|v| Group {
        name: v.name.clone(),
        node: v.active.clone().or_else(|| v.owner.clone()),
        status: Some(word(&v.state)),
    }));
    Some(groups)
}

/// The networks, in the lab file's order; nothing on a hub.
pub fn networks(s: &Status) -> Option<Vec<Net>> {
    let network = |n: &Network| {
        let silent = n.paths.iter().filter(|p| p.up == Some(false));
        let silent: Vec<String> = silent.map(|p| format!("{}>{}", p.from, p.to)).collect();
        let unknown = n.paths.is_empty() || n.paths.iter().any(|p| p.up.is_none());
        let status = match silent.len() {
            0 if unknown => None,
            0 => Some("Up"),
            all if all == n.paths.len() => Some("Down"),
            _ => Some("Partitioned"),
        };
        Net {
            name: n.name.clone(),
            role: word(&n.role),
            status,
            silent,
        }
    };
    Some(s.cluster.as_ref()?.networks.iter().map(network).collect())
}

/// The witness; nothing on a hub, or where there is none.
pub fn witness(s: &Status) -> Option<Witness> {
    s.cluster.as_ref()?.witness.clone()
}

/// The nodes for people.
pub fn nodes_text(s: &Status) -> String {
    let Some(nodes) = nodes(s) else { return NO_MEMBER.into() };
    let rows = nodes.into_iter().map(|n| {
        let roles = n.roles.iter().map(|role| format!(" <{role}>"));
        [format!("{}{}", n.name, roles.collect::<String>()), n.status.to_owned()]
    });
    table(["Node", "Status"], rows)
}

/// The groups for people.
pub fn groups_text(s: &Status) -> String {
    let Some(groups) = groups(s) else {
        return NO_MEMBER.into();
    };
    let known = |text: Option<String>| text.unwrap_or_else(|| UNKNOWN.into());
    table(
        ["Group", "Node", "Status"],
        groups.into_iter().map(|g| [g.name, known(g.node), known(g.status)]),
    )
}

/// The networks for people.
pub fn networks_text(s: &Status) -> String {
    let Some(networks) = networks(s) else {
        return NO_MEMBER.into();
    };
    let rows = networks.into_iter().map(|n| {
        let silent = (!n.silent.is_empty()).then(|| format!(" (no heartbeats {})", n.silent.join(", ")));
        let status = n.status.unwrap_or(UNKNOWN);
        [n.name, n.role, format!("{status}{}", silent.unwrap_or_default())]
    });
    table(["Network", "Role", "Status"], rows)
}

/// The witness for people, with the original's name for its path.
pub fn witness_text(s: &Status) -> String {
    if s.cluster.is_none() {
        return NO_MEMBER.into();
    }
    let Some(w) = witness(s) else {
        return "there is no witness\n".into();
    };
    let mut t = format!("MNSFileShare : {}\n", w.configured);
    t += &format!("In force     : {}\n", w.running.as_deref().unwrap_or(UNKNOWN));
    t += &format!("Status       : {}\n", word(&w.health));
    for (node, probe) in &w.probed_by {
        let said = match (&probe.error, probe.ok) {
            (Some(why), _) => why.as_str(),
            (None, true) => "ok",
            (None, false) => "failed",
        };
        t += &format!("Probed by    : {node}, {} ms ago: {said}\n", probe.age_ms);
    }
    t
}

/// Rows below a heading, in columns.
fn table<const N: usize>(heading: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let rows: Vec<[String; N]> = std::iter::once(heading.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|r| r[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    let line = |row: &[String; N]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Status {
        serde_json::from_str(json).unwrap()
    }

    fn member() -> Status {
        read(
            r#"{"schema":1,"node":"node1","version":"0","epoch":7,
            "cluster":{"state":"up","quorum_owner":"node2","config_tag":1,"votes":{"total":3,"needed":2,"have":[]},
              "members":[{"name":"node1","state":"up"},{"name":"node2","state":"joining"}],
              "networks":[
                {"name":"public","role":"mixed","paths":[{"from":"node1","to":"node2","up":true},{"from":"node2","to":"node1","up":false}]},
                {"name":"private","role":"internal","paths":[{"from":"node1","to":"node2","up":true},{"from":"node2","to":"node1","up":null}]},
                {"name":"dead","role":"internal","paths":[{"from":"node1","to":"node2","up":false},{"from":"node2","to":"node1","up":false}]},
                {"name":"lan","role":"client","paths":[]}],
              "witness":{"configured":"\\\\hub\\w","running":null,"health":"failed",
                "probed_by":{"node1":{"ok":false,"age_ms":800,"error":"access denied"},"node2":{"ok":true,"age_ms":5}}}},
            "service":{"name":"exmbx","state":"Offline","active":null,"owner":"node1","intent":"stopped","address":"10.0.0.1"}}"#,
        )
    }

    #[test]
    fn nodes_have_their_roles_beside_them() {
        let mut s = member();
        assert_eq!(
            nodes_text(&s),
            "Node                  Status\nnode1                 Up\nnode2 <Quorum Owner>  Joining\n"
        );
        s.service.as_mut().unwrap().active = Some("node2".into());
        assert!(nodes_text(&s).contains("node2 <Active> <Quorum Owner>  Joining\n"));
        let json = serde_json::to_value(nodes(&s)).unwrap();
        assert_eq!(
            (&json[0]["status"], &json[1]["roles"][0]),
            (&"Up".into(), &"Active".into())
        );
    }

    #[test]
    fn groups_have_an_owner_and_a_state_or_nobody_knows() {
        let mut s = member();
        assert_eq!(
            groups_text(&s),
            "Group          Node   Status\nCluster Group  node2  Online\nexmbx          node1  Offline\n"
        );
        let cluster = s.cluster.as_mut().unwrap();
        (cluster.state, cluster.quorum_owner, s.service) = (ClusterState::NoQuorum, None, None);
        assert_eq!(
            groups_text(&s),
            "Group          Node     Status\nCluster Group  unknown  unknown\n"
        );
        assert!(serde_json::to_value(groups(&s)).unwrap()[0]["status"].is_null());
    }

    #[test]
    fn a_network_is_up_partitioned_down_or_unknown() {
        assert_eq!(
            networks_text(&member()),
            "Network  Role      Status\npublic   mixed     Partitioned (no heartbeats node2>node1)\nprivate  internal  unknown\n\
             dead     internal  Down (no heartbeats node1>node2, node2>node1)\nlan      client    unknown\n"
        );
    }

    #[test]
    fn the_witness_has_who_probed_it() {
        assert_eq!(
            witness_text(&member()),
            "MNSFileShare : \\\\hub\\w\nIn force     : unknown\nStatus       : failed\n\
             Probed by    : node1, 800 ms ago: access denied\nProbed by    : node2, 5 ms ago: ok\n"
        );
        let mut none = member();
        none.cluster.as_mut().unwrap().witness = None;
        assert_eq!(witness_text(&none), "there is no witness\n");
        let hub = read(r#"{"schema":1,"node":"hub","version":"0","epoch":7,"cluster":null,"service":null}"#);
        for text in [nodes_text, groups_text, networks_text, witness_text] {
            assert_eq!(text(&hub), NO_MEMBER);
        }
        assert!(serde_json::to_value(networks(&hub)).unwrap().is_null());
    }
}
