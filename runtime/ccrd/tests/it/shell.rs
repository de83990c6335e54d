//! The loop, the mail servers and the control socket around a core that only pretends.

use crate::wait::until_async;
use ccr_contract::config::Settings;
use ccr_contract::event::{NodeEvent, Severity};
use ccr_contract::reply::By;
use ccr_core::command::Command;
use ccr_core::io::{ClientRequest, Effect, Input, Listed, LmtpReply, Node, Now, Reply};
use ccrd::core::{Core, EffectHandler, Inlets, channels, run};
use ccrd::ctl;
use ccrd::events::Events;
use ccrd::notify::Notifier;
use ccrd::servers::{Protocol, ServerContext};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::watch;

const SOON: Duration = Duration::from_secs(10);
/// The longest message.
const LONGEST: u64 = 3_000_000;

/// Answers clients at once, except deliveries to `slow`, which it never answers.
#[derive(Debug, Default)]
struct Pretender {
    ticks: Arc<Mutex<u64>>,
    online: bool,
}

impl Node for Pretender {
    fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        assert!(now.boot_us > 0 && now.rtc_us > 0);
        let by = By {
            node: "node1".into(),
            epoch: 7,
            stream: "3f".into(),
            generation: 42,
        };
        let refused = Reply::Refused {
            temporary: true,
            why: "not online\r\n250 ok".into(),
        };
        match input {
            Input::Tick => *self.ticks.lock().unwrap() += 1,
            Input::Client { req, request } => {
                let reply = match request {
                    _ if !self.online => refused,
                    ClientRequest::Greet => Reply::Greeting(by),
                    ClientRequest::Deliver { recipients, .. } if recipients.iter().any(|r| r.contains("slow")) => {
                        return Vec::new();
                    }
                    ClientRequest::Deliver {
                        envid,
                        recipients,
                        message,
                    } => Reply::Delivered(
                        recipients
                            .iter()
                            .map(|r| LmtpReply {
                                code: 250,
                                text: format!("{r} {envid:?} {} {by}", message.len()),
                            })
                            .collect(),
                    ),
                    ClientRequest::List { .. } => Reply::Listing(vec![Listed {
                        uid: 9,
                        unique_id: "h.hub-9".into(),
                        size: 5,
                    }]),
                    ClientRequest::Retrieve { piece, .. } => Reply::Message {
                        bytes: [&b".dot"[..], b"\r\n"][piece].to_vec(),
                        more: piece == 0,
                    },
                    ClientRequest::Delete { .. } => Reply::Deleted(by),
                    ClientRequest::Submit { .. } => Reply::Queued("hub-1".into()),
                };
                return vec![Effect::Reply { req, reply }];
            }
            Input::Operator { req, command } => {
                let reply = match command {
                    Command::Start => {
                        self.online = true;
                        Reply::Done("started".into())
                    }
                    Command::Evict { .. } => return vec![Effect::Halt { why: "told to".into() }],
                    Command::Stop { .. } => {
                        let done = Reply::Done("stopped".into());
                        return vec![Effect::CloseClients, Effect::Reply { req, reply: done }];
                    }
                    _ => Reply::Denied("no".into()),
                };
                return vec![Effect::Reply { req, reply }];
            }
            _ => {}
        }
        Vec::new()
    }

    fn next_deadline(&self) -> Option<u64> {
        Some(ccrd::clock::boot_us() + 20_000)
    }
}

struct TestHandler(watch::Sender<u64>);

impl EffectHandler for TestHandler {
    fn perform(&mut self, effect: Effect) {
        if let Effect::CloseClients = effect {
            self.0.send_modify(|n| *n += 1);
        }
    }
    fn before_input(&mut self, _: &Input) {}
}

struct World {
    core: Core,
    _inlets: Inlets,
    servers_context: ServerContext,
    ticks: Arc<Mutex<u64>>,
    end: tokio::task::JoinHandle<Result<(), String>>,
}

fn world(online: bool) -> World {
    let (core, inlets, outlets) = channels();
    let (hang_up, hung_up) = watch::channel(0);
    let ticks = Arc::default();
    let node = Box::new(Pretender {
        ticks: Arc::clone(&ticks),
        online,
    });
    let end =
        tokio::spawn(async move { run(node, outlets, TestHandler(hang_up), &Notifier::from_environment()).await });
    let settings = Settings {
        message_bytes: LONGEST,
        ..Settings::default()
    };
    World {
        servers_context: ServerContext::new(core.clone(), "exmbx", &settings, hung_up),
        core,
        _inlets: inlets,
        ticks,
        end,
    }
}

