//! The fabric of a running lab: its ports on the host, its frame thread, its control.

use super::capture::{self, Capture, CaptureFilter, Interfaces, Recorder, RingConfig};
use super::compile::{Compiled, Names};
use super::engine::Engine;
use super::host::{ClientNet, ConnectError, HostConfig, LabHost, same_subnet};
use super::inside::Inside;
use super::runner::Runner;
use super::transport::{PortTransport, Udp, Unix, free_udp};
use super::{Control, Counters, PortId, Revision, Rule, RuleOwner, RuleSets, WORKSTATION, frame, hostdrops};
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Draft, Journal, Severity, Source};
use crate::files::LabFiles;
use crate::hypervisor::{Cable, CableKind};
use crate::lock::lock;
use crate::spec::{Lab, Mac};
use crate::wait::Deadline;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What a fabric is made of.
#[derive(Debug, Clone, Default)]
pub struct FabricConfig {
    /// The networks.
    pub networks: Vec<NetworkConfig>,
    /// A port for each machine on each of its networks.
    pub ports: Vec<PortConfig>,
    /// The rule set to begin with: what was in force before a restart.
    pub rules: RuleSets,
    /// Where the last minutes are kept; nowhere if absent.
    pub ring: Option<RingConfig>,
}

/// A lab network.
#[derive(Debug, Clone)]
pub struct NetworkConfig {
    /// Its name.
    pub name: String,
    /// Largest IP packet in bytes.
    pub mtu: u16,
    /// The workstation's own address on it, with the length of the subnet's prefix.
    pub workstation: Option<(Ipv4Addr, u8)>,
}

/// A machine's port on a network.
#[derive(Debug, Clone)]
pub struct PortConfig {
    /// The network.
    pub network: String,
    /// The node.
    pub node: String,
    /// MAC in the guest.
    pub mac: Mac,
    /// Where its cable ends: that of a machine that runs already, or unix sockets. Free UDP ports are chosen where absent.
    pub cable: Option<Cable>,
}

/// The cable of a machine on a network: kept in the lab's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortAssignment {
    /// The network.
    pub network: String,
    /// The node.
    pub node: String,
    /// Its cable.
    #[serde(flatten)]
    pub cable: Cable,
}

impl FabricConfig {
    /// The fabric of `lab` with such cables; `assigned` has the UDP ports of machines that run already, and `files` the places of
    /// unix sockets.
    pub fn of(lab: &Lab, cables: CableKind, assigned: &[PortAssignment], files: &LabFiles) -> Self {
        let networks = lab.networks.iter().map(|n| NetworkConfig {
            name: n.name.to_string(),
            mtu: n.mtu,
            workstation: Some((n.workstation, n.subnet.prefix)),
        });
        let ports = lab.nodes.iter().flat_map(|node| {
            let sockets = files.node(&node.name);
            node.nics.iter().enumerate().map(move |(n, nic)| {
                let of = |a: &&PortAssignment| {
                    a.network == nic.network.as_str() && a.node == node.name.as_str() && a.cable.kind() == cables
                };
                let cable = match cables {
                    CableKind::Udp => assigned.iter().find(of).map(|a| a.cable.clone()),
                    CableKind::Unix => Some(Cable::Unix {
                        fabric: sockets.cable_fabric(n),
                        local: sockets.cable(n),
                    }),
                };
                PortConfig {
                    network: nic.network.to_string(),
                    node: node.name.to_string(),
                    mac: nic.mac,
                    cable,
                }
            })
        });
        Self {
            networks: networks.collect(),
            ports: ports.collect(),
            ..Self::default()
        }
    }
}

/// The networks of a running lab. Dropping it makes them dark.
#[derive(Debug)]
pub struct Fabric {
    /// Dropped before the frame thread, so that their last words are still carried.
    hosts: Mutex<BTreeMap<usize, Arc<LabHost>>>,
    runner: Runner,
    config: FabricConfig,
    names: Names,
    assigned: Mutex<Vec<PortAssignment>>,
    journal: Journal,
}

