//! The daemon: starts everything, and carries out the core's effects.

use crate::address::Addresses;
use crate::config::{own_addresses, source_for};
use crate::core::{self, EffectHandler, Inlets};
use crate::events::{self, Events};
use crate::mail::deliver::{self, Outgoing};
use crate::net::{self, Datagrams, Streams};
use crate::notify::Notifier;
use crate::servers::{Protocol, ServerContext};
use crate::witness::{self, Fault, Share, SmbWitness, Witness};
use crate::{ctl, disk};
use ccr_contract::config::{Config, Role};
use ccr_contract::ports;
use ccr_core::io::{
    AddressKind, Boot, DiskAction, END_US, Effect, Input, LmtpReply, OpId, WitnessAction, WitnessResult,
};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// How long the core may take longer than it says that it does, and how long the last events may take to be read. With the core's
/// own limit this is less than `TimeoutStopSec` of the unit.
const SPARE: Duration = Duration::from_secs(1);

/// How a daemon is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the pack rendered.
    pub config: Config,
    /// Folder of the control socket.
    pub run: PathBuf,
    /// For tests: all addresses are in 127/8, where none has to be taken, and the ports count up from this one.
    pub loopback: Option<u16>,
}

/// Why a daemon could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// A part could not be started.
    #[error("could not {what}: {why}")]
    Start {
        /// What was tried.
        what: String,
        /// Why it failed.
        why: String,
    },
    /// The core must not go on.
    #[error("halted: {0}")]
    Halted(String),
}

fn start<T, E: std::fmt::Display>(what: impl Into<String>, result: Result<T, E>) -> Result<T, Ended> {
    result.map_err(|e| Ended::Start {
        what: what.into(),
        why: e.to_string(),
    })
}

/// The ports of all daemons of a cluster.
#[derive(Debug, Clone, Copy)]
struct Ports {
    heartbeat: u16,
    stream: u16,
    lmtp: u16,
    pop3: u16,
    smtp: u16,
}

impl Ports {
    fn new(loopback: Option<u16>) -> Self {
        match loopback {
            None => Self {
                heartbeat: ports::HEARTBEAT,
                stream: ports::STREAM,
                lmtp: ports::LMTP,
                pop3: ports::POP3,
                smtp: ports::SMTP,
            },
            Some(base) => Self {
                heartbeat: base,
                stream: base.saturating_add(1),
                lmtp: base.saturating_add(2),
                pop3: base.saturating_add(3),
                smtp: base.saturating_add(4),
            },
        }
    }
}

/// Runs until the core halts or the process is told to end.
pub async fn run(options: Options) -> Result<(), Ended> {
    let Options { config, run, loopback } = options;
    let config = Arc::new(config);
    let notifier = Arc::new(Notifier::from_environment());
    let ports = Ports::new(loopback);
    let signals = start("wait for signals", Signals::new())?;
    let (asking, inlets, outlets) = core::channels();
    let addresses = free_addresses(&config, loopback).await?;
    let shell = Shell::start(&config, ports, &asking, inlets.clone(), addresses.clone())?;
    let events = shell.events.clone();
    let control = run.join(ctl::SOCKET);
    let listener = start(
        format!("listen on {}", control.display()),
        ctl::server::listen(&control),
    )?;
    tokio::spawn(ctl::server::serve(listener, asking, events.clone()));
    tokio::spawn(events::journal(events.reader()));
    let boot = Boot {
        entropy: start("get random bits", entropy())?,
        version: crate::VERSION.to_owned(),
        planted: None,
    };
    let node = ccr_core::node((*config).clone(), boot);
    notifier.ready();
    // The core has a thread of its own: a long step must not hold up the sockets, nor they the step.
    let (ended, end) = tokio::sync::oneshot::channel();
    let ending = Arc::clone(&notifier);
    let thread = std::thread::Builder::new().name("ccrd-core".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let why = match runtime {
            Ok(runtime) => runtime.block_on(core::run(node, outlets, shell, &notifier)),
            Err(e) => Err(format!("no runtime for the core: {e}")),
        };
        notifier.stopping();
        let _ = ended.send(why);
    });
    start("start the core's thread", thread)?;
    let outcome = until_ended(end, signals, &ending, &inlets).await;
    // Followers and the journal get the last events, if they take them.
    let _ = tokio::time::timeout(SPARE, events.drained()).await;
    // The address first: nobody should find it here any more.
    if let Some(a) = &addresses {
        for mine in [config.service_address, config.cluster_address] {
            if let Err(e) = a.drop(mine).await {
                eprintln!("ccrd: address {mine} stays behind: {e}");
            }
        }
    }
    let _ = std::fs::remove_file(&control);
    outcome.map_err(Ended::Halted)
}

