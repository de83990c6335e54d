//! Whatever comes from outside is decoded without a panic, without more memory than the input is long, and with a clear
//! error. A corpus of what nodes really write, damaged in many ways: 20,000 inputs for each decoder in every run, more
//! through `FAILOVERLAB_FUZZ`.

use ccr_contract::status::{CopyStatus, Intent, ServiceState};
use ccr_core::chain::{ChainLink, Stream};
use ccr_core::command::Command;
use ccr_core::record::{EpochOwner, PersistentState, Record, RecordId};
use ccr_core::rng::Rng;
use ccr_core::store::index::Index;
use ccr_core::store::log::{self, FileKind, Header, Label};
use ccr_core::store::{Checkpoint, SourceState};
use ccr_core::transport::Head;
use ccr_core::wire::{self, Echo, GroupView, Heartbeat, Msg, Phase, WitnessFile};

fn inputs() -> u64 {
    std::env::var("FAILOVERLAB_FUZZ")
        .ok()
        .map_or(20_000, |n| n.parse().expect("FAILOVERLAB_FUZZ is a number"))
}

/// A number below `n`, and 0 where there is none.
fn below(rng: &mut Rng, n: usize) -> usize {
    (rng.bits() % n.max(1) as u64) as usize
}

/// Damages a sample in up to six places.
fn damage(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut b = corpus[below(rng, corpus.len())].clone();
    for _ in 0..below(rng, 7) {
        let at = below(rng, b.len());
        match below(rng, 9) {
            0 => b.truncate(at),
            1 if !b.is_empty() => b[at] ^= 1 << below(rng, 8),
            2 if !b.is_empty() => b[at] = rng.bits() as u8,
            3 => b.insert(at, rng.bits() as u8),
            // A length that promises far more, or less, than there is.
            4 if b.len() >= at + 4 => {
                let n = [0, 1, 0x7fff_ffff, u32::MAX, 1 << 20][below(rng, 5)];
                b[at..at + 4].copy_from_slice(&if below(rng, 2) == 0 {
                    n.to_le_bytes()
                } else {
                    n.to_be_bytes()
                });
            }
            5 => {
                let other = &corpus[below(rng, corpus.len())];
                let from = below(rng, other.len());
                b.truncate(at);
                b.extend_from_slice(&other[from..]);
            }
            6 => {
                let part = b[at..(at + below(rng, 40)).min(b.len())].to_vec();
                let to = below(rng, b.len());
                b.splice(to..to, part);
            }
            7 => {
                let n = b"-9999999999999999999999".len().min(below(rng, 24));
                b.splice(at..at, b"-9999999999999999999999"[..n].iter().copied());
            }
            _ => b.extend(std::iter::repeat_n(
                [0, b'[', b'{', b'"', 0xff][below(rng, 5)],
                below(rng, 300),
            )),
        }
    }
    b
}

/// Feeds a decoder; it says how large what it understood is, or what the error says.
fn fuzz(corpus: &[Vec<u8>], decode: impl Fn(&[u8]) -> Result<usize, String>) {
    for sample in corpus {
        assert!(decode(sample).is_ok(), "the corpus itself: {:?}", decode(sample));
    }
    let (mut rng, mut understood) = (Rng::from_state(7), 0);
    for n in 0..inputs() {
        let input = damage(&mut rng, corpus);
        match decode(&input) {
            Ok(size) => {
                understood += 1;
                assert!(
                    size <= 8 * input.len() + 4096,
                    "input {n}: {size} bytes out of {}",
                    input.len()
                );
            }
            Err(why) => {
                let plain = !why.is_empty() && why.len() <= 1000 && !why.chars().any(char::is_control);
                assert!(plain, "input {n}: {why:?}");
            }
        }
    }
    assert!(understood > 0 && understood < inputs(), "{understood} of {}", inputs());
}

fn id() -> RecordId {
    RecordId {
        epoch: 7,
        tag: 12,
        by: "node1".into(),
    }
}

fn record() -> Record {
    let mut r = Record::fresh().claimed_by(&EpochOwner::new("node1", ["node1", "node2"].into_iter()), &id());
    r.settings.insert("heartbeat_ms".into(), "1500".into());
    r.witness = Some(r"\\hub\witness2".into());
    r
}