impl Fabric {
    /// Binds every port and starts the frame thread.
    ///
    /// Where UDP ports are given (machines run already) exactly these are bound: one that a stranger holds is an error.
    /// Where none are given free ones are chosen; a busy one is passed over. A unix socket takes the place of what is there: the
    /// folder is the lab's.
    pub fn start(config: FabricConfig, journal: Journal) -> Result<Self> {
        let names = names(&config)?;
        Compiled::check(&config.rules.all(), &names)?;
        let (assigned, cables) = bind(&config)?;
        let mtus: Vec<u16> = config.networks.iter().map(|n| n.mtu).collect();
        let mut recorder = Recorder::new();
        if let Some(ring) = &config.ring {
            recorder.add(capture::ring(
                ring,
                interfaces(&config, &names, &CaptureFilter::default()),
            )?);
        }
        let mut engine = Engine::new(names.clone(), &mtus, recorder);
        for p in 0..names.ports.len() {
            engine.attach(p, false);
        }
        engine.replace(config.rules.clone(), 0)?;
        let longest = usize::from(mtus.iter().copied().max().unwrap_or(1500)) + frame::ETHERNET + 2 * frame::VLAN_TAG;
        let died = journal.clone();
        let runner = Runner::start(engine, longest, move || {
            died.emit(Draft::new(Source::Fabric, "fabric.died").severity(Severity::Error));
        })?;
        runner
            .ask(move |frames| {
                cables
                    .into_iter()
                    .enumerate()
                    .try_for_each(|(p, cable)| frames.attach(p, cable))
            })?
            .tried("watch the network ports", "")?;
        journal.emit(Draft::new(Source::Fabric, "fabric.started").data(serde_json::json!({"ports": assigned})));
        Ok(Self {
            runner,
            config,
            names,
            assigned: Mutex::new(assigned),
            hosts: Mutex::default(),
            journal,
        })
    }

    /// Every cable, to be kept in the lab's record and given back after a restart.
    pub fn ports(&self) -> Vec<PortAssignment> {
        lock(&self.assigned).clone()
    }

    /// The process of `node` is about to be another one: its cables are unplugged from the old one's sockets.
    pub fn renew(&self, node: &str) -> Result<()> {
        let ports = self.config.ports.iter().enumerate();
        let its: Vec<PortId> = ports.filter(|(_, p)| p.node == node).map(|(at, _)| at).collect();
        let renewed = self
            .runner
            .ask(move |frames| its.into_iter().try_for_each(|at| frames.renew(at)))?;
        renewed.tried("unplug the machine's cables", node)
    }

    /// Ends the workstation's connections, also those that are being made. It is out of the networks until they are lit anew.
    pub fn hang_up(&self) {
        lock(&self.hosts).values().for_each(|host| host.hang_up());
    }

    /// The workstation's own host on `network`; it is plugged in when it is first asked for.
    pub fn host(&self, network: &str) -> Result<Arc<LabHost>> {
        let found = self
            .config
            .networks
            .iter()
            .enumerate()
            .find(|(_, n)| n.name == network && n.workstation.is_some());
        let Some((index, net)) = found else {
            let known: Vec<&str> = self.config.networks.iter().map(|n| n.name.as_str()).collect();
            return Err(Error::Usage(
                Problem::new("find the workstation's port")
                    .on(network.escape_debug())
                    .remedy(format!("networks: {}", known.join(", "))),
            ));
        };
        let mut hosts = lock(&self.hosts);
        if let Some(host) = hosts.get(&index) {
            return Ok(host.clone());
        }
        let plug = |e| {
            Error::Host(
                Problem::new("plug the workstation into the network")
                    .on(network)
                    .observed(e),
            )
        };
        let (ours, theirs) = Inside::pair().map_err(plug)?;
        let (address, prefix) = net.workstation.expect("checked above");
        let config = HostConfig {
            address,
            prefix,
            mac: workstation_mac(index),
            mtu: net.mtu,
        };
        let host = Arc::new(LabHost::start(network, config, theirs).map_err(plug)?);
        let port = self
            .names
            .ports
            .iter()
            .position(|(n, node)| *n == index && node == WORKSTATION);
        let port = port.expect("a network with a workstation has its port");
        self.runner
            .ask(move |frames| frames.attach(port, Box::new(ours)))?
            .map_err(plug)?;
        hosts.insert(index, host.clone());
        Ok(host)
    }

    /// Writes what passes the ports of `filter` to `to` as pcapng, an interface for each port, until the answer is
    /// dropped or `to` is closed. Dropped frames are in it, with the reason as comment.
    pub fn capture(&self, filter: &CaptureFilter, to: Box<dyn Write + Send>) -> Result<Capture> {
        let interfaces = interfaces(&self.config, &self.names, filter);
        if interfaces.is_empty() {
            let asked = [&filter.node, &filter.network]
                .into_iter()
                .flatten()
                .map(|n| n.escape_debug().to_string());
            let network = |n: &usize| &self.names.networks[*n];
            let known = self
                .names
                .ports
                .iter()
                .map(|(n, node)| format!("{node} on {}", network(n)));
            return Err(Error::Usage(
                Problem::new("capture")
                    .on(asked.collect::<Vec<_>>().join(" on "))
                    .observed("there is no such port")
                    .remedy(format!("there are: {}", known.collect::<Vec<_>>().join(", "))),
            ));
        }
        let (sink, capture) = capture::live(to, interfaces)?;
        self.runner.ask(move |frames| frames.engine.tap().add(sink))?;
        Ok(capture)
    }

