//! A status for people.

use ccr_contract::status::{Cluster, Copy, Hub, Network, Path, Service, Status};

/// A node's status, in lines.
pub fn status(s: &Status) -> String {
    let mut t = format!("{}  ccrd {}  epoch {}\n", s.node, s.version, s.epoch);
    t.extend(s.cluster.as_ref().map(cluster));
    t.extend(s.service.as_ref().map(service));
    t.extend(s.copies.iter().map(copy));
    t.extend(s.hub.as_ref().map(hub));
    t
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
        let share = w.running.as_deref().unwrap_or(&w.configured);
        t += &format!("witness   {share} {}\n", word(&w.health));
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
    t
}

/// The word that the contract writes for a value, without its quotes.
fn word(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(s)) => s,
        Ok(other) => other.to_string(),
        Err(e) => e.to_string(),
    }
}
