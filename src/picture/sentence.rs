//! The picture in one sentence.

use super::{ClientsState, Picture, Role};

/// `node2 serves since 12.3 s; node1 is off; clients waited 6.2 s`. Times are seconds behind `from_us`.
pub fn sentence(picture: &Picture, from_us: u64) -> String {
    let seconds = |us: u64| format!("{:.1} s", us.saturating_sub(from_us) as f64 / 1e6);
    let serving: Vec<_> = picture.members().filter(|(_, n)| n.role == Role::Active).collect();
    let mut parts = match serving.as_slice() {
        [] if picture.members().next().is_none() => {
            let run = picture.nodes.values().filter(|n| n.role == Role::Runs).count();
            vec![format!("{run} of {} machines run", picture.nodes.len())]
        }
        [] => vec!["no node serves".to_owned()],
        all => all
            .iter()
            .map(|(name, n)| format!("{name} serves since {}", seconds(n.since_us)))
            .collect(),
    };
    let others = picture
        .nodes
        .iter()
        .filter(|(_, n)| !matches!(n.role, Role::Active | Role::Passive | Role::Runs));
    parts.extend(others.map(|(name, n)| match n.role {
        Role::Silent => format!("{name} does not answer"),
        Role::NoQuorum => format!("{name} has no quorum"),
        role => format!("{name} is {}", role.word()),
    }));
    let wait = |us: u64| format!("{:.1} s", us as f64 / 1e6);
    match picture.clients.state {
        ClientsState::Idle => {}
        ClientsState::Lost => parts.push(format!("clients wait since {}", seconds(picture.clients.since_us))),
        ClientsState::Connected | ClientsState::Restored => {
            parts.push(format!(
                "clients waited {} at the longest",
                wait(picture.clients.longest_us)
            ));
        }
    }
    parts.join("; ")
}