    /// Ends a capture; what passed until now is still written.
    pub fn end(&self, capture: Capture) -> Result<()> {
        self.runner.ask(move |frames| frames.engine.tap().end(&capture))
    }

    /// Copies the ring, all that passed until now, into the file `to`.
    pub fn keep_ring(&self, to: &Path) -> Result<()> {
        let (done, copied) = std::sync::mpsc::channel();
        let path = to.to_owned();
        let asked = self
            .runner
            .ask(move |frames| frames.engine.tap().copy_ring(path, done))?;
        if !asked {
            return Err(Error::Operation(
                Problem::new("copy the last minutes of the networks")
                    .on(to.display())
                    .observed("none are kept, or the disk is too slow"),
            ));
        }
        let ended = || std::io::Error::other("its writer ended");
        let copied = copied.recv().map_err(|_| ended()).flatten();
        copied.tried("copy the last minutes of the networks", to.display())
    }

    /// Which rules `owner` has now.
    fn tell_rules(&self, owner: RuleOwner, revision: Revision, ids: &[String]) {
        let data = serde_json::json!({"revision": revision, "owner": owner.to_string(), "rules": ids});
        self.journal.emit(Draft::new(Source::Fabric, "fabric.rules").data(data));
    }
}

impl Control for Fabric {
    fn set(&self, owner: RuleOwner, rules: Vec<Rule>) -> Result<Revision> {
        let ids: Vec<String> = rules.iter().map(|r| r.id.clone()).collect();
        let revision = self.runner.ask(move |frames| {
            let now = frames.now();
            frames.engine.set(owner, rules, now)
        })??;
        self.tell_rules(owner, revision, &ids);
        Ok(revision)
    }

    fn remove(&self, owner: RuleOwner) -> Result<Option<Revision>> {
        let revision = self.runner.ask(move |frames| {
            let now = frames.now();
            frames.engine.remove(owner, now)
        })??;
        if let Some(revision) = revision {
            self.tell_rules(owner, revision, &[]);
        }
        Ok(revision)
    }

    fn rules(&self) -> (Revision, RuleSets) {
        alive(self.runner.ask(|frames| frames.engine.rules()))
    }

    fn counters(&self) -> Counters {
        let (mut counters, host) = alive(
            self.runner
                .ask(|frames| (frames.engine.counters(), frames.host_ports())),
        );
        let drops = hostdrops::read();
        let of = |port| drops.get(&port).copied().unwrap_or(0);
        for (port, (ours, machines)) in host {
            counters.ports[port].host_drops_in = of(ours);
            counters.ports[port].host_drops_out = of(machines);
        }
        counters
    }

    fn hold(&self) {
        alive(self.runner.ask(|frames| {
            let now = frames.now();
            frames.engine.hold(now);
        }));
    }

    fn release(&self) {
        alive(self.runner.ask(|frames| frames.release()));
    }
}

impl ClientNet for Fabric {
    fn connect(&self, to: SocketAddrV4, deadline: Deadline) -> Result<UnixStream, ConnectError> {
        let nets = self
            .config
            .networks
            .iter()
            .filter_map(|n| n.workstation.map(|(a, prefix)| (n, a, prefix)));
        let Some((net, ..)) = nets.clone().find(|(_, a, prefix)| same_subnet(*a, *to.ip(), *prefix)) else {
            let known: Vec<String> = nets.map(|(n, a, prefix)| format!("{} {a}/{prefix}", n.name)).collect();
            return Err(ConnectError::NoRoute {
                to: *to.ip(),
                known: known.join(", "),
            });
        };
        let host = self.host(&net.name).map_err(|e| ConnectError::Failed(e.to_string()))?;
        host.connect(to, deadline)
    }
}

/// The interfaces of a capture, each described by its MAC.
fn interfaces(config: &FabricConfig, names: &Names, filter: &CaptureFilter) -> Interfaces {
    let describe = |(p, (network, node)): (usize, &(usize, String))| {
        let mac = config
            .ports
            .get(p)
            .map_or_else(|| workstation_mac(*network), |port| port.mac);
        let network = names.networks[*network].clone();
        let description = format!("{node} on {network}, {mac}");
        (network, node.clone(), description)
    };
    let ports: Vec<_> = names.ports.iter().enumerate().map(describe).collect();
    Interfaces::new(&ports, filter)
}

/// MAC of the workstation on the `index`th network.
fn workstation_mac(index: usize) -> Mac {
    Mac([0x52, 0x54, 0x00, 0xfe, 0x00, index as u8])
}

/// Without a frame thread there is nothing true to say: zeros would pass for evidence.
fn alive<T>(answer: Result<T>) -> T {
    answer.unwrap_or_else(|e| panic!("{e}"))
}

