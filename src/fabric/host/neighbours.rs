//! Who has which address: the workstation's ARP, with the rules and times of Linux. Pure.
//!
//! A gratuitous ARP moves an address that we talk to at once; an address that was not heard of for 30 s is asked for
//! again while it is used; three questions without an answer and it is unreachable (`net.ipv4.neigh.*` defaults).

use crate::spec::Mac;
use smoltcp::wire::{ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr};
use std::collections::{HashMap, HashSet, VecDeque};
use std::net::Ipv4Addr;

const SECOND: u64 = 1_000_000_000;
/// After so long without a sign of life an entry is stale (base_reachable_time).
const REACHABLE: u64 = 30 * SECOND;
/// A stale entry that is used is trusted for so long before it is asked about (delay_first_probe_time).
const DELAY: u64 = 5 * SECOND;
/// Between two questions (retrans_time).
const RETRY: u64 = SECOND;
/// Questions without an answer (mcast_solicit, ucast_solicit).
const TRIES: u8 = 3;
/// An entry is not overwritten so soon after its last change, except by a gratuitous ARP (locktime).
const LOCK: u64 = SECOND;
/// Packets that wait for an answer, for each address.
const WAITING: usize = 64;
/// Addresses that are kept; a scan of the subnet cannot grow the table.
const ENTRIES: usize = 1024;

/// The workstation's side of ARP on one network.
#[derive(Debug)]
pub struct Neighbours {
    mac: Mac,
    local_address: Ipv4Addr,
    entries: HashMap<Ipv4Addr, Entry>,
    claimed: HashSet<Ipv4Addr>,
    /// Addresses that just turned out to be unreachable.
    failed: Vec<Ipv4Addr>,
}

#[derive(Debug)]
enum Entry {
    /// Asked for; packets wait.
    Asking {
        tries: u8,
        next: u64,
        waiting: VecDeque<Box<[u8]>>,
    },
    Known {
        mac: Mac,
        confirmed: u64,
        changed: u64,
        check: Check,
    },
}

/// What is being done about an entry that may be out of date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Check {
    None,
    /// Used while stale: asked about from then on.
    Delay {
        until: u64,
    },
    Asking {
        tries: u8,
        next: u64,
    },
}

impl Neighbours {
    /// For `local_address` at `mac`.
    pub fn new(local_address: Ipv4Addr, mac: Mac) -> Self {
        Self {
            mac,
            local_address,
            entries: HashMap::new(),
            claimed: HashSet::new(),
            failed: Vec::new(),
        }
    }

    /// An IP packet leaves: appends the frame to `out`, or keeps the packet and asks.
    pub fn outgoing(&mut self, packet: &[u8], now: u64, out: &mut Vec<Box<[u8]>>) {
        let Some(to) = packet
            .get(16..20)
            .and_then(|b| <[u8; 4]>::try_from(b).ok())
            .map(Ipv4Addr::from)
        else {
            return;
        };
        if to.is_broadcast() || to.is_multicast() {
            return;
        }
        match self.entries.get_mut(&to) {
            Some(Entry::Known {
                mac, confirmed, check, ..
            }) => {
                if *check == Check::None && now.saturating_sub(*confirmed) > REACHABLE {
                    *check = Check::Delay { until: now + DELAY };
                }
                let frame = ethernet(*mac, self.mac, EthernetProtocol::Ipv4, packet.len(), |p| {
                    p.copy_from_slice(packet)
                });
                out.push(frame);
            }
            Some(Entry::Asking { waiting, .. }) => {
                if waiting.len() == WAITING {
                    waiting.pop_front();
                }
                waiting.push_back(packet.into());
            }
            None => {
                self.make_room(now);
                let waiting = VecDeque::from([packet.into()]);
                self.entries.insert(
                    to,
                    Entry::Asking {
                        tries: 1,
                        next: now + RETRY,
                        waiting,
                    },
                );
                out.push(self.request(to, None));
            }
        }
    }

    /// An IP packet came from `ip` at `mac`: a sign of life.
    pub fn heard(&mut self, ip: Ipv4Addr, from: [u8; 6], now: u64) {
        if let Some(Entry::Known {
            mac, confirmed, check, ..
        }) = self.entries.get_mut(&ip)
            && mac.0 == from
        {
            *confirmed = now;
            *check = Check::None;
        }
    }

