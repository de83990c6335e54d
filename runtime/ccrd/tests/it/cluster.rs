//! A whole cluster on loopback: two members and a hub, each a process of its own with an address in 127/8, and a real
//! Samba for the witness.

use crate::samba::Samba;
use crate::wait;
use ccr_contract::dump::Dump;
use ccr_contract::event::NodeEvent;
use ccr_contract::reply::By;
use ccr_contract::status::{ServiceState, Status};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// How long any single step of a client may take.
const STEP: Duration = Duration::from_secs(20);

/// The cluster; its processes and files end with the value.
pub struct Cluster {
    /// The daemon that is started.
    pub program: PathBuf,
    folder: tempfile::TempDir,
    pub samba: Samba,
    daemons: Vec<(&'static str, Option<Child>)>,
    /// Third byte of all addresses on the first network.
    subnet: u8,
    port: u16,
}

pub const NODES: [&str; 3] = ["node1", "node2", "hub"];

impl Cluster {
    /// Starts everything; gives nothing where there is no Samba.
    pub fn start(settings: &str) -> Option<Cluster> {
        Some(Self::with(Samba::start()?, settings))
    }

    /// The same with this server of the witness.
    pub fn with(samba: Samba, settings: &str) -> Cluster {
        let mut cluster = Self::off(samba, settings);
        for node in NODES {
            cluster.power_on(node);
        }
        cluster
    }

    /// A cluster whose daemons are not started yet.
    pub fn off(samba: Samba, settings: &str) -> Cluster {
        let folder = tempfile::Builder::new()
            .prefix("ccrd-")
            .tempdir()
            .expect("a temporary folder");
        // A part of 127/8 for each cluster of this process; other processes use other ports.
        static CLUSTERS: AtomicU8 = AtomicU8::new(1);
        let subnet = CLUSTERS.fetch_add(1, Ordering::Relaxed) * 2;
        let port = free_ports(Ipv4Addr::new(127, 77, subnet, 10));
        let cluster = Cluster {
            program: env!("CARGO_BIN_EXE_ccrd").into(),
            folder,
            samba,
            daemons: NODES.map(|n| (n, None)).into(),
            subnet,
            port,
        };
        std::fs::write(cluster.folder.path().join("password"), cluster.samba.password()).expect("the password");
        for node in NODES {
            let file = cluster.folder.path().join(format!("{node}.toml"));
            std::fs::write(file, cluster.configuration(node, settings)).expect("a configuration");
        }
        cluster
    }

    fn configuration(&self, node: &str, settings: &str) -> String {
        let (a, b, share) = (self.subnet, self.subnet + 1, self.samba.share());
        let folder = self.folder.path().display();
        let role = if node == "hub" { "hub" } else { "member" };
        let mut text = format!(
            r#"schema = 1
node = "{node}"
role = "{role}"
cluster = "exmbcluster"
cluster_address = "127.77.{a}.20"
service = "exmbx"
service_address = "127.77.{a}.21"
service_network = "public"
data = "{folder}/{node}-data"
networks = [{{ name = "public", role = "mixed", prefix = 24 }}, {{ name = "private", role = "internal", prefix = 24 }}]
members = [
  {{ name = "node1", addresses = {{ public = "127.77.{a}.11", private = "127.77.{b}.11" }} }},
  {{ name = "node2", addresses = {{ public = "127.77.{a}.12", private = "127.77.{b}.12" }} }},
]
hubs = [{{ name = "hub", addresses = {{ public = "127.77.{a}.10" }} }}]
"#
        );
        if role == "member" {
            let _ = write!(
                text,
                r#"[witness]
address = "127.0.0.1"
port = {}
share = "{}"
path = '\\hub\witness'
user = "{}"
password_file = "{folder}/password"
"#,
                share.port, share.share, share.user
            );
        }
        text + "[settings]\n" + settings
    }

    /// Folder of a node's logs, database and queue.
    pub fn data(&self, node: &str) -> PathBuf {
        self.folder.path().join(format!("{node}-data"))
    }

    /// What a node's daemons have complained about.
    pub fn log(&self, node: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{node}.log"))).unwrap_or_default()
    }

    /// How long those complaints are by now.
    pub fn logs(&self) -> BTreeMap<&'static str, usize> {
        NODES.iter().map(|n| (*n, self.log(n).len())).collect()
    }

    /// Whether a node's daemon has ended by itself.
    pub fn has_ended(&mut self, node: &str) -> bool {
        let child = self.daemon(node).as_mut();
        child.is_none_or(|c| c.try_wait().expect("its state").is_some())
    }

    fn run(&self, node: &str) -> PathBuf {
        self.folder.path().join(format!("{node}-run"))
    }