fn link(generation: u64) -> ChainLink {
    ChainLink {
        generation,
        epoch: 3,
        checksum: 0xdead_beef,
    }
}

fn heartbeat() -> Heartbeat {
    Heartbeat {
        cluster: "exmbcluster".into(),
        from: "node1".into(),
        incarnation: u64::MAX,
        seq: 9,
        phase: Phase::Up,
        hears: vec![true, false],
        echo: Some(Echo {
            incarnation: 5,
            seq: 8,
            grant: true,
        }),
        lease: true,
        fenced: true,
        member: Some(4),
        id: id(),
        committed: true,
        last_committed: id(),
        highest_epoch: 9,
        record: Some(record()),
        service: ServiceState::Online,
        service_epoch: 7,
        handed_over: false,
        given_up: false,
        redelivered: true,
        groups: vec![GroupView {
            generated: 5,
            inspected: 4,
            replayed: 3,
            status: CopyStatus::Healthy,
            mounted: true,
            open: Some(true),
            common: Some(3),
        }],
        probe: Some((800, true)),
    }
}

#[test]
fn heartbeats() {
    let bare = Heartbeat {
        record: None,
        echo: None,
        probe: None,
        groups: Vec::new(),
        ..heartbeat()
    };
    let corpus = [heartbeat(), bare].map(|h| wire::encode_heartbeat(&h));
    fuzz(&corpus, |b| {
        let h = wire::decode_heartbeat(b).map_err(|e| e.to_string())?;
        let again = wire::encode_heartbeat(&h);
        // What was understood is what is said again.
        if again.len() <= wire::MAX_DATAGRAM {
            assert_eq!(wire::decode_heartbeat(&again).as_ref(), Ok(&h));
        }
        Ok(again.len())
    });
}

#[test]
fn frames() {
    let stream = "00112233445566778899aabbccddeeff".to_owned();
    let msgs = [
        Msg::Hello {
            cluster: "c".into(),
            node: "node2".into(),
        },
        Msg::Source {
            group: 0,
            stream: stream.clone(),
            epoch: 3,
            verified: 2,
            oldest: 1,
            generated: 9,
        },
        Msg::Links {
            group: 0,
            from: 1,
            links: (1..40).map(link).collect(),
        },
        Msg::Part {
            group: 0,
            generation: 7,
            offset: 0,
            total: 300,
        },
        Msg::Offer {
            group: 1,
            stream,
            checkpoint: link(5),
        },
        Msg::Redeliver { epoch: 8 },
        Msg::Forward {
            id: 3,
            command: Command::Set {
                key: "dial".into(),
                value: "lossless".into(),
                force: true,
            },
        },
        Msg::Answer {
            id: 3,
            done: true,
            unchanged: true,
            text: "no".into(),
        },
    ];
    let corpus: Vec<Vec<u8>> = msgs.iter().map(|m| wire::encode_frame(m, &[7; 300])).collect();
    fuzz(&corpus, |b| {
        let (msg, body) = wire::decode_frame(b).map_err(|e| e.to_string())?;
        let again = wire::encode_frame(&msg, body);
        assert_eq!(wire::decode_frame(&again), Ok((msg, body)));
        Ok(again.len())
    });
}

#[test]
fn witness_files() {
    let file = |held, forced| WitnessFile {
        cluster: "exmbcluster".into(),
        id: id(),
        writer: "node1".into(),
        held,
        forced,
        beat: 4711,
        intent: Intent::Started,
    };
    let corpus = [file(true, false), file(false, true)].map(|f| wire::encode_witness(&f));
    fuzz(&corpus, |b| {
        let file = wire::decode_witness(b).map_err(|e| e.to_string())?;
        Ok(file.map_or(0, |f| wire::encode_witness(&f).len()))
    });
}

fn a_log(kind: FileKind, closed: bool) -> Vec<u8> {
    let header = Header {
        kind,
        stream: Stream([7; 16]),
        generation: 3,
        epoch: 2,
        previous: 0xdead_beef,
    };
    let mut b = header.encode().to_vec();
    for seq in 1..8 {
        let label = Label {
            seq,
            mailbox: "ann".into(),
            hub_id: if seq % 2 == 0 {
                format!("hub-{seq}")
            } else {
                String::new()
            },
            key: format!("k{seq}@x"),
        };
        match seq {
            4 => log::put_delete(&mut b, &label),
            5 => log::put_tombstone(&mut b, &label),
            6 => log::put_part(&mut b, 7, 0, b"a piece"),
            7 => log::put_whole(&mut b, &label, crc32c::crc32c(b"a piece"), 7),
            _ => log::put_message(&mut b, &label, &vec![b'x'; 40 * seq as usize]),
        }
    }
    if closed {
        let sum = crc32c::crc32c(&b);
        log::put_end(&mut b, sum);
    }
    b
}

