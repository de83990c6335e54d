//! The words of `ccrctl`: its own, which the pack's contract names, and the original's cmdlets by their nouns (`cms move` is
//! Move-ClusteredMailboxServer, `copy update` is Update-StorageGroupCopy).

use ccr_contract::event::{NodeEvent, Severity, Value};
use ccr_core::command::GroupName;
use clap::{Args, Subcommand};
use std::time::Duration;

/// The comment of an operator who may leave it out.
const NO_REASON: &str = "no reason given";

#[derive(Debug, Clone, Subcommand)]
pub(super) enum Verb {
    /// This node's own view of the cluster, the service and the copies.
    Status {
        /// As one JSON document.
        #[arg(long)]
        json: bool,
        /// One JSON line now, one at each change and at least every 5 s, at most 4 a second.
        #[arg(long, requires = "json")]
        follow: bool,
    },
    /// What happened, one JSON line an event, oldest first.
    Events(EventQuery),
    /// What the store or the queue holds, as one JSON document.
    Dump,
    /// Move the service to the other member after checking its copy (handoff).
    Move(MoveArgs),
    /// Move a group without any check, as the cluster tool does.
    MoveGroup(MoveGroupArgs),
    /// Stop the service; it stays stopped until it is started.
    Stop(StopArgs),
    /// Start the service.
    Start,
    /// Suspend copying and replay.
    Suspend(SuspendArgs),
    /// Resume copying and replay.
    Resume(GroupArgs),
    /// Seed the copy anew.
    Reseed(SeedArgs),
    /// Mount a database although more logs are lost than the dial allows.
    Mount(GroupArgs),
    /// Tell that closed logs are backed up.
    BackupMark(GroupArgs),
    /// Change a live setting.
    Set(SetArgs),
    /// Form the cluster on this node alone, without a majority.
    ForceQuorum,
    /// Remove a member from the cluster.
    Evict(NodeArgs),
    /// Take an evicted member back.
    Join(NodeArgs),
    /// The clustered mailbox server.
    #[command(subcommand)]
    Cms(Cms),
    /// The copies of storage groups.
    #[command(subcommand)]
    Copy(CopyVerb),
    /// The cluster.
    #[command(subcommand)]
    Cluster(ClusterVerb),
    /// The transport dumpster, on a hub.
    #[command(subcommand)]
    Dumpster(DumpsterVerb),
}

/// ClusteredMailboxServer.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum Cms {
    /// Its state, where it runs, and what failed of it (Get-ClusteredMailboxServerStatus).
    Status(View),
    /// Move it after checks (Move-ClusteredMailboxServer).
    Move(MoveArgs),
    /// Stop it; it stays stopped (Stop-ClusteredMailboxServer).
    Stop(StopArgs),
    /// Start it (Start-ClusteredMailboxServer).
    Start,
}

/// StorageGroupCopy.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum CopyVerb {
    /// Status and queues (Get-StorageGroupCopyStatus).
    Status(View),
    /// Stop copying and replay (Suspend-StorageGroupCopy).
    Suspend(SuspendArgs),
    /// Go on with both (Resume-StorageGroupCopy).
    Resume(GroupArgs),
    /// Seed it anew (Update-StorageGroupCopy).
    #[command(alias = "seed")]
    Update(SeedArgs),
    /// Mount whatever is lost (Restore-StorageGroupCopy, then Mount-Database).
    Restore(GroupArgs),
}

/// What the original's cluster tool does.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum ClusterVerb {
    /// Members, votes, networks and witness.
    Status(View),
    /// The nodes, their state and what they own (`cluster node /status`).
    #[command(alias = "node")]
    Nodes(View),
    /// The two groups, their owners and states (`cluster group /status`).
    #[command(alias = "group")]
    Groups(View),
    /// The networks, what they may carry and their state (`cluster network /status`).
    #[command(alias = "network")]
    Networks(View),
    /// The file share witness: configured, in force, and who could lock a file there.
    Witness(View),
    /// What happened, a line an event, oldest first.
    Events {
        #[command(flatten)]
        query: EventQuery,
        /// As JSON lines.
        #[arg(long)]
        json: bool,
    },
    /// Move a group without any check.
    MoveGroup(MoveGroupArgs),
    /// Change a live setting.
    Set(SetArgs),
    /// Form the cluster on this node alone, without a majority.
    ForceQuorum,
    /// Remove a member.
    Evict(NodeArgs),
    /// Take an evicted member back.
    Join(NodeArgs),
}

