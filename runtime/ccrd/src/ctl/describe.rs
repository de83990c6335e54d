//! A status, its parts and events for people.

use ccr_contract::event::{NodeEvent, Value};
use ccr_contract::status::{Cluster, Copy, Hub, MemberState, Network, Path, Service, Status, Witness};
use ccr_core::calendar::Utc;
use serde::Serialize;

/// A node's status, in lines.
pub fn status(s: &Status) -> String {
    let mut t = format!("{}  ccrd {}  epoch {}\n", s.node, s.version, s.epoch);
    t.extend(s.cluster.as_ref().map(cluster));
    t.extend(s.service.as_ref().map(service));
    t.extend(s.copies.iter().map(copy));
    t.extend(s.hub.as_ref().map(hub));
    t
}

/// The clustered mailbox server, as Get-ClusteredMailboxServerStatus shows it.
#[derive(Debug, Serialize)]
pub struct Cms {
    /// Its name.
    name: Option<String>,
    /// Its state; null where this node does not know.
    state: Option<String>,
    /// Members that are up: `node1 <Active>`, `node2 <Quorum Owner>`.
    operational_machines: Vec<String>,
    /// What failed of it; null where this node does not know.
    failed_resources: Option<Vec<String>>,
    /// What is wrong with its databases, or under way.
    cause: Option<String>,
}

impl Cms {
    /// By this node's status.
    pub fn of(s: &Status) -> Self {
        let service = s.service.as_ref();
        let active = service.and_then(|v| v.active.as_ref());
        let (members, owner) = match &s.cluster {
            Some(c) => (c.members.as_slice(), c.quorum_owner.as_ref()),
            None => (&[][..], None),
        };
        let up = members.iter().filter(|m| m.state == MemberState::Up);
        let machine = |m: &ccr_contract::status::Member| {
            let active = if active == Some(&m.name) { " <Active>" } else { "" };
            let owner = if owner == Some(&m.name) { " <Quorum Owner>" } else { "" };
            format!("{}{active}{owner}", m.name)
        };
        Self {
            name: service.map(|v| v.name.clone()),
            state: service.map(|v| word(&v.state)),
            operational_machines: up.map(machine).collect(),
            failed_resources: service.map(|v| v.failed_resources.clone()),
            cause: service.and_then(|v| v.cause.clone()),
        }
    }
}

/// The same for people.
pub fn cms(s: &Status) -> String {
    let cms = Cms::of(s);
    let unknown = || "unknown".to_owned();
    let mut t = format!(
        "ClusteredMailboxServerName : {}\nState                      : {}\nOperationalMachines        : {{{}}}\nFailedResources            : {{{}}}\n",
        cms.name.unwrap_or_else(unknown),
        cms.state.unwrap_or_else(unknown),
        cms.operational_machines.join(", "),
        cms.failed_resources.map_or_else(unknown, |all| all.join(", "))
    );
    t.extend(cms.cause.map(|why| format!("Cause                      : {why}\n")));
    t
}

/// The copies.
pub fn copies(s: &Status) -> String {
    if s.copies.is_empty() {
        return "this node knows of no copy\n".into();
    }
    s.copies.iter().map(copy).collect()
}

/// The cluster.
pub fn cluster_of(s: &Status) -> String {
    let known = s.cluster.as_ref().map(cluster);
    known.unwrap_or_else(|| "this node is no member\n".into())
}

/// The transport.
pub fn dumpster(s: &Status) -> String {
    let known = s.hub.as_ref().map(hub);
    known.unwrap_or_else(|| "this node is no hub\n".into())
}

