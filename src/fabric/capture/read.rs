//! A strict reader of our captures, for tests: any other block, size or option than the writer's is a panic.

/// A frame as it stands in a capture.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub interface: String,
    pub inbound: bool,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// Length on the wire.
    pub len: usize,
    /// As much of it as was kept.
    pub bytes: Vec<u8>,
    pub comment: String,
}

impl Record {
    /// Interface, direction, lengths and comment, as tshark prints them.
    pub fn line(&self) -> String {
        let direction = if self.inbound { 1 } else { 2 };
        format!(
            "{}|{direction:#010x}|{}|{}|{}",
            self.interface,
            self.len,
            self.bytes.len(),
            self.comment
        )
    }
}

fn u16_at(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(b[at..at + 2].try_into().unwrap())
}

fn u32_at(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(b[at..at + 4].try_into().unwrap())
}

/// Code and value of each option; the list must end where the block does.
fn options(mut b: &[u8]) -> Vec<(u16, &[u8])> {
    let mut all = Vec::new();
    loop {
        let (code, len) = (u16_at(b, 0), usize::from(u16_at(b, 2)));
        if code == 0 {
            assert_eq!((len, b.len()), (0, 4));
            return all;
        }
        all.push((code, &b[4..4 + len]));
        b = &b[4 + len.next_multiple_of(4)..];
    }
}

/// Every frame of whole blocks, in order; half a block at the end is one that is still being written.
pub fn records(mut file: &[u8]) -> Vec<Record> {
    let text = |b: &[u8]| std::str::from_utf8(b).unwrap().to_owned();
    let mut interfaces = Vec::new();
    let mut records = Vec::new();
    while file.len() >= 12 && file.len() >= u32_at(file, 4) as usize {
        let (kind, len) = (u32_at(file, 0), u32_at(file, 4) as usize);
        assert!(len.is_multiple_of(4) && len >= 12 && u32_at(file, len - 4) as usize == len);
        let body = &file[8..len - 4];
        match kind {
            0x0a0d_0d0a => {
                assert_eq!(u32_at(body, 0), 0x1a2b_3c4d);
                interfaces.clear();
            }
            1 => {
                let all = options(&body[8..]);
                let of = |code| all.iter().find(|(c, _)| *c == code).unwrap().1;
                assert_eq!((u16_at(body, 0), of(9)), (1, &[9][..]), "Ethernet, nanoseconds");
                interfaces.push(text(of(2)));
            }
            6 => {
                let kept = u32_at(body, 12) as usize;
                let all = options(&body[20 + kept.next_multiple_of(4)..]);
                let of = |code| all.iter().find(|(c, _)| *c == code).map(|o| o.1);
                records.push(Record {
                    interface: interfaces[u32_at(body, 0) as usize].clone(),
                    inbound: of(2).unwrap()[0] == 1,
                    time: u64::from(u32_at(body, 4)) << 32 | u64::from(u32_at(body, 8)),
                    len: u32_at(body, 16) as usize,
                    bytes: body[20..20 + kept].to_vec(),
                    comment: of(1).map(text).unwrap_or_default(),
                });
            }
            other => panic!("block {other:#x}"),
        }
        file = &file[len..];
    }
    records
}
