//! The pack's orders as commands of the runtime's core.

use ccr_core::command::{Command, GroupName};
use std::collections::BTreeMap;

/// Why the simulator does not have an order; none where it has it.
pub(super) fn lacks(word: &str, args: &BTreeMap<String, String>) -> Option<String> {
    let has = command(word, args).is_some();
    (!has).then(|| format!("it has no order `{word}` with {args:?}"))
}

/// The command; none where there is none.
pub(super) fn command(word: &str, args: &BTreeMap<String, String>) -> Option<Command> {
    let text = |key: &str| args.get(key).cloned();
    let flag = |key: &str| args.get(key).is_some_and(|v| v == "true");
    let comment = || text("comment").unwrap_or_else(|| "failoverlab".to_owned());
    let group = text("group");
    Some(match word {
        "move" if flag("validate-only") => Command::ValidateMove {
            to: text("to")?,
            ignore_dismounted: flag("ignore-dismounted"),
        },
        "move" => Command::Move {
            to: text("to")?,
            comment: comment(),
            ignore_dismounted: flag("ignore-dismounted"),
        },
        "stop" => Command::Stop { comment: comment() },
        "start" => Command::Start,
        "suspend" => Command::Suspend {
            group,
            comment: comment(),
        },
        "resume" => Command::Resume { group },
        "reseed" => Command::Reseed { group },
        "mount" => Command::Mount { group },
        "backup-mark" => Command::BackupMark { group },
        "set" => {
            let (key, value) = args.get("set")?.split_once('=')?;
            Command::Set {
                key: key.to_owned(),
                value: value.to_owned(),
                force: flag("force"),
            }
        }
        "move-group" => Command::MoveGroup {
            group: match text("group")?.as_str() {
                "cluster" => GroupName::Cluster,
                "service" => GroupName::Service,
                _ => return None,
            },
            to: text("to")?,
        },
        "force-quorum" => Command::ForceQuorum,
        "evict" => Command::Evict { node: text("node")? },
        "join" => Command::Join { node: text("node")? },
        _ => return None,
    })
}