impl World {
    fn serve(&self, protocol: Protocol) -> SocketAddr {
        let listener = ccrd::net::listen(Ipv4Addr::LOCALHOST, 0).unwrap();
        let at = listener.local_addr().unwrap();
        self.servers_context.serve(protocol, listener);
        at
    }
}

/// Sends `bytes` and reads until the server closes.
async fn exchange(mut s: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> String {
    s.write_all(bytes).await.unwrap();
    let mut said = String::new();
    tokio::time::timeout(SOON, s.read_to_string(&mut said))
        .await
        .expect("an end")
        .unwrap();
    said
}

async fn talk(at: SocketAddr, script: &str) -> String {
    exchange(TcpStream::connect(at).await.unwrap(), script.as_bytes()).await
}

/// An event with this number.
fn online(seq: u64) -> NodeEvent {
    NodeEvent {
        seq,
        node_t_us: 1,
        kind: "service.online".into(),
        id: None,
        severity: Severity::Info,
        data: Default::default(),
    }
}

#[tokio::test]
async fn sessions_reach_the_core_and_its_words_reach_the_client() {
    let w = world(true);
    let said = talk(
        w.serve(Protocol::Lmtp),
        "LHLO c\r\nMAIL FROM:<> ENVID=hub-7\r\nRCPT TO:<ann@x>\r\nRCPT TO:<bob@x>\r\nDATA\r\nhello\r\n.\r\nQUIT\r\n",
    )
    .await;
    assert!(
        said.starts_with("220 exmbx LMTP node=node1 epoch=7 stream=3f generation=42\r\n"),
        "{said}"
    );
    assert!(said.contains("250 ann@x Some(\"hub-7\") 7 node=node1"), "{said}");
    assert!(said.contains("250 bob@x Some(\"hub-7\") 7 node=node1"), "{said}");
    let said = talk(
        w.serve(Protocol::Pop3),
        "USER ann\r\nPASS x\r\nUIDL\r\nRETR 1\r\nDELE 1\r\nQUIT\r\n",
    )
    .await;
    assert!(
        said.contains("\r\n1 h.hub-9\r\n.\r\n") && said.contains("\r\n..dot\r\n.\r\n"),
        "{said}"
    );
    assert_eq!(By::find(said.lines().last().unwrap()).unwrap().generation, 42);
    let said = talk(
        w.serve(Protocol::Smtp),
        "EHLO c\r\nMAIL FROM:<a@x> ENVID=mine\r\nMAIL FROM:<a@x>\r\nRCPT TO:<ann@x>\r\nDATA\r\nhello\r\n.\r\nQUIT\r\n",
    )
    .await;
    // ENVID is not for submitters: the hub gives ids.
    assert!(said.contains("555 5.5.4 ENVID is not offered here\r\n"), "{said}");
    assert!(said.contains("250 2.0.0 queued as hub-1\r\n"), "{said}");
}

/// The hub and the store in front of one core: what is longer than a message may be is refused before it is sent, or as soon as it is
/// longer; the core never sees it.
#[tokio::test]
async fn the_longest_message_is_announced_and_what_is_longer_refused() {
    let w = world(true);
    let most = LONGEST as usize;
    for (protocol, hello) in [(Protocol::Smtp, "EHLO"), (Protocol::Lmtp, "LHLO")] {
        let at = w.serve(protocol);
        let said = talk(
            at,
            &format!(
                "{hello} c\r\nMAIL FROM:<a@x> SIZE={}\r\nMAIL FROM:<a@x> SIZE={most}\r\nQUIT\r\n",
                most + 1
            ),
        )
        .await;
        let tail: Vec<&str> = said.lines().rev().take(4).collect();
        assert_eq!(tail[3], format!("250 SIZE {most}"));
        assert_eq!(tail[2], "552 5.3.4 too large");
        assert!(tail[1].starts_with("250 "), "{said}");
        let send = |bytes: usize| {
            let text = "x".repeat(bytes - 2);
            let script =
                format!("{hello} c\r\nMAIL FROM:<a@x>\r\nRCPT TO:<ann@x>\r\nDATA\r\n{text}\r\n.\r\nNOOP\r\nQUIT\r\n");
            async move {
                talk(at, &script)
                    .await
                    .lines()
                    .rev()
                    .nth(2)
                    .unwrap_or_default()
                    .to_owned()
            }
        };
        assert!(send(most).await.starts_with("250 "), "the longest");
        assert_eq!(send(most + 1).await, "552 5.3.4 too large");
        assert_eq!(send(2 * most).await, "552 5.3.4 too large");
    }
}

#[tokio::test]
async fn who_is_not_online_greets_nobody() {
    let w = world(false);
    let said = talk(w.serve(Protocol::Lmtp), "LHLO c\r\n").await;
    assert_eq!(said, "421 4.3.2 not online  250 ok\r\n");
    let said = talk(w.serve(Protocol::Pop3), "USER ann\r\n").await;
    assert_eq!(said, "-ERR [SYS/TEMP] not online  250 ok\r\n");
}

#[tokio::test]
async fn a_conversation_of_the_store_is_hung_up_without_an_answer() {
    let w = world(true);
    let (lmtp, smtp) = (w.serve(Protocol::Lmtp), w.serve(Protocol::Smtp));
    let mut waiting = TcpStream::connect(lmtp).await.unwrap();
    waiting
        .write_all(b"LHLO c\r\nMAIL FROM:<>\r\nRCPT TO:<slow@x>\r\nDATA\r\nhello\r\n.\r\n")
        .await
        .unwrap();
    let hub_client = TcpStream::connect(smtp).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"354 go on, end with a lone dot\r\n") {
        seen.push(tokio::time::timeout(SOON, waiting.read_u8()).await.unwrap().unwrap());
    }
    let answered = w.core.operator(Command::Stop { comment: "x".into() }).await;
    assert!(matches!(answered, Ok(Reply::Done(_))), "{answered:?}");
    let end = tokio::time::timeout(SOON, waiting.read_u8()).await.expect("an end");
    assert!(end.is_err(), "{end:?}");
    // A hub's clients stay.
    let said = exchange(hub_client, b"QUIT\r\n").await;
    assert!(said.ends_with("221 2.0.0 bye\r\n"), "{said}");
}