/// The dumpster.
#[derive(Debug, Clone, Subcommand)]
pub(super) enum DumpsterVerb {
    /// What is queued, kept and refused.
    Status(View),
}

impl Verb {
    /// The same in the runtime's own words, where it has some.
    pub fn plain(self) -> Self {
        match self {
            Verb::Cms(Cms::Move(args)) => Verb::Move(args),
            Verb::Cms(Cms::Stop(args)) => Verb::Stop(args),
            Verb::Cms(Cms::Start) => Verb::Start,
            Verb::Copy(CopyVerb::Suspend(args)) => Verb::Suspend(args),
            Verb::Copy(CopyVerb::Resume(args)) => Verb::Resume(args),
            Verb::Copy(CopyVerb::Update(args)) => Verb::Reseed(args),
            Verb::Copy(CopyVerb::Restore(args)) => Verb::Mount(args),
            Verb::Cluster(ClusterVerb::MoveGroup(args)) => Verb::MoveGroup(args),
            Verb::Cluster(ClusterVerb::Set(args)) => Verb::Set(args),
            Verb::Cluster(ClusterVerb::ForceQuorum) => Verb::ForceQuorum,
            Verb::Cluster(ClusterVerb::Evict(args)) => Verb::Evict(args),
            Verb::Cluster(ClusterVerb::Join(args)) => Verb::Join(args),
            Verb::Cluster(ClusterVerb::Events { query, json: true }) => Verb::Events(query),
            other => other,
        }
    }
}