/// Makes the checksums right again, so that what is behind them is reached.
fn mend(b: &mut [u8]) {
    if b.len() < log::HEADER {
        return;
    }
    b[12..16].fill(0);
    let crc = crc32c::crc32c(&b[..log::HEADER]);
    b[12..16].copy_from_slice(&crc.to_le_bytes());
    let mut at = log::HEADER;
    while let Some(head) = b.get(at..at + log::FRAME) {
        let len = u32::from_le_bytes(head[..4].try_into().expect("4 bytes")) as usize;
        let Some(payload) = b.get(at + log::FRAME..at.saturating_add(log::FRAME).saturating_add(len)) else {
            return;
        };
        let crc = crc32c::crc32c_append(crc32c::crc32c(&[head[8]]), payload);
        b[at + 4..at + 8].copy_from_slice(&crc.to_le_bytes());
        at += log::FRAME + len;
    }
}

#[test]
fn logs_and_segments() {
    let mut full = a_log(FileKind::Log, true);
    full.resize(4096, 0);
    let corpus = [
        full,
        a_log(FileKind::Log, true),
        a_log(FileKind::Log, false),
        a_log(FileKind::Segment, true),
    ];
    let understand = |b: &[u8]| {
        // Neither of these may panic, whatever the others say.
        let (_, _) = (log::inspect(b, 4096).is_ok(), log::segment(b).is_ok());
        let scan = log::scan(b).map_err(|e| e.to_string())?;
        assert!(scan.used <= b.len() && scan.used >= log::HEADER);
        for r in &scan.records {
            if let log::Record::Message { at, len, .. } | log::Record::Part { at, len, .. } = r {
                assert!(at + len <= scan.used as u64);
            }
        }
        let mut index = Index::default();
        index.apply(&scan);
        for entry in index.list("ann") {
            assert_eq!(entry.pieces().map(|p| p.len).sum::<u64>(), entry.len);
        }
        Ok(scan.records.len() * std::mem::size_of::<log::Record>() / 8)
    };
    fuzz(&corpus, understand);
    fuzz(&corpus, |b| {
        let mut b = b.to_vec();
        mend(&mut b);
        understand(&b)
    });
}

#[test]
fn files_of_a_node() {
    let saved = PersistentState {
        record: record(),
        committed: true,
        last_committed: id(),
        highest_epoch: 9,
        witness_change_pending: false,
    };
    let corpus = [json(&saved)];
    fuzz(&corpus, |b| {
        let saved = PersistentState::decode(b).map_err(|e| clean(&e))?;
        Ok(json(&saved).len())
    });
    let checkpoint = Checkpoint {
        stream: "00112233445566778899aabbccddeeff".into(),
        link: link(9),
        keep: Some("damaged".into()),
    };
    fuzz(&[json(&checkpoint)], |b| {
        let c = Checkpoint::decode(b).map_err(|e| clean(&e))?;
        let _ = c.stream.parse::<Stream>();
        Ok(json(&c).len())
    });
    fuzz(&[json(&SourceState::default())], |b| {
        let k = SourceState::decode(b).map_err(|e| clean(&e))?;
        Ok(json(&k).len())
    });
    let head = Head {
        id: "hub-1".into(),
        sender: "a@x".into(),
        recipients: vec!["b@x".into(), "c@x".into()],
        key: "k1@x".into(),
        accepted_ms: 9,
        bytes: 5,
        sum: None,
    };
    fuzz(&[head.encode(b"hello".to_vec())], |b| {
        let head = Head::decode(b).map_err(|e| clean(&e))?;
        let _ = Head::message(b);
        Ok(head.encode(Vec::new()).len())
    });
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain")
}

/// These files are the node's own; their errors are shown as they are, bounded here.
fn clean(e: &impl std::fmt::Display) -> String {
    e.to_string().escape_debug().to_string().chars().take(300).collect()
}