    /// Starts a node's daemon.
    pub fn power_on(&mut self, node: &str) {
        let log = std::fs::File::options()
            .append(true)
            .create(true)
            .open(self.folder.path().join(format!("{node}.log")))
            .expect("a log");
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(self.folder.path().join(format!("{node}.toml")))
            .arg("--run")
            .arg(self.run(node))
            .args(["--loopback", &self.port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("ccrd");
        self.daemon(node).replace(child);
    }

    /// `kill -9` of a node's daemon.
    pub fn kill(&mut self, node: &str) {
        let mut child = self.daemon(node).take().expect("a running daemon");
        child.kill().expect("kill");
        child.wait().expect("its end");
    }

    /// SIGTERM to a node's daemon, as systemd gives it; its end, with success, within the time that its unit allows.
    pub fn end(&mut self, node: &str) {
        self.signal(node, rustix::process::Signal::TERM);
        let end = wait::until(Duration::from_secs(60), || self.has_ended(node).then_some(()));
        assert!(end.is_some(), "{node} goes on\n{}", self.report());
        let status = self.daemon(node).take().expect("its process").wait().expect("its end");
        assert!(status.success(), "{node}: {status}\n{}", self.report());
    }

    pub fn signal(&mut self, node: &str, signal: rustix::process::Signal) {
        let child = self.daemon(node).as_ref().expect("a running daemon");
        rustix::process::kill_process(rustix::process::Pid::from_child(child), signal).expect("a signal");
    }

    fn daemon(&mut self, node: &str) -> &mut Option<Child> {
        &mut self
            .daemons
            .iter_mut()
            .find(|(n, _)| *n == node)
            .expect("a known node")
            .1
    }

    /// What `ccrctl` printed, or its complaint.
    pub fn ctl(&self, node: &str, words: &[&str]) -> Result<String, String> {
        let out = Command::new(env!("CARGO_BIN_EXE_ccrd"))
            .arg("ctl")
            .args(words)
            .arg("--run")
            .arg(self.run(node))
            .output()
            .expect("ccrctl");
        if out.status.success() {
            Ok(String::from_utf8(out.stdout).expect("UTF-8"))
        } else {
            Err(String::from_utf8_lossy(&out.stderr).into_owned())
        }
    }

    pub fn status(&self, node: &str) -> Option<Status> {
        serde_json::from_str(&self.ctl(node, &["status", "--json"]).ok()?).ok()
    }

    pub fn dump(&self, node: &str) -> Dump {
        serde_json::from_str(&self.ctl(node, &["dump"]).expect("a dump")).expect("a dump")
    }

    pub fn events(&self, node: &str) -> Vec<NodeEvent> {
        let text = self.ctl(node, &["events"]).expect("events");
        text.lines()
            .map(|l| serde_json::from_str(l).expect("an event"))
            .collect()
    }

    /// The member that serves, by its own word.
    pub fn active(&self) -> Option<&'static str> {
        NODES[..2].iter().copied().find(|n| {
            self.status(n)
                .and_then(|s| s.service)
                .is_some_and(|v| v.state == ServiceState::Online && v.active.as_deref() == Some(n))
        })
    }

    /// Looks until `probe` gives something; panics with everything known when the time is over.
    pub fn until<T>(&self, what: &str, within: Duration, mut probe: impl FnMut(&Self) -> Option<T>) -> T {
        wait::until(within, || probe(self))
            .unwrap_or_else(|| panic!("{what}: not within {within:?}\n{}", self.report()))
    }

    /// Everything that helps to understand a failure.
    pub fn report(&self) -> String {
        let mut text = String::new();
        for node in NODES {
            let _ = writeln!(text, "=== {node}");
            let log = self.log(node);
            let _ = writeln!(text, "{log}{}", self.ctl(node, &["status"]).unwrap_or_else(|e| e));
            let events = self.ctl(node, &["events"]).unwrap_or_default();
            let lines: Vec<&str> = events.lines().collect();
            for line in &lines[lines.len().saturating_sub(40)..] {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    fn connect(&self, host: u8, port: u16) -> Result<Client, String> {
        let at = SocketAddrV4::new(Ipv4Addr::new(127, 77, self.subnet, host), self.port + port);
        Client::connect(at)
    }

    /// SMTP to the hub; the final answer.
    pub fn submit(&self, to: &[&str], message: &str) -> Result<String, String> {
        self.submitter().submit(to, message)
    }

    /// The longest message that the hub announces.
    pub fn announced_size(&self) -> Result<usize, String> {
        let mut c = self.connect(10, 4)?;
        c.expect("220")?;
        let last = c.say("EHLO test", "250")?;
        last.strip_prefix("250 SIZE ").and_then(|n| n.parse().ok()).ok_or(last)
    }

    /// A client of the hub that another thread may have.
    pub fn submitter(&self) -> Submitter {
        Submitter(SocketAddrV4::new(
            Ipv4Addr::new(127, 77, self.subnet, 10),
            self.port + 4,
        ))
    }

    /// Where mail is read.
    pub fn reading(&self) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(127, 77, self.subnet, 21), self.port + 3)
    }

    /// How many messages a mailbox holds.
    pub fn stored(&self, mailbox: &str) -> Option<u64> {
        let mut c = self.connect(21, 3).ok()?;
        c.expect("+OK").ok()?;
        c.say(&format!("USER {mailbox}"), "+OK").ok()?;
        c.say("PASS x", "+OK").ok()?;
        c.say("STAT", "+OK").ok()?.split(' ').nth(1)?.parse().ok()
    }

    /// LMTP to the service address; one answer for each recipient.
    pub fn deliver(&self, to: &[&str], message: &str) -> Result<Vec<String>, String> {
        let mut c = self.connect(21, 2)?;
        c.expect("220")?;
        c.say("LHLO test", "250")?;
        c.letter("sender@example.org", to, message)?;
        to.iter().map(|_| c.expect("2")).collect()
    }

    /// POP3: who answered, and every message of a mailbox; deletes them if asked to.
    pub fn read(&self, mailbox: &str, delete: bool) -> Result<(By, Vec<String>), String> {
        let mut c = self.connect(21, 3)?;
        let greeting = c.expect("+OK")?;
        let by = By::find(&greeting).ok_or(greeting)?;
        c.say(&format!("USER {mailbox}"), "+OK")?;
        c.say("PASS x", "+OK")?;
        let stat = c.say("STAT", "+OK")?;
        let count: usize = stat.split(' ').nth(1).and_then(|n| n.parse().ok()).ok_or(stat)?;
        let mut messages = Vec::new();
        for n in 1..=count {
            c.say(&format!("RETR {n}"), "+OK")?;
            messages.push(c.text()?);
            if delete {
                c.say(&format!("DELE {n}"), "+OK")?;
            }
        }
        c.say("QUIT", "+OK")?;
        Ok((by, messages))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for child in self.daemons.iter_mut().filter_map(|(_, c)| c.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The first of five free ports on `address`.
fn free_ports(address: Ipv4Addr) -> u16 {
    for _ in 0..100 {
        let first = TcpListener::bind((address, 0))
            .expect("a port")
            .local_addr()
            .expect("an address")
            .port();
        if first < 65000 && (0..5).all(|n| TcpListener::bind((address, first + n)).is_ok()) {
            return first;
        }
    }
    panic!("no five free ports in a row");
}

/// Submits to the hub.
pub struct Submitter(pub SocketAddrV4);

impl Submitter {
    pub fn submit(&self, to: &[&str], message: &str) -> Result<String, String> {
        let mut c = Client::connect(self.0)?;
        c.expect("220")?;
        c.say("EHLO test", "250")?;
        c.letter("sender@example.org", to, message)?;
        let answer = c.expect("250")?;
        // Acknowledged already, whatever becomes of the goodbye.
        let _ = c.say("QUIT", "221");
        Ok(answer)
    }
}

/// A line client with time-outs.
pub struct Client(BufReader<TcpStream>);

impl Client {
    fn connect(at: SocketAddrV4) -> Result<Client, String> {
        let stream = TcpStream::connect_timeout(&at.into(), STEP).map_err(|e| e.to_string())?;
        stream.set_read_timeout(Some(STEP)).map_err(|e| e.to_string())?;
        stream.set_write_timeout(Some(STEP)).map_err(|e| e.to_string())?;
        Ok(Client(BufReader::new(stream)))
    }

    fn send(&mut self, text: &str) -> Result<(), String> {
        self.0.get_mut().write_all(text.as_bytes()).map_err(|e| e.to_string())
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.0.by_ref().take(4096).read_line(&mut line) {
            Ok(0) => Err("the connection ended".into()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(e) => Err(e.to_string()),
        }
    }

    /// The last line of an answer that begins with `code`.
    fn expect(&mut self, code: &str) -> Result<String, String> {
        loop {
            let line = self.line()?;
            if !line.starts_with(code) {
                return Err(line);
            }
            if line.as_bytes().get(3) != Some(&b'-') {
                return Ok(line);
            }
        }
    }

    fn say(&mut self, line: &str, code: &str) -> Result<String, String> {
        self.send(&format!("{line}\r\n"))?;
        self.expect(code)
    }

    /// Envelope and message, up to the final dot.
    fn letter(&mut self, from: &str, to: &[&str], message: &str) -> Result<(), String> {
        self.say(&format!("MAIL FROM:<{from}>"), "250")?;
        for to in to {
            self.say(&format!("RCPT TO:<{to}>"), "250")?;
        }
        self.say("DATA", "354")?;
        self.send(&format!("{}\r\n.\r\n", message.trim_end()))
    }

    fn text(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.line()?.as_str() {
                "." => return Ok(text),
                line => text += &format!("{}\n", line.strip_prefix('.').unwrap_or(line)),
            }
        }
    }
}