    /// An ARP frame came. Answers, and packets that waited for it, are appended to `out`; says who sent it.
    pub fn arp(&mut self, frame: &[u8], now: u64, out: &mut Vec<Box<[u8]>>) -> Option<(Ipv4Addr, Mac)> {
        let frame = EthernetFrame::new_checked(frame).ok()?;
        let packet = ArpPacket::new_checked(frame.payload()).ok()?;
        let ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr,
            source_protocol_addr: sender,
            target_protocol_addr: target,
            ..
        } = ArpRepr::parse(&packet).ok()?
        else {
            return None;
        };
        let mac = Mac(source_hardware_addr.0);
        if mac == self.mac || mac.0[0] & 1 != 0 || sender.is_multicast() || sender.is_broadcast() {
            return None;
        }
        let asks_us =
            operation == ArpOperation::Request && (target == self.local_address || self.claimed.contains(&target));
        if !sender.is_unspecified() && sender != self.local_address {
            let gratuitous = target == sender || frame.dst_addr().is_broadcast() && operation == ArpOperation::Reply;
            let answer = operation == ArpOperation::Reply && target == self.local_address;
            self.learn(
                sender,
                mac,
                now,
                Learned {
                    gratuitous,
                    answer,
                    create: asks_us,
                },
                out,
            );
        }
        if asks_us {
            out.push(self.reply(target, mac, sender));
        }
        Some((sender, mac))
    }

    fn learn(&mut self, ip: Ipv4Addr, new: Mac, now: u64, how: Learned, out: &mut Vec<Box<[u8]>>) {
        // A stale entry is usable but will be asked about: what an unasked ARP leaves behind on Linux.
        let confirmed = if how.answer { now } else { now.saturating_sub(REACHABLE) };
        let known = Entry::Known {
            mac: new,
            confirmed,
            changed: now,
            check: Check::None,
        };
        match self.entries.get_mut(&ip) {
            Some(Entry::Known {
                mac,
                confirmed: c,
                changed,
                check,
            }) => {
                if *mac == new {
                    if how.answer {
                        *c = now;
                        *check = Check::None;
                    }
                } else if how.gratuitous || now.saturating_sub(*changed) >= LOCK {
                    (*mac, *c, *changed, *check) = (new, confirmed, now, Check::None);
                }
            }
            Some(Entry::Asking { waiting, .. }) => {
                for packet in std::mem::take(waiting) {
                    out.push(ethernet(new, self.mac, EthernetProtocol::Ipv4, packet.len(), |p| {
                        p.copy_from_slice(&packet)
                    }));
                }
                self.entries.insert(ip, known);
            }
            None if how.create => {
                self.make_room(now);
                self.entries.insert(ip, known);
            }
            None => {}
        }
    }

    /// When [`Neighbours::tick`] has something to do.
    pub fn next(&self) -> Option<u64> {
        self.entries.values().filter_map(Entry::next).min()
    }

    /// Asks again, gives up.
    pub fn tick(&mut self, now: u64, out: &mut Vec<Box<[u8]>>) {
        let due: Vec<Ipv4Addr> = self
            .entries
            .iter()
            .filter(|(_, e)| e.next().is_some_and(|n| n <= now))
            .map(|(ip, _)| *ip)
            .collect();
        for ip in due {
            let (ask, give_up) = match self.entries.get_mut(&ip) {
                Some(Entry::Asking { tries, next, .. }) if *tries < TRIES => {
                    (*tries, *next) = (*tries + 1, now + RETRY);
                    (Some(None), false)
                }
                Some(Entry::Known { mac, check, .. }) => match *check {
                    Check::Asking { tries, .. } if tries >= TRIES => (None, true),
                    Check::Asking { tries, .. } => {
                        *check = Check::Asking {
                            tries: tries + 1,
                            next: now + RETRY,
                        };
                        (Some(Some(*mac)), false)
                    }
                    _ => {
                        *check = Check::Asking {
                            tries: 1,
                            next: now + RETRY,
                        };
                        (Some(Some(*mac)), false)
                    }
                },
                _ => (None, true),
            };
            if let Some(to) = ask {
                out.push(self.request(ip, to));
            }
            if give_up {
                self.entries.remove(&ip);
                self.failed.push(ip);
            }
        }
    }

    /// Addresses that turned out to be unreachable since the last call.
    pub fn take_failed(&mut self) -> Vec<Ipv4Addr> {
        std::mem::take(&mut self.failed)
    }

    /// Whether an address was asked for and has not answered yet.
    pub fn asking(&self, ip: Ipv4Addr) -> bool {
        matches!(self.entries.get(&ip), Some(Entry::Asking { .. }))
    }

    /// An ARP probe (RFC 5227): asks who has `ip` without saying who asks.
    pub fn probe(&self, ip: Ipv4Addr) -> Box<[u8]> {
        self.packet(
            ArpOperation::Request,
            Mac([0xff; 6]),
            Ipv4Addr::UNSPECIFIED,
            Mac([0; 6]),
            ip,
        )
    }

    /// A gratuitous ARP: says that `ip` is here.
    pub fn announce(&self, ip: Ipv4Addr) -> Box<[u8]> {
        self.packet(ArpOperation::Request, Mac([0xff; 6]), ip, Mac([0; 6]), ip)
    }

    /// Answers for an address that is not ours, or stops doing so.
    pub fn claim(&mut self, ip: Ipv4Addr, on: bool) {
        if on {
            self.claimed.insert(ip);
        } else {
            self.claimed.remove(&ip);
        }
    }

    fn request(&self, ip: Ipv4Addr, to: Option<Mac>) -> Box<[u8]> {
        self.packet(
            ArpOperation::Request,
            to.unwrap_or(Mac([0xff; 6])),
            self.local_address,
            Mac([0; 6]),
            ip,
        )
    }

    fn reply(&self, for_ip: Ipv4Addr, to: Mac, to_ip: Ipv4Addr) -> Box<[u8]> {
        self.packet(ArpOperation::Reply, to, for_ip, to, to_ip)
    }

    fn packet(
        &self,
        operation: ArpOperation,
        dst: Mac,
        sender: Ipv4Addr,
        target_mac: Mac,
        target: Ipv4Addr,
    ) -> Box<[u8]> {
        let arp = ArpRepr::EthernetIpv4 {
            operation,
            source_hardware_addr: EthernetAddress(self.mac.0),
            source_protocol_addr: sender,
            target_hardware_addr: EthernetAddress(target_mac.0),
            target_protocol_addr: target,
        };
        ethernet(dst, self.mac, EthernetProtocol::Arp, arp.buffer_len(), |p| {
            arp.emit(&mut ArpPacket::new_unchecked(p))
        })
    }

    /// Forgets the entry that was confirmed longest ago where the table is full.
    fn make_room(&mut self, now: u64) {
        if self.entries.len() < ENTRIES {
            return;
        }
        let age = |e: &Entry| match e {
            Entry::Asking { .. } => 0,
            Entry::Known { confirmed, .. } => now.saturating_sub(*confirmed) + 1,
        };
        if let Some(ip) = self.entries.iter().max_by_key(|(_, e)| age(e)).map(|(ip, _)| *ip) {
            self.entries.remove(&ip);
        }
    }
}