/// Where the moving addresses go, and none of them is there.
async fn free_addresses(config: &Config, loopback: Option<u16>) -> Result<Option<Addresses>, Ended> {
    let addresses = start(
        "find the interface of the service network",
        moving_addresses(config, loopback).await,
    )?;
    if let Some(a) = &addresses {
        // An earlier life of this daemon may have left them: nobody may hold them before the core says so.
        for left in [config.service_address, config.cluster_address] {
            start(format!("remove the left-over address {left}"), a.drop(left).await)?;
        }
    }
    Ok(addresses)
}

/// Until the core has ended, by itself or because the process was told to; why it halted.
async fn until_ended(
    mut end: tokio::sync::oneshot::Receiver<Result<(), String>>,
    mut signals: Signals,
    notifier: &Notifier,
    inlets: &Inlets,
) -> Result<(), String> {
    let panicked = |_| Err("the core's thread panicked".to_owned());
    tokio::select! {
        outcome = &mut end => return outcome.unwrap_or_else(panicked),
        () = signals.again() => {}
    }
    // Once means in order; the core knows what that is, and how long it may take. Twice means now.
    notifier.stopping();
    // Where the core is gone already, `end` says so.
    let _ = inlets.done.send(Input::End);
    tokio::select! {
        outcome = end => outcome.unwrap_or_else(panicked),
        () = signals.again() => Ok(()),
        () = tokio::time::sleep(Duration::from_micros(END_US) + SPARE) => Ok(()),
    }
}

