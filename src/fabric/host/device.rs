//! The network interface of the workstation's TCP/IP stack: IP packets on one side, Ethernet frames on the other.

use super::acks::Acks;
use super::neighbours::Neighbours;
use crate::fabric::frame;
use crate::fabric::inside::Inside;
use crate::spec::Mac;
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use std::collections::VecDeque;
use std::net::Ipv4Addr;

/// Frames taken from the cable in one go.
const BURST: usize = 256;

/// The interface, with its end of the cable.
#[derive(Debug)]
pub struct Nic {
    /// Its end of the cable.
    pub cable: Inside,
    /// Its ARP.
    pub neighbours: Neighbours,
    acks: Acks,
    mac: Mac,
    mtu: usize,
    rx: VecDeque<Box<[u8]>>,
    tx: Vec<Vec<u8>>,
    frames: Vec<Box<[u8]>>,
}

impl Nic {
    /// An interface at `address`.
    pub fn new(cable: Inside, address: Ipv4Addr, mac: Mac, mtu: u16) -> Self {
        Self {
            cable,
            neighbours: Neighbours::new(address, mac),
            acks: Acks::default(),
            mac,
            mtu: usize::from(mtu),
            rx: VecDeque::new(),
            tx: Vec::new(),
            frames: Vec::new(),
        }
    }

    /// Takes frames from the cable. ARP senders are told to `arp`.
    pub fn take_in(&mut self, now: u64, mut arp: impl FnMut(Ipv4Addr, Mac)) {
        let Self {
            cable,
            neighbours,
            mac,
            rx,
            frames,
            ..
        } = self;
        cable.pop(BURST, |f| {
            let s = frame::summary(f);
            // A flood of frames for other hosts teaches nothing.
            if f.len() < frame::ETHERNET || s.vlan != 0 || (f[..6] != mac.0 && f[0] & 1 == 0) {
                return;
            }
            if s.ethertype == frame::ARP {
                if let Some((ip, from)) = neighbours.arp(f, now, frames) {
                    arp(ip, from);
                }
            } else if s.ethertype == frame::IPV4 && f[..6] == mac.0 {
                if let (Some((from, _)), Ok(at)) = (s.addresses, f[6..12].try_into()) {
                    neighbours.heard(from, at, now);
                }
                rx.push_back(f[s.payload..].into());
            }
        });
    }

    /// Puts on the cable what the stack and ARP have to say. What the cable does not take is lost, as on a wire.
    pub fn put_out(&mut self, now: u64) {
        for mut packet in self.tx.drain(..) {
            self.acks.mend(&mut packet);
            self.neighbours.outgoing(&packet, now, &mut self.frames);
        }
        self.neighbours.tick(now, &mut self.frames);
        for f in self.frames.drain(..) {
            self.cable.push(&f);
        }
    }
}

/// A packet for the stack.
#[derive(Debug)]
pub struct Rx(Box<[u8]>);
/// Room for a packet of the stack.
#[derive(Debug)]
pub struct Tx<'a>(&'a mut Vec<Vec<u8>>);

impl phy::RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut packet = vec![0; len];
        let r = f(&mut packet);
        self.0.push(packet);
        r
    }
}

impl phy::Device for Nic {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;
    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        self.rx.pop_front().map(|p| (Rx(p), Tx(&mut self.tx)))
    }
    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.tx))
    }
    fn capabilities(&self) -> DeviceCapabilities {
        let mut caps = DeviceCapabilities::default();
        caps.medium = Medium::Ip;
        caps.max_transmission_unit = self.mtu;
        caps
    }
}