struct Learned {
    gratuitous: bool,
    answer: bool,
    create: bool,
}

impl Entry {
    fn next(&self) -> Option<u64> {
        match self {
            Entry::Asking { next, .. } => Some(*next),
            Entry::Known {
                check: Check::Delay { until },
                ..
            } => Some(*until),
            Entry::Known {
                check: Check::Asking { next, .. },
                ..
            } => Some(*next),
            Entry::Known { check: Check::None, .. } => None,
        }
    }
}

fn ethernet(dst: Mac, src: Mac, ethertype: EthernetProtocol, len: usize, fill: impl FnOnce(&mut [u8])) -> Box<[u8]> {
    let repr = EthernetRepr {
        src_addr: EthernetAddress(src.0),
        dst_addr: EthernetAddress(dst.0),
        ethertype,
    };
    let mut bytes = vec![0; repr.buffer_len() + len].into_boxed_slice();
    let mut frame = EthernetFrame::new_unchecked(&mut bytes);
    repr.emit(&mut frame);
    fill(frame.payload_mut());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OWN: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
    const IP: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 21);
    const US: Mac = Mac([0x52, 0x54, 0, 0xfe, 0, 0]);
    const A: Mac = Mac([2, 0, 0, 0, 0, 0xa]);
    const B: Mac = Mac([2, 0, 0, 0, 0, 0xb]);

    fn packet() -> Vec<u8> {
        let mut p = vec![0x45; 40];
        p[16..20].copy_from_slice(&IP.octets());
        p
    }

    fn dst(frame: &[u8]) -> Mac {
        Mac(frame[..6].try_into().unwrap())
    }

    fn send(n: &mut Neighbours, now: u64) -> Vec<Box<[u8]>> {
        let mut out = Vec::new();
        n.outgoing(&packet(), now, &mut out);
        out
    }

    fn hear(n: &mut Neighbours, frame: &[u8], now: u64) -> Vec<Box<[u8]>> {
        let mut out = Vec::new();
        n.arp(frame, now, &mut out);
        out
    }

    fn tick(n: &mut Neighbours, now: u64) -> Vec<Box<[u8]>> {
        let mut out = Vec::new();
        n.tick(now, &mut out);
        out
    }

    /// Knows IP at A since time 0.
    fn known() -> Neighbours {
        let mut n = Neighbours::new(OWN, US);
        assert_eq!(dst(&send(&mut n, 0)[0]), Mac([0xff; 6]));
        let answer = Neighbours::new(IP, A).reply(IP, US, OWN);
        let flushed = hear(&mut n, &answer, 0);
        assert_eq!((flushed.len(), dst(&flushed[0])), (1, A), "the packet that waited");
        n
    }

    #[test]
    fn a_gratuitous_arp_moves_the_next_packet() {
        let mut n = known();
        for (from, way) in [(B, "request"), (A, "reply")] {
            let owner = Neighbours::new(IP, from);
            let g = if way == "request" {
                owner.announce(IP)
            } else {
                owner.packet(ArpOperation::Reply, Mac([0xff; 6]), IP, from, IP)
            };
            assert!(hear(&mut n, &g, 1).is_empty());
            assert_eq!(dst(&send(&mut n, 2)[0]), from, "{way}");
        }
    }

    #[test]
    fn a_gratuitous_arp_of_an_unknown_host_makes_no_entry() {
        let mut n = Neighbours::new(OWN, US);
        assert!(hear(&mut n, &Neighbours::new(IP, A).announce(IP), 0).is_empty());
        assert!(n.entries.is_empty());
    }

    #[test]
    fn three_questions_and_it_is_unreachable() {
        let mut n = Neighbours::new(OWN, US);
        assert_eq!(send(&mut n, 0).len(), 1);
        assert!(send(&mut n, 1).is_empty(), "waits");
        assert!(n.asking(IP));
        assert_eq!(tick(&mut n, SECOND).len(), 1);
        assert!(tick(&mut n, SECOND + 1).is_empty());
        assert_eq!(tick(&mut n, 2 * SECOND).len(), 1);
        assert!(tick(&mut n, 3 * SECOND).is_empty());
        assert_eq!((n.take_failed(), n.next()), (vec![IP], None));
        assert_eq!(send(&mut n, 4 * SECOND).len(), 1, "and is asked for afresh");
    }

    #[test]
    fn a_silent_neighbour_is_asked_about_and_given_up() {
        let mut n = known();
        assert_eq!(dst(&send(&mut n, REACHABLE)[0]), A);
        assert_eq!(n.next(), None);
        assert_eq!(dst(&send(&mut n, REACHABLE + 1)[0]), A);
        let at = REACHABLE + 1 + DELAY;
        assert_eq!(n.next(), Some(at));
        for i in 0..u64::from(TRIES) {
            let q = tick(&mut n, at + i * RETRY);
            assert_eq!(dst(&q[0]), A, "unicast");
        }
        assert!(tick(&mut n, at + u64::from(TRIES) * RETRY).is_empty());
        assert_eq!(n.take_failed(), [IP]);
        // A sign of life ends it.
        let mut n = known();
        send(&mut n, REACHABLE + 1);
        n.heard(IP, B.0, REACHABLE + 2);
        assert!(n.next().is_some(), "from somewhere else: no sign");
        n.heard(IP, A.0, REACHABLE + 2);
        assert_eq!(n.next(), None);
    }

    #[test]
    fn we_answer_for_ourselves_and_for_what_we_claim() {
        let mut n = Neighbours::new(OWN, US);
        let asker = Neighbours::new(IP, A);
        assert_eq!(dst(&hear(&mut n, &asker.request(OWN, None), 0)[0]), A);
        assert_eq!(dst(&send(&mut n, 1)[0]), A, "who asks us is known");
        let taken = Ipv4Addr::new(10, 77, 1, 99);
        assert!(hear(&mut n, &asker.request(taken, None), 0).is_empty());
        n.claim(taken, true);
        let lie = hear(&mut n, &asker.probe(taken), 0);
        assert_eq!((dst(&lie[0]), &lie[0][28..32]), (A, &taken.octets()[..]));
        n.claim(taken, false);
        assert!(hear(&mut n, &asker.request(taken, None), 0).is_empty());
    }

    #[test]
    fn a_scan_does_not_grow_the_table() {
        let mut n = Neighbours::new(OWN, US);
        for i in 0..5000u32 {
            let mut p = packet();
            p[16..20].copy_from_slice(&(0x0a00_0000 + i).to_be_bytes());
            n.outgoing(&p, 0, &mut Vec::new());
        }
        assert_eq!(n.entries.len(), ENTRIES);
    }

    proptest! {
        #[test]
        fn any_frame_is_survived(frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..60), 0..20)) {
            let mut n = known();
            for (i, mut f) in frames.into_iter().enumerate() {
                hear(&mut n, &f, i as u64);
                if f.len() >= 22 {
                    f[12..22].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1 + (i % 2) as u8]);
                    hear(&mut n, &f, i as u64);
                }
                n.outgoing(&f, i as u64, &mut Vec::new());
                tick(&mut n, i as u64 * SECOND);
            }
        }
    }
}
