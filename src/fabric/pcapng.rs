//! The pcapng format (draft-ietf-opsawg-pcapng): as much of it as a capture of Ethernet ports needs. Pure.

/// Longest comment; block lengths stay small.
const COMMENT_MAX: usize = 1024;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const ETHERNET: u16 = 1;

const OPT_END: u16 = 0;
const OPT_COMMENT: u16 = 1;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_DESCRIPTION: u16 = 3;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

/// Appends the head of a file: a section and its interfaces (name, description). Times are nanoseconds.
pub fn head(out: &mut Vec<u8>, interfaces: &[(String, String)], snap: u32) {
    block(out, SECTION, |b| {
        b.extend(0x1a2b_3c4d_u32.to_le_bytes());
        b.extend([1, 0, 0, 0]);
        b.extend(u64::MAX.to_le_bytes());
        option(b, SHB_USERAPPL, crate::TOOL.as_bytes());
        option(b, OPT_END, &[]);
    });
    for (name, description) in interfaces {
        block(out, INTERFACE, |b| {
            b.extend(ETHERNET.to_le_bytes());
            b.extend([0, 0]);
            b.extend(snap.to_le_bytes());
            option(b, IF_NAME, name.as_bytes());
            option(b, IF_DESCRIPTION, description.as_bytes());
            option(b, IF_TSRESOL, &[9]);
            option(b, OPT_END, &[]);
        });
    }
}

/// One frame at an interface.
#[derive(Debug, Clone, Copy)]
pub struct Packet<'a> {
    /// Index of the interface in the head.
    pub interface: u32,
    /// Nanoseconds since 1970.
    pub time: u64,
    /// From the machine, else to it.
    pub inbound: bool,
    /// The frame, whole.
    pub bytes: &'a [u8],
    /// How much of it is kept.
    pub snap: usize,
    /// A remark on it.
    pub comment: Option<&'a str>,
}

/// Appends a frame.
pub fn packet(out: &mut Vec<u8>, p: &Packet<'_>) {
    let kept = &p.bytes[..p.bytes.len().min(p.snap)];
    block(out, ENHANCED_PACKET, |b| {
        b.extend(p.interface.to_le_bytes());
        b.extend(((p.time >> 32) as u32).to_le_bytes());
        b.extend((p.time as u32).to_le_bytes());
        b.extend((kept.len() as u32).to_le_bytes());
        b.extend((p.bytes.len() as u32).to_le_bytes());
        padded(b, kept);
        option(b, EPB_FLAGS, &(if p.inbound { 1u32 } else { 2 }).to_le_bytes());
        if let Some(c) = p.comment {
            let end = (0..=c.len().min(COMMENT_MAX))
                .rev()
                .find(|i| c.is_char_boundary(*i))
                .unwrap_or(0);
            option(b, OPT_COMMENT, &c.as_bytes()[..end]);
        }
        option(b, OPT_END, &[]);
    });
}

fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let begin = out.len();
    out.extend(kind.to_le_bytes());
    out.extend([0; 4]);
    body(out);
    let len = (out.len() - begin + 4) as u32;
    out[begin + 4..begin + 8].copy_from_slice(&len.to_le_bytes());
    out.extend(len.to_le_bytes());
}

fn option(out: &mut Vec<u8>, code: u16, value: &[u8]) {
    out.extend(code.to_le_bytes());
    out.extend((value.len() as u16).to_le_bytes());
    padded(out, value);
}

fn padded(out: &mut Vec<u8>, value: &[u8]) {
    out.extend(value);
    out.resize(out.len() + value.len().next_multiple_of(4) - value.len(), 0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn blocks_follow_one_another(
            frames in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 0..300), "\\PC{0,40}", 0usize..300), 0..10),
        ) {
            let mut out = Vec::new();
            head(&mut out, &[("a".into(), "é".into())], 100);
            for (bytes, comment, snap) in &frames {
                packet(&mut out, &Packet { interface: 0, time: 1 << 40, inbound: true, bytes, snap: *snap, comment: Some(comment) });
            }
            let (mut at, mut blocks) = (0, 0);
            while at < out.len() {
                let len = u32::from_le_bytes(out[at + 4..at + 8].try_into().unwrap()) as usize;
                prop_assert!(len.is_multiple_of(4) && len >= 12);
                prop_assert_eq!(&out[at + 4..at + 8], &out[at + len - 4..at + len]);
                at += len;
                blocks += 1;
            }
            prop_assert_eq!((at, blocks), (out.len(), 2 + frames.len()));
        }
    }
}