#[derive(Debug, Clone, Copy, Args)]
pub(super) struct View {
    /// As one JSON document.
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct MoveArgs {
    /// The member that shall serve; the other one, if left out.
    #[arg(value_name = "NODE")]
    node: Option<String>,
    /// The same.
    #[arg(long, value_name = "NODE", conflicts_with = "node")]
    to: Option<String>,
    /// Why; it is logged.
    // The last one counts: a pack's order brings one along.
    #[arg(long, required_unless_present = "validate_only", overrides_with = "comment", value_parser = reason)]
    comment: Option<String>,
    /// Only say whether the move would begin now.
    #[arg(long)]
    pub validate_only: bool,
    /// Although a database is dismounted; it stays dismounted.
    #[arg(long)]
    pub ignore_dismounted: bool,
}

impl MoveArgs {
    /// The member that was named.
    pub fn to(&self) -> Option<&String> {
        self.node.as_ref().or(self.to.as_ref())
    }
    /// Why; empty where nothing is to be moved.
    pub fn comment(&self) -> String {
        self.comment.clone().unwrap_or_default()
    }
}

#[derive(Debug, Clone, Args)]
pub(super) struct MoveGroupArgs {
    /// `cluster` or `service`.
    #[arg(value_parser = group_name)]
    pub group: GroupName,
    /// The member that shall own it.
    #[arg(long)]
    pub to: String,
}

#[derive(Debug, Clone, Args)]
pub(super) struct StopArgs {
    /// Why; it is logged.
    #[arg(long, overrides_with = "comment", value_parser = reason)]
    pub comment: String,
}

#[derive(Debug, Clone, Args)]
pub(super) struct SuspendArgs {
    #[command(flatten)]
    pub of: GroupArgs,
    /// Why; it is logged.
    #[arg(long, default_value = NO_REASON)]
    pub comment: String,
}

#[derive(Debug, Clone, Args)]
pub(super) struct GroupArgs {
    /// One storage group; all, if left out.
    #[arg(long)]
    pub group: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub(super) struct SeedArgs {
    #[command(flatten)]
    pub of: GroupArgs,
    /// Do not return before the copy is Healthy, or has failed.
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct SetArgs {
    /// Its name and new value.
    #[arg(value_name = "KEY=VALUE", value_parser = key_value)]
    pub setting: (String, String),
    /// Although the witness cannot be locked.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct NodeArgs {
    /// Which.
    pub node: String,
}

/// Which events are wanted.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct EventQuery {
    /// Wait for more.
    #[arg(long)]
    pub follow: bool,
    /// Begin with the event of this number; what is missing from there on is a line `{"gap":{"from":…,"to":…}}`.
    #[arg(long, value_name = "N")]
    pub from: Option<u64>,
    /// Of this severity or a higher one: debug, info, warning, error.
    #[arg(long, value_parser = severity)]
    pub severity: Option<Severity>,
    /// With this number of the original (1135, 1177, 2058 …); more than one may be given.
    #[arg(long, value_name = "ID")]
    pub id: Vec<u32>,
    /// Whose name begins so: `cluster.`, `copy.failed`.
    #[arg(long, value_name = "NAME")]
    pub kind: Option<String>,
    /// That NODE tells of itself or that name it; who asks a member has that member's events.
    #[arg(long, value_name = "NODE")]
    pub node: Option<String>,
    /// Not older than that: `90s`, `10m`, `2h`.
    #[arg(long, value_name = "AGO", value_parser = ago)]
    pub since: Option<Duration>,
    /// Not younger than that.
    #[arg(long, value_name = "AGO", value_parser = ago, conflicts_with = "follow")]
    pub until: Option<Duration>,
}

impl EventQuery {
    /// Whether this event is wanted that `teller` tells, at `now_us` of its boot-time clock.
    pub fn wants(&self, event: &NodeEvent, teller: Option<&str>, now_us: u64) -> bool {
        let before = |ago: Duration| now_us.saturating_sub(u64::try_from(ago.as_micros()).unwrap_or(u64::MAX));
        self.severity.is_none_or(|least| event.severity >= least)
            && (self.id.is_empty() || event.id.is_some_and(|id| self.id.contains(&id)))
            && self
                .kind
                .as_ref()
                .is_none_or(|name| event.kind.starts_with(name.as_str()))
            && self
                .node
                .as_deref()
                .is_none_or(|node| teller == Some(node) || names(event, node))
            && self.since.is_none_or(|ago| event.node_t_us >= before(ago))
            && self.until.is_none_or(|ago| event.node_t_us <= before(ago))
    }
}

/// Whether a part of what an event says is the node's name.
fn names(event: &NodeEvent, node: &str) -> bool {
    event
        .data
        .values()
        .any(|v| matches!(v, Value::Text(text) if text == node))
}

fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("say why: it is logged".into()),
        why => Ok(why.to_owned()),
    }
}

fn severity(text: &str) -> Result<Severity, String> {
    let known = [
        ("debug", Severity::Debug),
        ("info", Severity::Info),
        ("warning", Severity::Warning),
        ("error", Severity::Error),
    ];
    let found = known.into_iter().find(|(name, _)| *name == text);
    found
        .map(|(_, severity)| severity)
        .ok_or_else(|| "a severity is debug, info, warning or error".into())
}

fn ago(text: &str) -> Result<Duration, String> {
    let refused = || "write a time like 90s, 10m or 2h".to_owned();
    let unit = text.chars().last().ok_or_else(refused)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(refused()),
    };
    let number: u64 = text[..text.len() - 1].trim_end().parse().map_err(|_| refused())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(refused)
}

