//! `ccrctl`: asks the daemon on this machine.

use super::{Answer, RUN, Request, SOCKET, WATCH_MOST, describe};
use ccr_contract::status::Status;
use ccr_core::command::{Command, GroupName};
use clap::{Parser, Subcommand};
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// The comment of an operator who gives none; the original insists on one.
const NO_REASON: &str = "no reason given";

/// Tells the replication daemon on this machine what to do, and asks it how it is.
#[derive(Debug, Parser)]
#[command(name = "ccrctl", version, about)]
pub struct Cli {
    /// Folder of the daemon's control socket.
    #[arg(long, default_value = RUN, global = true)]
    run: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

impl Cli {
    /// What these words ask for, the program's name first. Ends the process where they are no use of it.
    pub fn of(words: Vec<OsString>) -> Self {
        // The tool asks this of every node: the parser would take longer than the answer, under emulation.
        let words_only = |wanted: &[&str]| words.iter().skip(1).eq(wanted);
        let (once, follow) = (&["status", "--json"], &["status", "--json", "--follow"]);
        if words_only(once) || words_only(follow) {
            return Self {
                run: RUN.into(),
                verb: Verb::Status {
                    json: true,
                    follow: words_only(follow),
                },
            };
        }
        Self::parse_from(words)
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
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
    Events {
        /// Wait for more.
        #[arg(long)]
        follow: bool,
        /// Begin with the event of this number; what is missing from there on is a line `{"gap":{"from":…,"to":…}}`.
        #[arg(long, value_name = "N")]
        from: Option<u64>,
    },
    /// What the store or the queue holds, as one JSON document.
    Dump,
    /// Move the service to the other member after checking its copy (handoff).
    Move {
        /// The member that shall serve; the other one, if left out.
        #[arg(value_name = "NODE")]
        node: Option<String>,
        /// The same.
        #[arg(long, value_name = "NODE", conflicts_with = "node")]
        to: Option<String>,
        /// Why; it is logged.
        #[arg(long, default_value = NO_REASON)]
        comment: String,
    },
    /// Move a group without any check, as the cluster tool does.
    MoveGroup {
        /// `cluster` or `service`.
        #[arg(value_parser = group_name)]
        group: GroupName,
        /// The member that shall own it.
        #[arg(long)]
        to: String,
    },
    /// Stop the service; it stays stopped until it is started.
    Stop {
        /// Why; it is logged.
        #[arg(long, default_value = NO_REASON)]
        comment: String,
    },
    /// Start the service.
    Start,
    /// Suspend copying and replay.
    Suspend {
        /// One storage group; all, if left out.
        #[arg(long)]
        group: Option<String>,
        /// Why; it is logged.
        #[arg(long, default_value = NO_REASON)]
        comment: String,
    },
    /// Resume copying and replay.
    Resume {
        /// One storage group; all, if left out.
        #[arg(long)]
        group: Option<String>,
    },
    /// Seed the copy anew.
    Reseed {
        /// One storage group; all, if left out.
        #[arg(long)]
        group: Option<String>,
    },
    /// Mount a database although more logs are lost than the dial allows.
    Mount {
        /// One storage group; all, if left out.
        #[arg(long)]
        group: Option<String>,
    },
    /// Tell that closed logs are backed up.
    BackupMark {
        /// One storage group; all, if left out.
        #[arg(long)]
        group: Option<String>,
    },
    /// Change a live setting.
    Set {
        /// Its name and new value.
        #[arg(value_name = "KEY=VALUE", value_parser = key_value)]
        setting: (String, String),
        /// Although the witness cannot be locked.
        #[arg(long)]
        force: bool,
    },
    /// Form the cluster on this node alone, without a majority.
    ForceQuorum,
    /// Remove a member from the cluster.
    Evict {
        /// Which.
        node: String,
    },
    /// Take an evicted member back.
    Join {
        /// Which.
        node: String,
    },
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

/// Runs `ccrctl`. 0: done; 1: the daemon refused; 2: wrong usage; 3: no answer, so that nobody can say what became of it.
pub fn run(cli: &Cli) -> ExitCode {
    match perform(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("ccrctl: {e}");
            ExitCode::from(match e {
                Failed::Denied(_) => 1,
                Failed::Unreachable { .. } | Failed::Unanswered(_) | Failed::Nonsense(_) | Failed::Output(_) => 3,
            })
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("{0}")]
    Denied(String),
    #[error("ccrd gave no answer: {0}")]
    Unanswered(String),
    #[error("could not ask ccrd at {at}: {cause}; is the service ccrd running?")]
    Unreachable { at: String, cause: std::io::Error },
    #[error("ccrd answered what was not asked for: {0}")]
    Nonsense(String),
    #[error("could not write the answer: {0}")]
    Output(std::io::Error),
}

fn perform(cli: &Cli) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    let command = match &cli.verb {
        Verb::Events { follow, from } => return events(cli, *follow, *from, &mut out),
        Verb::Status { follow: true, .. } => return tell(cli, &Request::Watch, true, &mut out),
        Verb::Status { json, .. } => {
            let status = status(cli)?;
            return if *json {
                print_json(&mut out, &status)
            } else {
                print(&mut out, &describe::status(&status))
            };
        }
        Verb::Dump => {
            return match ask(cli, Command::Dump)? {
                Answer::Dump(dump) => print_json(&mut out, &dump),
                other => Err(unexpected(other)),
            };
        }
        Verb::Move { node, to, comment } => Command::Move {
            to: match node.as_ref().or(to.as_ref()) {
                Some(to) => to.clone(),
                None => other_member(&status(cli)?)?,
            },
            comment: comment.clone(),
        },
        Verb::MoveGroup { group, to } => Command::MoveGroup {
            group: *group,
            to: to.clone(),
        },
        Verb::Stop { comment } => Command::Stop {
            comment: comment.clone(),
        },
        Verb::Start => Command::Start,
        Verb::Suspend { group, comment } => Command::Suspend {
            group: group.clone(),
            comment: comment.clone(),
        },
        Verb::Resume { group } => Command::Resume { group: group.clone() },
        Verb::Reseed { group } => Command::Reseed { group: group.clone() },
        Verb::Mount { group } => Command::Mount { group: group.clone() },
        Verb::BackupMark { group } => Command::BackupMark { group: group.clone() },
        Verb::Set { setting, force } => Command::Set {
            key: setting.0.clone(),
            value: setting.1.clone(),
            force: *force,
        },
        Verb::ForceQuorum => Command::ForceQuorum,
        Verb::Evict { node } => Command::Evict { node: node.clone() },
        Verb::Join { node } => Command::Join { node: node.clone() },
    };
    match ask(cli, command)? {
        // One JSON line, so that programs need not guess.
        done @ Answer::Done(_) => print_json(&mut out, &done),
        other => Err(unexpected(other)),
    }
}

fn unexpected(answer: Answer) -> Failed {
    match answer {
        Answer::Denied(why) => Failed::Denied(why),
        Answer::Failed(why) => Failed::Unanswered(why),
        other => Failed::Nonsense(format!("{other:?}").chars().take(200).collect()),
    }
}

fn status(cli: &Cli) -> Result<Status, Failed> {
    match ask(cli, Command::Status)? {
        Answer::Status(status) => Ok(*status),
        other => Err(unexpected(other)),
    }
}

/// The member that does not serve now.
fn other_member(status: &Status) -> Result<String, Failed> {
    let active = status.service.as_ref().and_then(|s| s.active.as_deref());
    let (Some(active), Some(cluster)) = (active, &status.cluster) else {
        return Err(Failed::Denied(
            "this node does not know who serves now: say --to NODE".into(),
        ));
    };
    let other = cluster.members.iter().find(|m| m.name != active);
    other
        .map(|m| m.name.clone())
        .ok_or_else(|| Failed::Denied("there is no other member".into()))
}

fn ask(cli: &Cli, command: Command) -> Result<Answer, Failed> {
    let mut line = String::new();
    let n = send(cli, &Request::Core(command))?
        .read_line(&mut line)
        .map_err(|e| unreachable(cli, e))?;
    if n == 0 {
        return Err(Failed::Nonsense("nothing".into()));
    }
    serde_json::from_str(&line).map_err(|e| Failed::Nonsense(e.to_string()))
}

fn send(cli: &Cli, request: &Request) -> Result<BufReader<UnixStream>, Failed> {
    let asked = || {
        let mut stream = UnixStream::connect(cli.run.join(SOCKET))?;
        stream.set_read_timeout(patience(request))?;
        let mut line = serde_json::to_vec(request)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        Ok(BufReader::new(stream))
    };
    asked().map_err(|e| unreachable(cli, e))
}

/// How long the daemon may take, so that a frozen one does not hold its operator up.
fn patience(request: &Request) -> Option<Duration> {
    match request {
        Request::Events { .. } => None,
        // A line comes at least so often.
        Request::Watch => Some(WATCH_MOST + Duration::from_secs(10)),
        Request::Core(Command::Status) => Some(Duration::from_secs(10)),
        // A little more than the daemon gives itself.
        Request::Core(_) => Some(crate::core::OPERATORS_PATIENCE + Duration::from_secs(10)),
    }
}

fn unreachable(cli: &Cli, cause: std::io::Error) -> Failed {
    let cause = match cause.kind() {
        std::io::ErrorKind::WouldBlock => std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer in time"),
        _ => cause,
    };
    Failed::Unreachable {
        at: cli.run.join(SOCKET).display().to_string(),
        cause,
    }
}

fn events(cli: &Cli, follow: bool, from: Option<u64>, out: &mut impl Write) -> Result<(), Failed> {
    tell(cli, &Request::Events { follow, from }, follow, out)
}

/// Prints line after line of the answer, each as soon as it is there; an answer that `follow`s has no end.
fn tell(cli: &Cli, request: &Request, follow: bool, out: &mut impl Write) -> Result<(), Failed> {
    let mut lines = send(cli, request)?;
    let mut line = Vec::new();
    loop {
        line.clear();
        match lines.read_until(b'\n', &mut line) {
            Ok(0) if follow => return Err(unreachable(cli, std::io::ErrorKind::UnexpectedEof.into())),
            Ok(0) => return Ok(()),
            // The daemon died in the middle of it: half a line is none.
            Ok(_) if !line.ends_with(b"\n") => return Err(unreachable(cli, std::io::ErrorKind::UnexpectedEof.into())),
            // A number that is not there is refused; the core may not answer. No event and no status looks like that.
            Ok(_) if line.starts_with(b"{\"denied\":") || line.starts_with(b"{\"failed\":") => {
                return Err(match serde_json::from_slice(&line) {
                    Ok(answer) => unexpected(answer),
                    Err(_) => unreachable(cli, std::io::ErrorKind::InvalidData.into()),
                });
            }
            Ok(_) => out
                .write_all(&line)
                .and_then(|()| out.flush())
                .map_err(Failed::Output)?,
            Err(e) => return Err(unreachable(cli, e)),
        }
    }
}

fn print(out: &mut impl Write, text: &str) -> Result<(), Failed> {
    out.write_all(text.as_bytes()).map_err(Failed::Output)
}

fn print_json(out: &mut impl Write, value: &impl serde::Serialize) -> Result<(), Failed> {
    serde_json::to_writer(&mut *out, value).map_err(|e| Failed::Output(e.into()))?;
    print(out, "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Verb, clap::Error> {
        Cli::try_parse_from([&["ccrctl"], words].concat()).map(|c| c.verb)
    }

    #[test]
    fn what_needs_no_parser_means_the_same() {
        for words in [
            &["ccrctl", "status", "--json"][..],
            &["ccrctl", "status", "--json", "--follow"],
        ] {
            let parsed = Cli::try_parse_from(words).unwrap();
            let quick = Cli::of(words.iter().map(OsString::from).collect());
            assert_eq!(format!("{quick:?}"), format!("{parsed:?}"));
        }
    }

    #[test]
    fn the_words_of_the_contract() {
        for words in [
            &["status", "--json"][..],
            &["status", "--json", "--follow"],
            &["events", "--follow"],
            &["events", "--follow", "--from", "812"],
            &["dump"],
            &["move", "node2"],
            &["move", "--to", "node2", "--comment", "why"],
            &["move"],
            &["stop"],
            &["start"],
            &["suspend", "--comment", "x"],
            &["resume", "--group", "First"],
            &["reseed"],
            &["set", "heartbeat_ms=500"],
            &["--run", "/tmp/x", "status"],
            &["move-group", "cluster", "--to", "node1"],
            &["force-quorum"],
        ] {
            assert!(parse(words).is_ok(), "{words:?}");
        }
        for words in [
            &["set", "x"][..],
            &["set", "=x"],
            &["mvoe"],
            &["status", "--follow"],
            &["move", "a", "--to", "b"],
            &["move-group", "all", "--to", "x"],
            &[],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn half_an_event_is_not_printed() {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::os::unix::net::UnixListener::bind(folder.path().join(SOCKET)).unwrap();
        let daemon = std::thread::spawn(move || {
            let (mut asker, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(asker.try_clone().unwrap())
                .read_line(&mut request)
                .unwrap();
            asker.write_all(b"{\"seq\":1}\n{\"seq\":2,\"no").unwrap();
        });
        let run = folder.path().to_str().unwrap();
        let cli = Cli::try_parse_from(["ccrctl", "--run", run, "events"]).unwrap();
        let mut out = Vec::new();
        let ended = events(&cli, false, None, &mut out);
        assert!(matches!(ended, Err(Failed::Unreachable { .. })), "{ended:?}");
        assert_eq!(out, b"{\"seq\":1}\n");
        daemon.join().unwrap();
    }

    #[test]
    fn a_status_for_people_says_what_is_unknown() {
        let status: Status = serde_json::from_str(
            r#"{"schema":1,"node":"node1","version":"0","epoch":7,
            "cluster":{"state":"no-quorum","quorum_owner":null,"config_tag":1,"votes":{"total":3,"needed":2,"have":[]},
              "members":[{"name":"node1","state":"up"},{"name":"node2","state":"down"}],
              "networks":[{"name":"public","role":"mixed","paths":[{"from":"node2","to":"node1","up":null}]}],
              "witness":{"configured":"\\\\hub\\w","running":null,"health":"unknown","probed_by":{}}},
            "service":{"name":"exmbx","state":"Offline","active":null,"intent":"started","address":"10.0.0.1"}}"#,
        )
        .unwrap();
        let text = describe::status(&status);
        for line in [
            "no-quorum; quorum owner unknown; votes none of 3 (2 needed)",
            "node1 up, node2 down",
            "node2>node1 unknown",
            "Offline; active unknown",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(matches!(other_member(&status), Err(Failed::Denied(_))));
    }

    #[test]
    fn a_status_for_people_says_why_there_is_no_cluster_and_whose_the_service_is() {
        let status: Status = serde_json::from_str(
            r#"{"schema":1,"node":"node1","version":"0","epoch":9,
            "cluster":{"state":"forming","cause":"node2 is not heard, and there is no witness","quorum_owner":null,"config_tag":1,
              "votes":{"total":3,"needed":2,"have":[]},"members":[],"networks":[],"witness":null},
            "service":{"name":"exmbx","state":"Offline","active":null,"owner":"node1","epoch":7,"intent":"started",
              "address":"10.0.0.1"}}"#,
        )
        .unwrap();
        let text = describe::status(&status);
        for line in [
            "forming (node2 is not heard, and there is no witness); quorum owner unknown",
            "Offline in epoch 7; active nobody, owner node1",
        ] {
            assert!(text.contains(line), "{text}");
        }
    }
}