#[tokio::test]
async fn the_time_is_told_without_other_inputs() {
    let w = world(true);
    let ticked = until_async(SOON, async || (*w.ticks.lock().unwrap() >= 3).then_some(()));
    assert!(ticked.await.is_some());
}

#[tokio::test]
async fn a_halt_ends_the_loop_with_its_reason() {
    let w = world(true);
    let answered = w.core.operator(Command::Evict { node: "x".into() }).await;
    assert!(answered.is_err(), "{answered:?}");
    assert_eq!(
        tokio::time::timeout(SOON, w.end).await.unwrap().unwrap(),
        Err("told to".into())
    );
}

/// Followers that hang up while nothing happens make room for others at once.
#[tokio::test]
async fn followers_that_hung_up_keep_nobody_out() {
    let w = world(false);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("ctl.sock");
    let listener = ctl::server::listen(&socket).unwrap();
    tokio::spawn(ctl::server::serve(listener, w.core.clone(), Events::default()));
    for _ in 0..200 {
        let mut follower = UnixStream::connect(&socket).await.unwrap();
        // There may be no room for it yet.
        let _ = follower.write_all(b"{\"events\":{\"follow\":true}}\nand more\n").await;
    }
    let answered = until_async(SOON, async || {
        let mut s = UnixStream::connect(&socket).await.unwrap();
        // One that there is no room for is closed without an answer.
        let asked = s.write_all(b"{\"core\":{\"verb\":\"start\"}}\n").await;
        let mut said = String::new();
        let _ = s.read_to_string(&mut said).await;
        (asked.is_ok() && said == "{\"done\":\"started\"}\n").then_some(())
    });
    assert!(answered.await.is_some());
}

async fn ask(socket: &std::path::Path, bytes: &[u8]) -> String {
    exchange(UnixStream::connect(socket).await.unwrap(), bytes).await
}