/// An event in a line; `now_us` and `wall_us` are the same instant by the boot-time clock and since 1970.
pub fn event(e: &NodeEvent, now_us: u64, wall_us: u64) -> String {
    let at = wall_us.saturating_sub(now_us.saturating_sub(e.node_t_us));
    let id = e.id.map_or_else(|| "-".to_owned(), |id| id.to_string());
    let mut t = format!(
        "{}.{:03}  {:<7}  {id:>4}  {}",
        Utc::of(at / 1_000_000).plain(),
        at / 1000 % 1000,
        word(&e.severity),
        e.kind
    );
    for (name, value) in &e.data {
        let value = match value {
            Value::Bool(b) => b.to_string(),
            Value::Number(n) => n.to_string(),
            Value::Text(text) => format!("\"{}\"", text.escape_debug()),
        };
        t += &format!(" {name}={value}");
    }
    t + "\n"
}

fn cluster(c: &Cluster) -> String {
    let members: Vec<String> = c
        .members
        .iter()
        .map(|m| format!("{} {}", m.name, word(&m.state)))
        .collect();
    let have = if c.votes.have.is_empty() {
        "none".into()
    } else {
        c.votes.have.join(", ")
    };
    let mut t = format!(
        "cluster   {}{}; quorum owner {}; votes {have} of {} ({} needed)\n",
        word(&c.state),
        c.cause.as_ref().map(|why| format!(" ({why})")).unwrap_or_default(),
        c.quorum_owner.as_deref().unwrap_or("unknown"),
        c.votes.total,
        c.votes.needed
    );
    t += &format!("members   {}\n", members.join(", "));
    t.extend(c.networks.iter().map(network));
    if let Some(w) = &c.witness {
        t += &witness(w);
    }
    t
}

/// The health is that of the witness in force, which may be another one than is configured.
fn witness(w: &Witness) -> String {
    let failed = w
        .probed_by
        .iter()
        .filter_map(|(node, p)| Some(format!("{node}: {}", p.error.as_ref()?)));
    let failed: Vec<String> = failed.collect();
    let why = if failed.is_empty() {
        String::new()
    } else {
        format!(" ({})", failed.join("; "))
    };
    let share = w.running.as_deref().unwrap_or(&w.configured);
    let mut t = format!("witness   {share} {}{why}\n", word(&w.health));
    if share != w.configured {
        t += &format!(
            "          configured is {}: in force when the Cluster Group comes online again\n",
            w.configured
        );
    }
    t
}

fn network(n: &Network) -> String {
    let path = |p: &Path| {
        let up = match p.up {
            Some(true) => "up",
            Some(false) => "down",
            None => "unknown",
        };
        format!("{}>{} {up}", p.from, p.to)
    };
    let paths: Vec<String> = n.paths.iter().map(path).collect();
    format!("network   {} ({}): {}\n", n.name, word(&n.role), paths.join(", "))
}

fn service(v: &Service) -> String {
    let active = match (&v.active, &v.owner) {
        (Some(active), _) => active.clone(),
        (None, Some(owner)) => format!("nobody, owner {owner}"),
        (None, None) => "unknown".into(),
    };
    let epoch = v.epoch.map(|e| format!(" in epoch {e}")).unwrap_or_default();
    let mut t = format!(
        "service   {} {}{epoch}; active {active}; intent {}; {}\n",
        v.name,
        word(&v.state),
        word(&v.intent),
        v.address
    );
    if !v.failed_resources.is_empty() {
        t += &format!("failed    {}\n", v.failed_resources.join("; "));
    }
    if let Some(cause) = &v.cause {
        t += &format!("cause     {cause}\n");
    }
    t
}

fn copy(c: &Copy) -> String {
    format!(
        "copy      {} on {}: {}; generated {} inspected {} replayed {}; queues {} and {}{}\n",
        c.group,
        c.node,
        word(&c.status),
        c.generated,
        c.inspected,
        c.replayed,
        c.copy_queue,
        c.replay_queue,
        c.error.as_deref().map(|e| format!("; {e}")).unwrap_or_default()
    )
}

