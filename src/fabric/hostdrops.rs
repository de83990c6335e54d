//! What the host's kernel dropped in UDP sockets on loopback: the losses that no counter of ours sees.

use std::collections::HashMap;

/// Drops of every UDP socket of this host by local port, as `/proc/net/udp` has them.
pub fn read() -> HashMap<u16, u64> {
    std::fs::read_to_string("/proc/net/udp")
        .map(|t| parse(&t))
        .unwrap_or_default()
}

/// Port → drops from the table's text; lines that are none are passed over.
fn parse(text: &str) -> HashMap<u16, u64> {
    let mut drops = HashMap::new();
    for line in text.lines().skip(1) {
        let mut fields = line.split_whitespace();
        let local = fields
            .nth(1)
            .and_then(|a| a.rsplit_once(':'))
            .and_then(|(_, p)| u16::from_str_radix(p, 16).ok());
        let count = fields.next_back().and_then(|d| d.parse::<u64>().ok());
        if let (Some(port), Some(count)) = (local, count) {
            *drops.entry(port).or_default() += count;
        }
    }
    drops
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_read_and_garbage_is_not() {
        let text = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n \
                    120: 0100007F:4E20 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000        0 12 2 0000 17\n\
                    garbage\n 1: zz:yy\n";
        assert_eq!(parse(text), HashMap::from([(20000, 17)]));
        assert!(parse("").is_empty());
    }

    #[test]
    fn a_full_socket_shows_up() {
        let full = crate::fabric::transport::free_udp().unwrap();
        let at = full.local_addr().unwrap();
        let from = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        for _ in 0..4000 {
            from.send_to(&[0; 1400], at).unwrap();
        }
        assert!(read()[&at.port()] > 0);
    }
}