/// The signals that tell the process to end.
struct Signals {
    term: Signal,
    int: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    /// Until it is told to end; one of two that come at once may be lost.
    async fn again(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}

fn entropy() -> Result<u64, rustix::io::Errno> {
    let mut bytes = [0u8; 8];
    let n = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    if n == bytes.len() {
        Ok(u64::from_le_bytes(bytes))
    } else {
        Err(rustix::io::Errno::IO)
    }
}

/// Where the two moving addresses go; nothing on a hub.
async fn moving_addresses(config: &Config, loopback: Option<u16>) -> Result<Option<Addresses>, String> {
    if config.role == Role::Hub {
        return Ok(None);
    }
    if loopback.is_some() {
        return Ok(Some(Addresses::Loopback));
    }
    let wanted = &config.service_network;
    let network = config
        .networks
        .iter()
        .find(|n| n.name == *wanted)
        .ok_or_else(|| format!("no network {wanted}"))?;
    let own = own_addresses(config)
        .into_iter()
        .find_map(|(n, a)| (n == *wanted).then_some(a))
        .ok_or_else(|| format!("{} has no address on {wanted}", config.node))?;
    Addresses::on(network.interface.as_deref(), own, network.prefix)
        .await
        .map(Some)
}

/// The core's hands: every effect becomes a message to whoever carries it out.
#[derive(Debug)]
struct Shell {
    config: Arc<Config>,
    ports: Ports,
    inlets: Inlets,
    datagrams: Datagrams,
    streams: Streams,
    /// The share of the configuration.
    share: Option<Share>,
    witness: Option<WitnessTasks>,
    disk: std::sync::mpsc::Sender<(OpId, DiskAction)>,
    addresses: mpsc::UnboundedSender<(OpId, AddressKind, bool)>,
    hang_up: watch::Sender<u64>,
    events: Events,
    runtime: tokio::runtime::Handle,
}

impl Shell {
    /// Opens what the daemon listens on, and starts whoever carries out effects.
    fn start(
        config: &Arc<Config>,
        ports: Ports,
        asking: &core::Core,
        inlets: Inlets,
        addresses: Option<Addresses>,
    ) -> Result<Self, Ended> {
        let (hang_up, hung_up) = watch::channel(0);
        let greeting = match config.role {
            Role::Member => &config.service,
            Role::Hub => &config.node,
        };
        let servers_context = ServerContext::new(asking.clone(), greeting, &config.settings, hung_up);
        let mine = own_addresses(config);
        let datagrams = start(
            "listen for heartbeats",
            Datagrams::start(&mine, ports.heartbeat, &inlets.datagrams),
        )?;
        let runtime = tokio::runtime::Handle::current();
        let streams = Streams::new(inlets.streams.clone(), runtime.clone());
        let listen = |address: Ipv4Addr, port: u16| {
            start(format!("listen on {address} port {port}"), net::listen(address, port))
        };
        let (numbers, room) = (Arc::default(), Streams::room());
        for (_, address) in &mine {
            let listener = listen(*address, ports.stream)?;
            streams.accept_on(listener, Arc::clone(&numbers), room.clone());
        }
        if config.role == Role::Hub {
            for (_, address) in &mine {
                servers_context.serve(Protocol::Smtp, listen(*address, ports.smtp)?);
            }
        }
        let done = inlets.done.clone();
        let disk = start(
            format!("use the folder {}", config.data),
            disk::start(std::path::Path::new(&config.data), move |op, result| {
                let _ = done.send(Input::DiskDone { op, result });
            }),
        )?;
        let share = start("prepare the witness", configured_share(config))?;
        Ok(Self {
            witness: share
                .as_ref()
                .map(|s| WitnessTasks::start(s, &config.node, &inlets, &runtime)),
            share,
            addresses: address_task(config.clone(), addresses, servers_context, ports, &inlets),
            datagrams,
            streams,
            disk,
            hang_up,
            events: Events::default(),
            ports,
            inlets,
            config: config.clone(),
            runtime,
        })
    }
}

impl EffectHandler for Shell {
    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::SendDatagram { network, to, bytes } => self.datagrams.send(&network, to, &bytes),
            Effect::Connect { conn, to, timeout_us } => {
                let from = source_for(&self.config, to);
                let to = SocketAddrV4::new(to, self.ports.stream);
                self.streams.connect(conn, from, to, Duration::from_micros(timeout_us));
            }
            Effect::SendFrame { conn, bytes } => self.streams.send(conn, bytes),
            Effect::Disconnect { conn } => self.streams.disconnect(conn),
            Effect::Witness { op, action, timeout_us } => {
                self.at_witness(op, action, Duration::from_micros(timeout_us))
            }
            Effect::UseWitness { address, share } => {
                // The old tasks end when they have answered what they were asked; a held file goes with them.
                let other = self.share.clone().map(|s| Share { address, share, ..s });
                self.witness = other.map(|s| WitnessTasks::start(&s, &self.config.node, &self.inlets, &self.runtime));
            }
            Effect::Disk { op, action } => {
                if self.disk.send((op, action)).is_err() {
                    let result = ccr_core::io::DiskResult::Failed("the disk's thread is gone".into());
                    let _ = self.inlets.done.send(Input::DiskDone { op, result });
                }
            }
            Effect::Address { op, which, up } => {
                // The task lives as long as the runtime.
                let _ = self.addresses.send((op, which, up));
            }
            Effect::Lmtp {
                op,
                to,
                envid,
                sender,
                recipient,
                message,
                timeout_us,
            } => {
                let letter = Letter {
                    op,
                    from: source_for(&self.config, to),
                    to: SocketAddrV4::new(to, self.ports.lmtp),
                    me: self.config.node.clone(),
                    envid,
                    sender,
                    recipient,
                    message,
                    timeout: Duration::from_micros(timeout_us),
                };
                self.runtime.spawn(letter.carry(self.inlets.done.clone()));
            }
            Effect::CloseClients => self.hang_up.send_modify(|n| *n += 1),
            Effect::Event(event) => self.events.push(event),
            // The loop keeps these to itself.
            Effect::Reply { .. } | Effect::Halt { .. } | Effect::Ended => {}
        }
    }

    fn before_input(&mut self, input: &Input) {
        if let Input::Closed { conn, .. } = input {
            self.streams.closed(*conn);
        }
    }
}