fn hub(h: &Hub) -> String {
    let mut t = format!(
        "hub       queued {}; dumpster {} ({} bytes); redeliveries {}; highest epoch seen {}\n",
        h.queued, h.dumpster, h.dumpster_bytes, h.redeliveries, h.epoch_seen
    );
    if h.set_aside > 0 {
        t += &format!(
            "          {} messages set aside: not understood, kept as .bad\n",
            h.set_aside
        );
    }
    if h.refused > 0 {
        t += &format!(
            "          {} recipients refused for good: their senders are told\n",
            h.refused
        );
    }
    t
}

/// The word that the contract writes for a value, without its quotes.
pub(super) fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(s)) => s,
        Ok(other) => other.to_string(),
        Err(e) => e.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_as_the_original_shows_it() {
        let status: Status = serde_json::from_str(
            r#"{"schema":1,"node":"node1","version":"0","epoch":7,
            "cluster":{"state":"up","quorum_owner":"node2","config_tag":1,"votes":{"total":3,"needed":2,"have":[]},
              "members":[{"name":"node1","state":"up"},{"name":"node2","state":"up"},{"name":"node3","state":"down"}],
              "networks":[],"witness":null},
            "service":{"name":"exmbx","state":"PartiallyOnline","active":"node1","intent":"started","address":"10.0.0.1",
              "failed_resources":["database First: dismounted"]}}"#,
        )
        .unwrap();
        let text = cms(&status);
        for line in [
            "State                      : PartiallyOnline",
            "OperationalMachines        : {node1 <Active>, node2 <Quorum Owner>}",
            "FailedResources            : {database First: dismounted}",
        ] {
            assert!(text.lines().any(|l| l == line), "{text}");
        }
        let json = serde_json::to_value(Cms::of(&status)).unwrap();
        assert_eq!(json["operational_machines"][1], "node2 <Quorum Owner>");
        let nothing: Status =
            serde_json::from_str(r#"{"schema":1,"node":"hub","version":"0","epoch":7,"cluster":null,"service":null}"#)
                .unwrap();
        assert!(cms(&nothing).contains("State                      : unknown"));
        assert!(cms(&nothing).contains("FailedResources            : {unknown}"));
        assert!(serde_json::to_value(Cms::of(&nothing)).unwrap()["failed_resources"].is_null());
        assert_eq!(cluster_of(&nothing), "this node is no member\n");
    }

    #[test]
    fn a_witness_in_force_is_not_the_configured_one_and_says_why_it_failed() {
        let read = |json: &str| -> Witness { serde_json::from_str(json).unwrap() };
        let other = read(
            r#"{"configured":"\\\\hub\\other","running":"\\\\hub\\w","health":"failed",
            "probed_by":{"node1":{"ok":true,"age_ms":1},"node2":{"ok":false,"age_ms":1,"error":"access denied"}}}"#,
        );
        assert_eq!(
            witness(&other),
            "witness   \\\\hub\\w failed (node2: access denied)\n          configured is \\\\hub\\other: in force when the Cluster Group comes online again\n"
        );
        let well = read(r#"{"configured":"\\\\hub\\w","running":null,"health":"ok","probed_by":{}}"#);
        assert_eq!(witness(&well), "witness   \\\\hub\\w ok\n");
    }

    #[test]
    fn an_event_in_a_line() {
        let event: NodeEvent = serde_json::from_str(
            r#"{"seq":3,"node_t_us":10000000,"kind":"cluster.member-down","id":1135,"severity":"warning",
            "data":{"member":"node2","why":"a\u001b[31m","epoch":7,"ok":true}}"#,
        )
        .unwrap();
        // Five seconds ago.
        let line = super::event(&event, 15_000_000, 1_172_706_250_250_000);
        assert_eq!(
            line,
            "2007-02-28 23:44:05.250  warning  1135  cluster.member-down epoch=7 member=\"node2\" ok=true why=\"a\\u{1b}[31m\"\n"
        );
    }
}
