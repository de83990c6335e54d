//! Streams to the other nodes: one that this node dials for each of them, on demand, and those that others dialled.

use crate::ctx::Ctx;
use crate::io::{ConnId, Effect};
use crate::wire::{self, Msg};
use ccr_contract::config::{Config, Shipping};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

const CONNECT_US: u64 = 2_000_000;
/// Frames that wait for a stream to open.
const QUEUED: usize = 64;

/// A stream that this node dials.
#[derive(Debug)]
struct PeerStream {
    addresses: Vec<Ipv4Addr>,
    /// Which address is tried next: another network after each failure.
    turn: usize,
    conn: Option<ConnId>,
    open: bool,
    queue: Vec<Vec<u8>>,
}

/// All streams of this node.
#[derive(Debug)]
pub struct PeerStreams {
    cluster: String,
    me: String,
    dialled: BTreeMap<String, PeerStream>,
    accepted: BTreeMap<ConnId, Option<String>>,
    next: u64,
}

/// Who is at the other end of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// This node dialled that one.
    Dialled(String),
    /// That one dialled this node, and said who it is.
    Accepted(String),
    /// Somebody dialled and has not said who it is.
    Stranger,
}

impl PeerStreams {
    /// No stream is open. Replication and redelivery use the networks of the cluster, the service's first.
    pub fn new(config: &Config) -> Self {
        let only_service = config.settings.shipping == Shipping::Service;
        let order = |p: &ccr_contract::config::Peer| {
            let mut found: Vec<_> = config
                .networks
                .iter()
                .filter(|n| !only_service || n.name == config.service_network)
                .filter_map(|n| Some((n, *p.addresses.get(&n.name)?)))
                .collect();
            found.sort_by_key(|(n, _)| n.name != config.service_network);
            found.into_iter().map(|(_, a)| a).collect::<Vec<_>>()
        };
        let others = config
            .members
            .iter()
            .chain(&config.hubs)
            .filter(|p| p.name != config.node);
        let link = |p: &ccr_contract::config::Peer| PeerStream {
            addresses: order(p),
            turn: 0,
            conn: None,
            open: false,
            queue: Vec::new(),
        };
        Self {
            cluster: config.cluster.clone(),
            me: config.node.clone(),
            dialled: others.map(|p| (p.name.clone(), link(p))).collect(),
            accepted: BTreeMap::new(),
            next: 1,
        }
    }

    /// Sends to a node, dialling where there is no stream. Nothing is promised: whoever needs an answer asks again.
    pub fn send<P>(&mut self, ctx: &mut Ctx<P>, to: &str, msg: &Msg) {
        let Some(link) = self.dialled.get_mut(to) else { return };
        let bytes = wire::encode_frame(msg, &[]);
        match link.conn {
            Some(conn) if link.open => return ctx.emit(Effect::SendFrame { conn, bytes }),
            Some(_) => {}
            None if link.addresses.is_empty() => return,
            None => {
                let conn = ConnId::Dialled(self.next);
                self.next += 1;
                link.conn = Some(conn);
                let to = link.addresses[link.turn % link.addresses.len()];
                ctx.emit(Effect::Connect {
                    conn,
                    to,
                    timeout_us: CONNECT_US,
                });
            }
        }
        if link.queue.len() < QUEUED {
            link.queue.push(bytes);
        }
    }

    /// Gives up the stream to a node; the next one takes another network.
    pub fn reset<P>(&mut self, ctx: &mut Ctx<P>, to: &str) {
        let Some(link) = self.dialled.get_mut(to) else { return };
        if let Some(conn) = link.conn.take() {
            ctx.emit(Effect::Disconnect { conn });
            link.turn += 1;
        }
        link.open = false;
        link.queue.clear();
    }

    /// A stream that was dialled is open.
    pub fn connected<P>(&mut self, ctx: &mut Ctx<P>, conn: ConnId) {
        let Some(link) = self.dialled.values_mut().find(|l| l.conn == Some(conn)) else {
            return ctx.emit(Effect::Disconnect { conn });
        };
        link.open = true;
        let hello = Msg::Hello {
            cluster: self.cluster.clone(),
            node: self.me.clone(),
        };
        let bytes = wire::encode_frame(&hello, &[]);
        ctx.emit(Effect::SendFrame { conn, bytes });
        for bytes in std::mem::take(&mut link.queue) {
            ctx.emit(Effect::SendFrame { conn, bytes });
        }
    }

    /// A stream ended: tells whose it was, where this node had dialled it.
    pub fn closed(&mut self, conn: ConnId) -> Option<String> {
        self.accepted.remove(&conn);
        let (name, link) = self.dialled.iter_mut().find(|(_, l)| l.conn == Some(conn))?;
        link.conn = None;
        link.open = false;
        link.turn += 1;
        link.queue.clear();
        Some(name.clone())
    }

    /// Somebody dialled. Only nodes of the configuration are let in.
    pub fn accepted<P>(&mut self, ctx: &mut Ctx<P>, conn: ConnId, from: Ipv4Addr) {
        if self.dialled.values().any(|l| l.addresses.contains(&from)) {
            self.accepted.insert(conn, None);
        } else {
            ctx.emit(Effect::Disconnect { conn });
        }
    }

    /// Whose stream this is; none when it is not open here.
    pub fn end(&self, conn: ConnId) -> Option<End> {
        if let Some(who) = self.accepted.get(&conn) {
            return Some(who.clone().map_or(End::Stranger, End::Accepted));
        }
        let found = self.dialled.iter().find(|(_, l)| l.conn == Some(conn) && l.open);
        found.map(|(name, _)| End::Dialled(name.clone()))
    }

    /// The first frame of whoever dialled.
    pub fn hello(&mut self, conn: ConnId, cluster: &str, node: &str) -> bool {
        let known = cluster == self.cluster && self.dialled.contains_key(node);
        if let Some(who) = self.accepted.get_mut(&conn).filter(|_| known) {
            *who = Some(node.to_owned());
        }
        known
    }
}