impl Shell {
    fn at_witness(&self, op: OpId, action: WitnessAction, timeout: Duration) {
        let asked = WitnessRequest { op, action, timeout };
        let to = self.witness.as_ref().map(|w| {
            if asked.action == WitnessAction::Probe {
                &w.probes
            } else {
                &w.hold
            }
        });
        if to.is_none_or(|to| to.send(asked).is_err()) {
            let result = WitnessResult::Failed("no witness is configured".into());
            let _ = self.inlets.done.send(Input::WitnessDone { op, result });
        }
    }
}

/// A message for the service, and where its fate is told.
struct Letter {
    op: OpId,
    from: Option<Ipv4Addr>,
    to: SocketAddrV4,
    me: String,
    envid: String,
    sender: String,
    recipient: String,
    message: Arc<Vec<u8>>,
    timeout: Duration,
}

impl Letter {
    async fn carry(self, done: mpsc::UnboundedSender<Input>) {
        let began = tokio::time::Instant::now();
        let result = match net::connect(self.from, self.to, self.timeout).await {
            Ok(stream) => {
                let recipients = [self.recipient];
                let outgoing = Outgoing {
                    me: &self.me,
                    from: &self.sender,
                    to: &recipients,
                    hub_id: &self.envid,
                    bytes: &self.message,
                };
                let left = self.timeout.saturating_sub(began.elapsed());
                match deliver::deliver(stream, &outgoing, left).await {
                    Ok(mut replies) => replies.pop().ok_or_else(|| "no reply".to_owned()),
                    Err(e) => Err(e.to_string()),
                }
            }
            Err(e) => Err(e.to_string()),
        };
        let result = result.map(|r| LmtpReply {
            code: r.code,
            text: r.text,
        });
        let _ = done.send(Input::LmtpDone { op: self.op, result });
    }
}

/// An operation at the witness.
#[derive(Debug)]
struct WitnessRequest {
    op: OpId,
    action: WitnessAction,
    timeout: Duration,
}

/// The two ways to the witness: a probe must not wait behind the hold, nor the hold behind a probe.
#[derive(Debug)]
struct WitnessTasks {
    hold: mpsc::UnboundedSender<WitnessRequest>,
    probes: mpsc::UnboundedSender<WitnessRequest>,
}

impl WitnessTasks {
    fn start(share: &Share, node: &str, inlets: &Inlets, runtime: &tokio::runtime::Handle) -> Self {
        let task = |witness: SmbWitness| {
            let (ask, asked) = mpsc::unbounded_channel();
            runtime.spawn(at_witness(witness, asked, inlets.done.clone()));
            ask
        };
        Self {
            hold: task(SmbWitness::new(share.clone(), witness::FILE)),
            probes: task(SmbWitness::passing(share.clone(), &format!("probe-{node}"))),
        }
    }
}

