//! Which address is behind which port: learned from senders, forgotten with age. Pure.

use std::collections::HashMap;

/// An address is forgotten when its owner was silent for so long (802.1D's default).
pub const AGEING_NS: u64 = 300_000_000_000;
/// Most addresses that one port may teach: a flood of made-up senders cannot grow the table.
pub const PER_PORT: usize = 256;

type Key = (u16, [u8; 6]);

/// The learned addresses of one network, each VLAN by itself.
#[derive(Debug, Default)]
pub struct MacTable {
    entries: HashMap<Key, Entry>,
    taught: HashMap<usize, usize>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    port: usize,
    seen: u64,
}

impl MacTable {
    /// `mac` was seen as sender on `port`. A port that taught its share teaches no more until old entries age.
    pub fn learn(&mut self, vlan: u16, mac: [u8; 6], port: usize, now: u64) {
        let key = (vlan, mac);
        if let Some(e) = self.entries.get_mut(&key) {
            e.seen = now;
            if e.port != port {
                let old = std::mem::replace(&mut e.port, port);
                self.forgot(old);
                *self.taught.entry(port).or_default() += 1;
            }
            return;
        }
        if self.taught.get(&port).is_some_and(|n| *n >= PER_PORT) {
            self.expire(now);
            if self.taught.get(&port).is_some_and(|n| *n >= PER_PORT) {
                return;
            }
        }
        self.entries.insert(key, Entry { port, seen: now });
        *self.taught.entry(port).or_default() += 1;
    }

    /// The port behind which `mac` is, if it was heard lately.
    pub fn lookup(&self, vlan: u16, mac: [u8; 6], now: u64) -> Option<usize> {
        let e = self.entries.get(&(vlan, mac))?;
        (now.saturating_sub(e.seen) < AGEING_NS).then_some(e.port)
    }

    /// How many addresses are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was learned.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn expire(&mut self, now: u64) {
        let taught = &mut self.taught;
        self.entries.retain(|_, e| {
            let keep = now.saturating_sub(e.seen) < AGEING_NS;
            if !keep && let Some(n) = taught.get_mut(&e.port) {
                *n -= 1;
            }
            keep
        });
    }

    fn forgot(&mut self, port: usize) {
        if let Some(n) = self.taught.get_mut(&port) {
            *n -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_address_moves_at_once_and_is_forgotten_with_age() {
        let mut t = MacTable::default();
        t.learn(0, [2; 6], 1, 0);
        assert_eq!(t.lookup(0, [2; 6], 1), Some(1));
        t.learn(0, [2; 6], 2, 5);
        assert_eq!(t.lookup(0, [2; 6], 5), Some(2));
        assert_eq!(t.lookup(7, [2; 6], 5), None, "another VLAN");
        assert_eq!(t.lookup(0, [2; 6], 5 + AGEING_NS), None);
    }

    #[test]
    fn a_flood_of_senders_on_one_port_leaves_room_for_the_others() {
        let mut t = MacTable::default();
        for n in 0..100_000u32 {
            let [a, b, c, d] = n.to_be_bytes();
            t.learn(0, [2, 0, a, b, c, d], 0, u64::from(n));
        }
        assert_eq!(t.len(), PER_PORT);
        t.learn(0, [6; 6], 1, 100_000);
        assert_eq!(t.lookup(0, [6; 6], 100_000), Some(1));
        t.learn(0, [8; 6], 0, AGEING_NS + 100_001);
        assert_eq!(
            t.lookup(0, [8; 6], AGEING_NS + 100_001),
            Some(0),
            "old entries make room"
        );
    }

    proptest! {
        #[test]
        fn the_books_of_each_port_are_right(moves in proptest::collection::vec((0u8..12, 0usize..4, 0u64..2), 0..200)) {
            let mut t = MacTable::default();
            let mut now = 0;
            let mut last = HashMap::new();
            for (mac, port, age) in moves {
                now += age * AGEING_NS / 3;
                t.learn(0, [mac * 2; 6], port, now);
                last.insert(mac, (port, now));
            }
            for (mac, (port, seen)) in last {
                let want = (now - seen < AGEING_NS).then_some(port);
                prop_assert_eq!(t.lookup(0, [mac * 2; 6], now), want);
            }
            prop_assert_eq!(t.taught.values().sum::<usize>(), t.len());
        }
    }
}