fn group_name(text: &str) -> Result<GroupName, String> {
    match text {
        "cluster" => Ok(GroupName::Cluster),
        "service" => Ok(GroupName::Service),
        _ => Err("there are two groups: cluster, service".into()),
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::client::Cli;
    use super::*;
    use clap::Parser;

    fn parse(words: &[&str]) -> Result<Verb, clap::Error> {
        Cli::try_parse_from([&["ccrctl"], words].concat()).map(|c| c.verb())
    }

    #[test]
    fn the_words_of_the_contract() {
        for words in [
            &["status", "--json"][..],
            &["status", "--json", "--follow"],
            &["events", "--follow"],
            &["events", "--follow", "--from", "812"],
            &[
                "events",
                "--severity",
                "warning",
                "--id",
                "1135",
                "--id",
                "1177",
                "--since",
                "10m",
            ],
            &["dump"],
            &["move", "node2", "--comment", "why"],
            &["move", "--to", "node2", "--comment", "why"],
            &["move", "--comment", "why"],
            &["move", "--validate-only"],
            &["stop", "--comment", "why"],
            &["stop", "--comment", "the pack's", "--comment", "the operator's"],
            &["start"],
            &["suspend", "--comment", "x"],
            &["resume", "--group", "First"],
            &["reseed"],
            &["reseed", "--wait"],
            &["set", "heartbeat_ms=500"],
            &["--run", "/tmp/x", "status"],
            &["move-group", "cluster", "--to", "node1"],
            &["force-quorum"],
            &["cluster", "events", "--json", "--kind", "cluster."],
            &["cluster", "status", "--json"],
            &["cluster", "nodes", "--json"],
            &["cluster", "groups"],
            &["cluster", "network"],
            &["cluster", "witness", "--json"],
            &["events", "--node", "node2"],
            &["cms", "status"],
            &["copy", "status", "--json"],
            &["dumpster", "status"],
        ] {
            assert!(parse(words).is_ok(), "{words:?}");
        }
        for words in [
            &["set", "x"][..],
            &["set", "=x"],
            &["mvoe"],
            &["status", "--follow"],
            &["move", "a", "--to", "b", "--comment", "x"],
            &["move", "node2"],
            &["move", "node2", "--comment", " "],
            &["stop"],
            &["cms", "stop"],
            &["move-group", "all", "--to", "x"],
            &["events", "--severity", "loud"],
            &["events", "--since", "10"],
            &["events", "--since", "é"],
            &["events", "--since", "99999999999999999999h"],
            &["events", "--follow", "--until", "1s"],
            &["cms"],
            &[],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn the_originals_words_mean_the_same() {
        for (original, plain) in [
            (
                &["cms", "move", "node2", "--comment", "x"][..],
                &["move", "node2", "--comment", "x"][..],
            ),
            (&["cms", "stop", "--comment", "x"], &["stop", "--comment", "x"]),
            (&["cms", "start"], &["start"]),
            (
                &["copy", "suspend", "--group", "First"],
                &["suspend", "--group", "First"],
            ),
            (&["copy", "resume"], &["resume"]),
            (&["copy", "update", "--wait"], &["reseed", "--wait"]),
            (&["copy", "seed"], &["reseed"]),
            (&["copy", "restore"], &["mount"]),
            (
                &["cluster", "move-group", "service", "--to", "b"],
                &["move-group", "service", "--to", "b"],
            ),
            (&["cluster", "set", "a=b", "--force"], &["set", "a=b", "--force"]),
            (&["cluster", "evict", "b"], &["evict", "b"]),
            (&["cluster", "join", "b"], &["join", "b"]),
            (&["cluster", "force-quorum"], &["force-quorum"]),
            (&["cluster", "events", "--json", "--id", "7"], &["events", "--id", "7"]),
        ] {
            let [a, b] = [original, plain].map(|w| format!("{:?}", parse(w).unwrap()));
            assert_eq!(a, b);
        }
    }

    #[test]
    fn events_are_chosen_by_severity_number_name_and_time() {
        let event = NodeEvent {
            seq: 1,
            node_t_us: 100_000_000,
            kind: "cluster.member-down".into(),
            id: Some(1135),
            severity: Severity::Warning,
            data: [("member".to_owned(), Value::Text("node2".into()))].into(),
        };
        let wants = |words: &[&str]| match parse(&[&["events"], words].concat()).unwrap() {
            Verb::Events(query) => query.wants(&event, Some("node1"), 160_000_000),
            other => panic!("{other:?}"),
        };
        for yes in [
            &[][..],
            &["--severity", "warning"],
            &["--severity", "debug", "--id", "1177", "--id", "1135"],
            &["--kind", "cluster."],
            &["--since", "60s"],
            &["--until", "1m"],
            &["--since", "2h"],
            &["--node", "node1"],
            &["--node", "node2"],
        ] {
            assert!(wants(yes), "{yes:?}");
        }
        for no in [
            &["--severity", "error"][..],
            &["--id", "1177"],
            &["--kind", "copy."],
            &["--since", "59s"],
            &["--until", "61 s"],
            &["--node", "node"],
        ] {
            assert!(!wants(no), "{no:?}");
        }
    }
}