/// Names of every port: the machines' in the order of the configuration, then the workstation's.
fn names(config: &FabricConfig) -> Result<Names> {
    let wrong = |on: String, seen: &str| Error::Usage(Problem::new("build the networks").on(on).observed(seen));
    let networks: Vec<String> = config.networks.iter().map(|n| n.name.clone()).collect();
    let mut ports: Vec<(usize, String)> = Vec::new();
    for p in &config.ports {
        let on = format!("{} on {}", p.node, p.network);
        let network = networks.iter().position(|n| *n == p.network);
        let network = network.ok_or_else(|| wrong(on.clone(), "there is no such network"))?;
        if p.node == WORKSTATION {
            return Err(wrong(on, "this name belongs to the tool's own port"));
        }
        if ports.contains(&(network, p.node.clone())) {
            return Err(wrong(on, "the node has two ports on this network"));
        }
        ports.push((network, p.node.clone()));
    }
    let own = |(i, n): (usize, &NetworkConfig)| n.workstation.map(|_| (i, WORKSTATION.to_owned()));
    ports.extend(config.networks.iter().enumerate().filter_map(own));
    Ok(Names { networks, ports })
}

/// A port's end of its cable.
type Plug = Box<dyn PortTransport>;

/// Binds the fabric's side of every cable: the given ports first, so that no chosen one takes them.
fn bind(config: &FabricConfig) -> Result<(Vec<PortAssignment>, Vec<Plug>)> {
    let given: Vec<Option<Plug>> = config
        .ports
        .iter()
        .map(|p| p.cable.as_ref().map(|c| bind_given(p, c)).transpose())
        .collect::<Result<_>>()?;
    // The port of a machine that is about to start again is free now and must stay so.
    let spoken_for: Vec<u16> = config
        .ports
        .iter()
        .filter_map(|p| match p.cable {
            Some(Cable::Udp { local, .. }) => Some(local),
            _ => None,
        })
        .collect();
    // Every socket is kept until all are chosen, so that no port is chosen twice.
    let mut reserved = Vec::new();
    let mut cables = Vec::new();
    for (p, given) in config.ports.iter().zip(given) {
        let (transport, cable) = match (given, &p.cable) {
            (Some(transport), Some(cable)) => (transport, cable.clone()),
            _ => {
                let (ours, machines) = (choose(&spoken_for, &mut reserved)?, choose(&spoken_for, &mut reserved)?);
                let (fabric, local) = (port_of(&ours)?, port_of(&machines)?);
                reserved.push(machines);
                (udp(ours, fabric, local)?, Cable::Udp { fabric, local })
            }
        };
        let (network, node) = (p.network.clone(), p.node.clone());
        cables.push((PortAssignment { network, node, cable }, transport));
    }
    Ok(cables.into_iter().unzip())
}

fn udp(socket: UdpSocket, fabric: u16, local: u16) -> Result<Plug> {
    let udp = Udp::new(socket, local).tried("prepare a network port", format!("127.0.0.1:{fabric}"))?;
    Ok(Box::new(udp))
}

fn choose(spoken_for: &[u16], reserved: &mut Vec<UdpSocket>) -> Result<UdpSocket> {
    loop {
        let s = free_udp().tried("find a free UDP port", "127.0.0.1")?;
        if !spoken_for.contains(&port_of(&s)?) {
            return Ok(s);
        }
        reserved.push(s);
    }
}

fn bind_given(p: &PortConfig, cable: &Cable) -> Result<Plug> {
    let failed = |at: String, e: std::io::Error, remedy: String| {
        Error::Operation(
            Problem::new("bind the network port that the machine sends to")
                .on(format!("{} on {}: {at}", p.node, p.network))
                .observed(e)
                .remedy(remedy),
        )
    };
    match cable {
        Cable::Udp { fabric: port, local } => {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, *port)).map_err(|e| {
                let holder = format!("end the process that holds it (`ss -ulpn sport = :{port}`)");
                failed(
                    format!("udp 127.0.0.1:{port}"),
                    e,
                    format!("{holder}, or `down` and `up` again"),
                )
            })?;
            udp(socket, *port, *local)
        }
        Cable::Unix { fabric, local } => {
            let unix = Unix::bind(fabric, local).map_err(|e| {
                let remedy = "see whether the lab's folder is there and has room; then `down` and `up` again";
                failed(fabric.display().to_string(), e, remedy.into())
            })?;
            Ok(Box::new(unix))
        }
    }
}

fn port_of(socket: &UdpSocket) -> Result<u16> {
    Ok(socket
        .local_addr()
        .tried("read the address of a socket", "127.0.0.1")?
        .port())
}

#[cfg(test)]
pub(crate) mod tests;
