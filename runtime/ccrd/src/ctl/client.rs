//! `ccrctl`: asks the daemon on this machine.

use super::verbs::{ClusterVerb, Cms, CopyVerb, DumpsterVerb, EventQuery, Verb, View};
use super::{Answer, RUN, Request, SOCKET, WATCH_MOST, cluster_view, describe};
use ccr_contract::event::NodeEvent;
use ccr_contract::status::{CopyStatus, Status};
use ccr_core::command::Command;
use clap::Parser;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Tells the replication daemon on this machine what to do, and asks it how it is.
#[derive(Debug, Parser)]
#[command(name = "ccrctl", version)]
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

    /// What is asked, in the runtime's own words.
    pub(super) fn verb(&self) -> Verb {
        self.verb.clone().plain()
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
    let verb = cli.verb();
    let command = match &verb {
        Verb::Events(query) => return events(cli, query, true, &mut out),
        Verb::Cluster(ClusterVerb::Events { query, .. }) => return events(cli, query, false, &mut out),
        Verb::Status { follow: true, .. } => return tell(cli, &Request::Watch, true, &mut out, as_it_is),
        Verb::Status { json, .. } => return view(cli, *json, &mut out, describe::status, Status::clone),
        Verb::Cms(Cms::Status(View { json })) => return view(cli, *json, &mut out, describe::cms, describe::Cms::of),
        Verb::Copy(CopyVerb::Status(View { json })) => {
            return view(cli, *json, &mut out, describe::copies, |s| s.copies.clone());
        }
        Verb::Cluster(ClusterVerb::Status(View { json })) => {
            return view(cli, *json, &mut out, describe::cluster_of, |s| s.cluster.clone());
        }
        Verb::Cluster(ClusterVerb::Nodes(View { json })) => {
            return view(cli, *json, &mut out, cluster_view::nodes_text, cluster_view::nodes);
        }
        Verb::Cluster(ClusterVerb::Groups(View { json })) => {
            return view(cli, *json, &mut out, cluster_view::groups_text, cluster_view::groups);
        }
        Verb::Cluster(ClusterVerb::Networks(View { json })) => {
            return view(
                cli,
                *json,
                &mut out,
                cluster_view::networks_text,
                cluster_view::networks,
            );
        }
        Verb::Cluster(ClusterVerb::Witness(View { json })) => {
            return view(cli, *json, &mut out, cluster_view::witness_text, cluster_view::witness);
        }
        Verb::Dumpster(DumpsterVerb::Status(View { json })) => {
            return view(cli, *json, &mut out, describe::dumpster, |s| s.hub.clone());
        }
        Verb::Dump => {
            return match ask(cli, Command::Dump)? {
                Answer::Dump(dump) => print_json(&mut out, &dump),
                other => Err(unexpected(other)),
            };
        }
        verb => order(cli, verb)?,
    };
    let asked = Instant::now();
    let done = match ask(cli, command)? {
        done @ Answer::Done(_) => done,
        other => return Err(unexpected(other)),
    };
    let done = match verb {
        Verb::Reseed(args) if args.wait => seeded(cli, args.of.group.as_deref(), asked)?,
        _ => done,
    };
    // One JSON line, so that programs need not guess.
    print_json(&mut out, &done)
}

/// What an operator's order is to the core.
fn order(cli: &Cli, verb: &Verb) -> Result<Command, Failed> {
    Ok(match verb {
        Verb::Move(args) => {
            let to = match args.to() {
                Some(to) => to.clone(),
                None => other_member(&status(cli)?)?,
            };
            let ignore_dismounted = args.ignore_dismounted;
            if args.validate_only {
                Command::ValidateMove { to, ignore_dismounted }
            } else {
                Command::Move {
                    to,
                    comment: args.comment(),
                    ignore_dismounted,
                }
            }
        }
        Verb::MoveGroup(args) => Command::MoveGroup {
            group: args.group,
            to: args.to.clone(),
        },
        Verb::Stop(args) => Command::Stop {
            comment: args.comment.clone(),
        },
        Verb::Start => Command::Start,
        Verb::Suspend(args) => Command::Suspend {
            group: args.of.group.clone(),
            comment: args.comment.clone(),
        },
        Verb::Resume(args) => Command::Resume {
            group: args.group.clone(),
        },
        Verb::Reseed(args) => Command::Reseed {
            group: args.of.group.clone(),
        },
        Verb::Mount(args) => Command::Mount {
            group: args.group.clone(),
        },
        Verb::BackupMark(args) => Command::BackupMark {
            group: args.group.clone(),
        },
        Verb::Set(args) => Command::Set {
            key: args.setting.0.clone(),
            value: args.setting.1.clone(),
            force: args.force,
        },
        Verb::ForceQuorum => Command::ForceQuorum,
        Verb::Evict(args) => Command::Evict {
            node: args.node.clone(),
        },
        Verb::Join(args) => Command::Join {
            node: args.node.clone(),
        },
        other => unreachable!("{other:?} is no order"),
    })
}