fn configured_share(config: &Config) -> Result<Option<Share>, String> {
    let Some(w) = config.witness.as_ref().filter(|_| config.role == Role::Member) else {
        return Ok(None);
    };
    let password = std::fs::read_to_string(&w.password_file).map_err(|e| format!("{}: {e}", w.password_file))?;
    Ok(Some(Share {
        address: w.address,
        port: w.port,
        share: w.share.clone(),
        user: w.user.clone(),
        password: password.trim_end_matches(['\r', '\n']).to_owned(),
    }))
}

/// Carries out operations at the witness one after another.
async fn at_witness(
    mut witness: impl Witness,
    mut asked: mpsc::UnboundedReceiver<WitnessRequest>,
    done: mpsc::UnboundedSender<Input>,
) {
    while let Some(WitnessRequest { op, action, timeout }) = asked.recv().await {
        let outcome = match action {
            WitnessAction::Open => witness.open(timeout).await.map(WitnessResult::Opened),
            WitnessAction::Write { bytes } => witness.write(&bytes, timeout).await.map(|()| WitnessResult::Done),
            WitnessAction::Close => witness.close(timeout).await.map(|()| WitnessResult::Done),
            WitnessAction::Probe => witness::probe(&mut witness, timeout)
                .await
                .map(|()| WitnessResult::Done),
        };
        let result = match outcome {
            Ok(result) => result,
            Err(Fault::Held) => WitnessResult::Held,
            Err(Fault::Lost(why)) => WitnessResult::Failed(why),
        };
        if done.send(Input::WitnessDone { op, result }).is_err() {
            return;
        }
    }
}

/// Takes and gives up addresses one after another. With the service address come and go the store's listeners.
fn address_task(
    config: Arc<Config>,
    addresses: Option<Addresses>,
    servers_context: ServerContext,
    ports: Ports,
    inlets: &Inlets,
) -> mpsc::UnboundedSender<(OpId, AddressKind, bool)> {
    let (ask, mut asked) = mpsc::unbounded_channel();
    let done = inlets.done.clone();
    tokio::spawn(async move {
        let mut listeners = Vec::new();
        while let Some((op, which, up)) = asked.recv().await {
            let address = match which {
                AddressKind::Cluster => config.cluster_address,
                AddressKind::Service => config.service_address,
            };
            let servers = (which == AddressKind::Service).then_some((&servers_context, ports));
            let result = match &addresses {
                None => Err("this node takes no addresses".to_owned()),
                Some(a) if up => take(a, address, servers, &mut listeners).await,
                Some(a) => {
                    if servers.is_some() {
                        stop(&mut listeners).await;
                    }
                    a.drop(address).await
                }
            };
            if done.send(Input::AddressDone { op, result }).is_err() {
                return;
            }
        }
    });
    ask
}

async fn take(
    a: &Addresses,
    address: Ipv4Addr,
    servers: Option<(&ServerContext, Ports)>,
    listeners: &mut Vec<JoinHandle<()>>,
) -> Result<(), String> {
    a.take(address).await?;
    if let Some((servers_context, ports)) = servers {
        stop(listeners).await;
        for (protocol, port) in [(Protocol::Lmtp, ports.lmtp), (Protocol::Pop3, ports.pop3)] {
            match net::listen(address, port) {
                Ok(listener) => listeners.push(servers_context.serve(protocol, listener)),
                Err(e) => {
                    stop(listeners).await;
                    let back = a
                        .drop(address)
                        .await
                        .err()
                        .map(|e| format!("; and {e}"))
                        .unwrap_or_default();
                    return Err(format!("could not listen on {address} port {port}: {e}{back}"));
                }
            }
        }
    }
    a.announce(address);
    Ok(())
}

/// Ends the listeners, and waits until their sockets are closed.
async fn stop(listeners: &mut Vec<JoinHandle<()>>) {
    for task in listeners.drain(..) {
        task.abort();
        let _ = task.await;
    }
}
