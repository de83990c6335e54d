//! Acknowledgements that the peer will look at. Pure.
//!
//! When its retransmission timer fires, smoltcp 0.14 takes back the number of the next byte to send, and puts that
//! number into its bare acknowledgements. To a peer that has those bytes already such a segment lies before its window: it
//! must drop it, acknowledgement and all (RFC 9293, 3.10.7.4). Two ends that both lost a segment then never hear of
//! each other's progress again. A bare acknowledgement carries SND.NXT: the end of all that was ever sent.

use smoltcp::wire::{IpProtocol, Ipv4Packet, TcpPacket, TcpSeqNumber};
use std::collections::HashMap;

/// The end of what each local port has sent; there are at most as many as ports, and a new connection begins anew.
#[derive(Debug, Default)]
pub struct Acks(HashMap<u16, TcpSeqNumber>);

impl Acks {
    /// Looks at an IP packet that leaves, and mends a bare acknowledgement.
    pub fn mend(&mut self, packet: &mut [u8]) {
        let Ok(mut ip) = Ipv4Packet::new_checked(packet) else {
            return;
        };
        if ip.next_header() != IpProtocol::Tcp {
            return;
        }
        let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
        let Ok(mut tcp) = TcpPacket::new_checked(ip.payload_mut()) else {
            return;
        };
        // A reset's number is the one that its receiver expects.
        if tcp.rst() {
            return;
        }
        let (seq, len) = (tcp.seq_number(), tcp.segment_len());
        let end = self.0.entry(tcp.src_port()).or_insert(seq + len);
        if tcp.syn() || seq + len > *end {
            *end = seq + len;
        } else if len == 0 && seq != *end {
            tcp.set_seq_number(*end);
            tcp.fill_checksum(&from, &to);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::frame::{ETHERNET, tests::ip_frame};
    use proptest::prelude::*;

    #[derive(Clone, Copy, Default)]
    struct Flags {
        syn: bool,
        rst: bool,
    }

    /// The number with which a segment of `data` bytes and number `seq` leaves.
    fn leaves(acks: &mut Acks, seq: i32, data: usize, flags: Flags) -> i32 {
        let frame = ip_frame([2; 6], [4; 6], IpProtocol::Tcp, (50_000, 25), &vec![7; data]);
        let mut packet = frame[ETHERNET..].to_vec();
        let mut ip = Ipv4Packet::new_unchecked(&mut packet[..]);
        let (from, to) = (ip.src_addr().into(), ip.dst_addr().into());
        let mut tcp = TcpPacket::new_unchecked(ip.payload_mut());
        tcp.set_seq_number(TcpSeqNumber(seq));
        tcp.set_syn(flags.syn);
        tcp.set_rst(flags.rst);
        tcp.set_ack(!flags.syn);
        tcp.fill_checksum(&from, &to);
        acks.mend(&mut packet);
        let ip = Ipv4Packet::new_checked(&packet[..]).unwrap();
        let tcp = TcpPacket::new_checked(ip.payload()).unwrap();
        assert!(tcp.verify_checksum(&from, &to));
        tcp.seq_number().0
    }

    #[test]
    fn a_bare_acknowledgement_carries_the_end_of_what_was_sent() {
        let (mut a, none) = (Acks::default(), Flags::default());
        let syn = Flags { syn: true, ..none };
        let start = i32::MAX - 500;
        let nth = |n: i32| start.wrapping_add(n);
        assert_eq!(leaves(&mut a, start, 0, syn), start);
        assert_eq!(leaves(&mut a, nth(1), 0, none), nth(1));
        for n in [1, 401, 801] {
            assert_eq!(leaves(&mut a, nth(n), 400, none), nth(n));
        }
        // The timer fired: data is sent again from its first byte, an acknowledgement is not.
        assert_eq!(leaves(&mut a, nth(1), 400, none), nth(1));
        assert_eq!(leaves(&mut a, nth(401), 0, none), nth(1201));
        let rst = Flags { rst: true, ..none };
        assert_eq!(leaves(&mut a, nth(401), 0, rst), nth(401));
        // The port's next connection.
        assert_eq!(leaves(&mut a, 7, 0, syn), 7);
        assert_eq!(leaves(&mut a, 8, 0, none), 8);
    }

    proptest! {
        #[test]
        fn any_packet_is_survived(mut packet in proptest::collection::vec(any::<u8>(), 0..80)) {
            let mut a = Acks::default();
            a.mend(&mut packet);
            if packet.len() > 20 {
                let len = packet.len() as u16;
                packet[..4].copy_from_slice(&[0x45, 0, (len >> 8) as u8, len as u8]);
                packet[9] = 6;
                a.mend(&mut packet);
            }
        }
    }
}