/// A part of this node's status.
fn view<T: serde::Serialize>(
    cli: &Cli,
    json: bool,
    out: &mut impl Write,
    text: fn(&Status) -> String,
    part: fn(&Status) -> T,
) -> Result<(), Failed> {
    let status = status(cli)?;
    if json {
        print_json(out, &part(&status))
    } else {
        print(out, &text(&status))
    }
}

/// Waits until the copies that were ordered to be seeded are Healthy. The order was answered when what this node knows of them was of
/// after it: an old Healthy is not told any more.
fn seeded(cli: &Cli, group: Option<&str>, asked: Instant) -> Result<Answer, Failed> {
    let mut lines = send(cli, &Request::Watch)?;
    loop {
        let mut line = String::new();
        match lines.read_line(&mut line) {
            Ok(0) => return Err(unreachable(cli, std::io::ErrorKind::UnexpectedEof.into())),
            Ok(_) => {}
            Err(e) => return Err(unreachable(cli, e)),
        }
        let status: Status = serde_json::from_str(&line).map_err(|e| Failed::Nonsense(e.to_string()))?;
        let wanted = |c: &&ccr_contract::status::Copy| group.is_none_or(|g| g == c.group);
        let copies: Vec<_> = status.copies.iter().filter(wanted).collect();
        if let Some(failed) = copies.iter().find(|c| c.status == CopyStatus::Failed) {
            let why = failed.error.as_deref().unwrap_or("its own node says why");
            return Err(Failed::Denied(format!(
                "the seed of {} on {} has failed: {why}",
                failed.group, failed.node
            )));
        }
        if !copies.is_empty() && copies.iter().all(|c| c.status == CopyStatus::Healthy) {
            let names: Vec<&str> = copies.iter().map(|c| c.group.as_str()).collect();
            let seconds = asked.elapsed().as_secs_f32();
            return Ok(Answer::Done(format!(
                "{}: Healthy after {seconds:.1} s",
                names.join(", ")
            )));
        }
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
    // One that is stopped belongs to somebody all the same.
    let service = status.service.as_ref();
    let active = service.and_then(|s| s.active.as_deref().or(s.owner.as_deref()));
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

/// The events that are wanted, as JSON lines or for people.
fn events(cli: &Cli, query: &EventQuery, json: bool, out: &mut impl Write) -> Result<(), Failed> {
    let request = Request::Events {
        follow: query.follow,
        from: query.from,
    };
    // Whose events these are is asked only where it matters.
    let teller = query.node.as_ref().map(|_| status(cli)).transpose()?.map(|s| s.node);
    tell(cli, &request, query.follow, out, |line| {
        // What is no event says what is missing.
        let Ok(event) = serde_json::from_slice::<NodeEvent>(line) else {
            return Some(line.to_vec());
        };
        let now_us = crate::clock::boot_us();
        match (query.wants(&event, teller.as_deref(), now_us), json) {
            (false, _) => None,
            (true, true) => Some(line.to_vec()),
            (true, false) => Some(describe::event(&event, now_us, crate::clock::wall_us()).into_bytes()),
        }
    })
}

/// Prints a line as it came.
#[expect(clippy::unnecessary_wraps, reason = "a filter that keeps everything")]
fn as_it_is(line: &[u8]) -> Option<Vec<u8>> {
    Some(line.to_vec())
}

/// Prints line after line of the answer, each as soon as it is there and as `shown` has it; an answer that `follow`s has no end.
fn tell(
    cli: &Cli,
    request: &Request,
    follow: bool,
    out: &mut impl Write,
    shown: impl Fn(&[u8]) -> Option<Vec<u8>>,
) -> Result<(), Failed> {
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
            Ok(_) => {
                if let Some(line) = shown(&line) {
                    out.write_all(&line)
                        .and_then(|()| out.flush())
                        .map_err(Failed::Output)?;
                }
            }
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
        let ended = events(&cli, &EventQuery::default(), true, &mut out);
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