#[tokio::test]
async fn operators_and_garbage_at_the_control_socket() {
    use std::os::unix::fs::PermissionsExt;
    let w = world(false);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/ctl.sock");
    let events = Events::default();
    // A socket that an earlier daemon left is no obstacle.
    drop(ctl::server::listen(&socket).unwrap());
    let listener = ctl::server::listen(&socket).unwrap();
    assert_eq!(socket.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    tokio::spawn(ctl::server::serve(listener, w.core.clone(), events.clone()));

    assert_eq!(
        ask(&socket, b"{\"core\":{\"verb\":\"start\"}}\n").await,
        "{\"done\":\"started\"}\n"
    );
    assert_eq!(
        ask(&socket, b"{\"core\":{\"verb\":\"dump\"}}\n").await,
        "{\"denied\":\"no\"}\n"
    );
    for bad in [
        &b"\n"[..],
        b"{}\n",
        b"\xff\xfe\n",
        b"{\"core\":{\"verb\":\"drop-all\"}}\n",
        &[&[b'x'; 20_000][..], b"\n"].concat(),
    ] {
        let said = ask(&socket, bad).await;
        assert!(said.starts_with("{\"denied\":"), "{said}");
    }
    let push = |seq| events.push(online(seq));
    push(1);
    push(2);
    assert_eq!(
        ask(&socket, b"{\"events\":{\"follow\":false}}\n").await.lines().count(),
        2
    );
    let mut follower = tokio::io::BufReader::new(UnixStream::connect(&socket).await.unwrap());
    follower.write_all(b"{\"events\":{\"follow\":true}}\n").await.unwrap();
    for seq in 1..=3 {
        if seq == 3 {
            push(3);
        }
        let mut line = String::new();
        tokio::time::timeout(SOON, tokio::io::AsyncBufReadExt::read_line(&mut follower, &mut line))
            .await
            .unwrap()
            .unwrap();
        let event: NodeEvent = serde_json::from_str(&line).unwrap();
        assert_eq!(event.seq, seq);
    }
}

/// Events from a number: whoever reads them knows what is missing, and a number of an earlier life is no place in this one.
#[tokio::test]
async fn events_are_read_from_a_number_with_gaps_told() {
    let w = world(true);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("run/ctl.sock");
    let events = Events::default();
    let listener = ctl::server::listen(&socket).unwrap();
    tokio::spawn(ctl::server::serve(listener, w.core.clone(), events.clone()));
    for seq in [3, 4, 7] {
        events.push(online(seq));
    }
    let from = |n: Option<u64>| {
        let socket = socket.clone();
        async move {
            let request = ctl::Request::Events { follow: false, from: n };
            let line = serde_json::to_string(&request).unwrap() + "\n";
            let said = ask(&socket, line.as_bytes()).await;
            let short = |l: &str| match serde_json::from_str::<NodeEvent>(l) {
                Ok(event) => event.seq.to_string(),
                Err(_) => l.to_owned(),
            };
            said.lines().map(short).collect::<Vec<_>>()
        }
    };
    let gap = |from, to| format!("{{\"gap\":{{\"from\":{from},\"to\":{to}}}}}");
    assert_eq!(from(None).await, ["3", "4", "7"]);
    assert_eq!(from(Some(4)).await, ["4", &gap(5, 6), "7"]);
    assert_eq!(from(Some(0)).await, [&gap(0, 2), "3", "4", &gap(5, 6), "7"]);
    assert_eq!(from(Some(8)).await, Vec::<String>::new());
    let refused = from(Some(9)).await;
    assert!(
        refused[0].starts_with("{\"denied\":\"there is no event 9 yet"),
        "{refused:?}"
    );
    // A follower that begins where the stream has come to gets the next one.
    let request = "{\"events\":{\"follow\":true,\"from\":8}}\n";
    let mut follower = tokio::io::BufReader::new(UnixStream::connect(&socket).await.unwrap());
    follower.get_mut().write_all(request.as_bytes()).await.unwrap();
    let next = NodeEvent {
        seq: 8,
        node_t_us: 1,
        kind: "service.online".into(),
        id: None,
        severity: Severity::Info,
        data: Default::default(),
    };
    events.push(next.clone());
    let mut line = String::new();
    tokio::io::AsyncBufReadExt::read_line(&mut follower, &mut line)
        .await
        .unwrap();
    assert_eq!(serde_json::from_str::<NodeEvent>(&line).unwrap(), next);
}

/// Says of itself which epoch it is in; the age of a probe passes by itself.
#[derive(Debug, Default)]
struct Watched {
    epoch: Arc<Mutex<u64>>,
    asked: u64,
}

impl Node for Watched {
    fn step(&mut self, _: Now, input: Input) -> Vec<Effect> {
        let (req, command) = match input {
            Input::Operator { req, command } => (req, command),
            Input::Client { req, .. } => {
                let reply = Reply::Denied("busy".into());
                return vec![Effect::Reply { req, reply }];
            }
            _ => return Vec::new(),
        };
        assert_eq!(command, Command::Status);
        self.asked += 1;
        let status = serde_json::json!({"schema": 1, "node": "node1", "version": "1", "epoch": *self.epoch.lock().unwrap(),
            "cluster": {"state": "up", "quorum_owner": null, "config_tag": 1, "votes": {"total": 1, "needed": 1, "have": []},
                "members": [], "networks": [], "witness": {"configured": "w", "running": null, "health": "ok",
                    "probed_by": {"node1": {"ok": true, "age_ms": self.asked}}}},
            "service": null});
        let status = serde_json::from_value(status).unwrap();
        vec![Effect::Reply {
            req,
            reply: Reply::Status(status),
        }]
    }

    fn next_deadline(&self) -> Option<u64> {
        Some(ccrd::clock::boot_us() + 5_000)
    }
}

/// A line at once, at each change and after five seconds without one, never more than four a second; by the program that the tool
/// starts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_status_is_followed_by_its_changes() {
    const LEAST: u64 = 250_000;
    let (core, inlets, outlets) = channels();
    let epoch = Arc::new(Mutex::new(1));
    let node = Box::new(Watched {
        epoch: Arc::clone(&epoch),
        asked: 0,
    });
    let handler = TestHandler(watch::channel(0).0);
    let end = tokio::spawn(async move { run(node, outlets, handler, &Notifier::from_environment()).await });
    let folder = tempfile::tempdir().unwrap();
    let listener = ctl::server::listen(&folder.path().join(ctl::SOCKET)).unwrap();
    let server = tokio::spawn(ctl::server::serve(listener, core.clone(), Events::default()));
    let mut ccrctl = std::process::Command::new(env!("CARGO_BIN_EXE_ccrd"))
        .args(["ctl", "status", "--json", "--follow", "--run"])
        .arg(folder.path())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let lines = std::io::BufReader::new(ccrctl.stdout.take().unwrap());
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let lines = std::io::BufRead::lines(lines).map_while(Result::ok);
        lines.for_each(|l| {
            tell.send(serde_json::from_str::<ccr_contract::status::Status>(&l).unwrap())
                .unwrap()
        });
    });
    let hear = || {
        let said = told.recv_timeout(Duration::from_secs(60)).expect("a line");
        (said.epoch, said.node_t_us.expect("when it was so"))
    };
    let begun = ccrd::clock::boot_us();
    let (first, at) = hear();
    assert!(first == 1 && at <= ccrd::clock::boot_us() && at + 60_000_000 > begun);
    *epoch.lock().unwrap() = 2;
    let (second, mut last) = hear();
    assert!(second == 2 && last >= at + LEAST);
    // Changes come faster than lines: none comes too soon, and the last one is told.
    for n in 3..=60 {
        *epoch.lock().unwrap() = n;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (mut seen, mut count) = (2, 0);
    while seen < 60 {
        let (epoch, at) = hear();
        assert!(
            epoch > seen && at >= last + LEAST,
            "{epoch} behind {seen}: {at} behind {last}"
        );
        (seen, last, count) = (epoch, at, count + 1);
    }
    assert!(count <= 58 / 2, "{count} lines");
    // Nothing changes but the age.
    let (epoch, at) = hear();
    assert!(epoch == 60 && at >= last + 4_900_000, "{at} behind {last}");
    // Who serves says that it is still as it was.
    let begun = std::time::Instant::now();
    core.client(ClientRequest::Greet).await.unwrap();
    let (epoch, _) = hear();
    assert!(epoch == 60 && begun.elapsed() < Duration::from_secs(4));
    // The daemon ends: that is no end of the changes.
    end.abort();
    server.abort();
    drop(inlets);
    let ended = tokio::task::spawn_blocking(move || ccrctl.wait_with_output().unwrap());
    let ended = ended.await.unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.code() == Some(3) && said.starts_with("ccrctl: "), "{said}");
}
