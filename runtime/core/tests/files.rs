//! Readers of older and newer files, as a matrix: every small file and every log as the first ccrd wrote it (`files/first`), as this
//! one writes it (`files/now`), with a field more, of a newer schema, and damaged.
//!
//! A file under `files/` is never changed: who changes a format adds a folder, and a reader that reads all of them.
//! `FAILOVERLAB_BLESS=1 cargo test -p ccr-core --test files` writes what is missing in `files/now`.

use ccr_contract::status::Intent;
use ccr_core::chain::{ChainLink, Stream};
use ccr_core::durable::{self, NotUnderstood};
use ccr_core::record::{PersistentState, Record, RecordId};
use ccr_core::store::index::Index;
use ccr_core::store::log::{self, FileKind, Header, Label, LogError, Tail};
use ccr_core::store::{Checkpoint, SourceState};
use ccr_core::transport::{self, Head};
use std::path::PathBuf;

const STREAM: Stream = Stream([0xa5; 16]);
const MESSAGE: &[u8] = b"Message-ID: <k1@x>\r\n\r\nhello";
/// Length of a closed log here.
const SIZE: usize = 512;

fn path(folder: &str, name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/files")
        .join(folder)
        .join(name)
}

fn file(folder: &str, name: &str) -> Vec<u8> {
    let path = path(folder, name);
    std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What this ccrd writes is what is checked in.
fn is_checked_in(name: &str, bytes: &[u8]) {
    is_checked_in_as("now", name, bytes);
}
fn is_checked_in_as(folder: &str, name: &str, bytes: &[u8]) {
    let path = path(folder, name);
    if std::env::var_os("FAILOVERLAB_BLESS").is_some() && !path.exists() {
        std::fs::write(&path, bytes).unwrap();
    }
    assert_eq!(file(folder, name), bytes, "{name} is written otherwise than before");
}

fn saved() -> PersistentState {
    let id = |epoch, tag| RecordId {
        epoch,
        tag,
        by: "node1".into(),
    };
    let record = Record {
        id: id(7, 12),
        quorum_owner: "node1".into(),
        owner: "node2".into(),
        owner_epoch: 6,
        clean: true,
        served: vec![6],
        redeliver: false,
        intent: Intent::Started,
        evicted: None,
        witness: None,
        sole_copy: None,
        settings: [("dial".to_owned(), "lossless".to_owned())].into(),
    };
    PersistentState {
        record,
        committed: true,
        last_committed: id(7, 11),
        highest_epoch: 7,
        witness_change_pending: false,
    }
}

fn checkpoint() -> Checkpoint {
    let link = ChainLink {
        generation: 33,
        epoch: 6,
        checksum: 0xdead_beef,
    };
    let stream = STREAM.to_string();
    Checkpoint {
        stream,
        link,
        keep: None,
    }
}

fn source_state() -> SourceState {
    SourceState {
        generated: 40,
        suspended: true,
        broken: false,
        common: None,
        verified: 6,
        backed_up: 3,
        seeding: false,
        reseed: false,
    }
}

fn hub() -> transport::HubState {
    transport::HubState {
        epoch_seen: 7,
        clock_ms: 123_456,
    }
}

fn head(sum: Option<u32>) -> Head {
    Head {
        id: "hub-1".into(),
        sender: "a@x".into(),
        recipients: vec!["ann@x".into(), "bob@x".into()],
        key: "k1@x".into(),
        accepted_ms: 99,
        bytes: MESSAGE.len() as u64,
        sum,
    }
}

/// The first line of a queue file, and the rest.
fn parts(queued: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let end = queued.iter().position(|b| *b == b'\n').unwrap();
    (queued[..end].to_vec(), queued[end..].to_vec())
}

/// The same file with another schema, and a field that nobody knows, as its writer would have written it.
fn rewritten(bytes: &[u8], schema: Option<u64>) -> Vec<u8> {
    let mut json: serde_json::Value = serde_json::from_slice(bytes).unwrap();
    let object = json.as_object_mut().unwrap();
    object.remove("crc");
    let was = object.remove("schema").and_then(|s| s.as_u64()).unwrap_or(1);
    object.insert("colour".into(), serde_json::json!({"red": [1, 2]}));
    durable::encode(schema.unwrap_or(was), &json)
}

/// Every reading of one small file. `newest` is the schema that is written now.
fn matrix<T, D>(name: &str, want: &T, written: &[u8], newest: u64, decode: D)
where
    T: PartialEq + std::fmt::Debug,
    D: Fn(&[u8]) -> Result<T, NotUnderstood>,
{
    is_checked_in(name, written);
    assert_eq!(durable::schema(written), Ok(newest), "{name}");
    let first = file("first", name);
    assert_eq!(durable::schema(&first), Ok(1), "{name}");
    for (which, bytes) in [
        ("as it is written now", written.to_vec()),
        ("as the first ccrd wrote it", first.clone()),
        ("now, with a field more", rewritten(written, None)),
        ("the first, with a field more", rewritten(&first, None)),
    ] {
        assert_eq!(decode(&bytes).as_ref(), Ok(want), "{name} {which}");
    }
    let newer = decode(&rewritten(written, Some(newest + 1)));
    let (found, known) = (newest + 1, newest);
    assert_eq!(newer, Err(NotUnderstood::Newer { found, known }), "{name}");
    for len in 0..written.len() {
        assert!(decode(&written[..len]).is_err(), "{name} cut to {len} bytes");
    }
    let mut zeroed = written.to_vec();
    zeroed[written.len() / 2..].fill(0);
    assert!(decode(&zeroed).is_err(), "{name} zeroed");
    for at in 0..written.len() {
        let mut bad = written.to_vec();
        bad[at] ^= 1;
        let read = decode(&bad);
        assert!(
            read.is_err() || read.as_ref() == Ok(want),
            "{name} flipped at {at}: {read:?}"
        );
    }
}

#[test]
fn small_files() {
    matrix("cluster.json", &saved(), &saved().encode(), 2, PersistentState::decode);
    matrix("E00.chk", &checkpoint(), &checkpoint().encode(), 1, Checkpoint::decode);
    matrix(
        "E00.src",
        &source_state(),
        &source_state().encode(),
        1,
        SourceState::decode,
    );
    matrix("hub.json", &hub(), &hub().encode(), 1, transport::HubState::decode);
}

#[test]
fn a_message_in_the_queue() {
    let written = head(None).encode(MESSAGE.to_vec());
    is_checked_in("hub-1", &written);
    let first = file("first", "hub-1");
    let sum = Some(crc32c::crc32c(MESSAGE));
    for (bytes, sum) in [(written.clone(), sum), (first, None)] {
        assert_eq!(Head::decode(&bytes), Ok(head(sum)));
        assert_eq!(Head::message(&bytes), Ok(MESSAGE));
        let (line, rest) = parts(&bytes);
        let more = [rewritten(&line, None), rest.clone()].concat();
        assert_eq!(Head::decode(&more), Ok(head(sum)));
        let newer = [rewritten(&line, Some(2)), rest].concat();
        assert_eq!(Head::decode(&newer), Err(NotUnderstood::Newer { found: 2, known: 1 }));
    }
    for at in written.len() - MESSAGE.len()..written.len() {
        let mut bad = written.clone();
        bad[at] ^= 1;
        assert!(Head::message(&bad).is_err(), "byte {at}");
    }
}

fn label(seq: u64) -> Label {
    Label {
        seq,
        mailbox: "ann".into(),
        hub_id: format!("hub-{seq}"),
        key: format!("k{seq}@x"),
    }
}

/// An open log: two batches of one record, a mark behind each.
fn open() -> Vec<u8> {
    let header = Header {
        kind: FileKind::Log,
        stream: STREAM,
        generation: 5,
        epoch: 3,
        previous: 0xdead_beef,
    };
    let mut log = header.encode().to_vec();
    log::put_message(&mut log, &label(1), MESSAGE);
    let flushed = log.len() as u64;
    log::put_mark(&mut log, STREAM, flushed);
    log::put_delete(&mut log, &label(1));
    let flushed = log.len() as u64;
    log::put_mark(&mut log, STREAM, flushed);
    log
}

fn closed() -> Vec<u8> {
    let mut log = open();
    let crc = crc32c::crc32c(&log);
    log::put_end(&mut log, crc);
    log.resize(SIZE, 0);
    log
}

#[test]
fn logs_and_segments() {
    let scan = log::inspect(&closed(), SIZE).unwrap();
    let segment = log::to_segment(&closed(), &scan);
    is_checked_in("E00.log", &open());
    is_checked_in("E0000000005.log", &closed());
    is_checked_in("E0000000005.edb", &segment);
    // The first ccrd wrote no marks, and takes one for a delivery to nobody: the records are the same.
    let first = log::inspect(&file("first", "E0000000005.log"), SIZE).unwrap();
    assert_eq!(first.header, scan.header);
    assert_eq!(first.records[0], scan.records[0]);
    assert_eq!(first.records.len(), scan.records.len());
    assert!(log::segment(&file("first", "E0000000005.edb")).is_ok());
    assert_eq!(log::tail(&file("first", "E00.log"), STREAM), Tail::Whole);

    let strange = |bytes: &[u8]| log::scan(bytes).err().is_some_and(|e| e.is_strange());
    // A newer version, another kind of file, a kind of record that nobody knows: whole, and not understood.
    let mut newer = closed();
    newer[8] = 2;
    assert!(
        matches!(log::inspect(&newer, SIZE), Err(LogError::BadHeader(_))),
        "damaged"
    );
    assert!(strange(&sealed(newer)));
    let mut kind = closed();
    kind[10] = 3;
    assert!(strange(&sealed(kind)));
    let mut record = open();
    let payload = b"what comes next";
    record.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(&[9]), payload);
    record.extend_from_slice(&crc.to_le_bytes());
    record.push(9);
    record.extend_from_slice(payload);
    assert!(strange(&record));
    assert!(matches!(log::tail(&record, STREAM), Tail::Strange(_)));
}

/// Two generations with a message that spans them, the first one as it was while it was open, and both in the database.
fn long() -> [(&'static str, Vec<u8>); 5] {
    let generation = |generation, previous| Header {
        kind: FileKind::Log,
        stream: STREAM,
        generation,
        epoch: 3,
        previous,
    };
    let close = |mut log: Vec<u8>| {
        let crc = crc32c::crc32c(&log);
        log::put_end(&mut log, crc);
        log.resize(SIZE, 0);
        (log, crc)
    };
    let (begin, rest) = MESSAGE.split_at(20);
    let mut open = generation(5, 0xdead_beef).encode().to_vec();
    log::put_part(&mut open, 1, 0, begin);
    let flushed = open.len() as u64;
    log::put_mark(&mut open, STREAM, flushed);
    let (first, crc) = close(open.clone());
    let mut second = generation(6, crc).encode().to_vec();
    log::put_part(&mut second, 1, 20, rest);
    log::put_whole(&mut second, &label(1), crc32c::crc32c(MESSAGE), MESSAGE.len() as u64);
    let (second, _) = close(second);
    let segment = |log: &[u8]| log::to_segment(log, &log::inspect(log, SIZE).unwrap());
    let segments = (segment(&first), segment(&second));
    [
        ("E00.log", open),
        ("E0000000005.log", first),
        ("E0000000006.log", second),
        ("E0000000005.edb", segments.0),
        ("E0000000006.edb", segments.1),
    ]
}

#[test]
fn a_message_that_spans_generations() {
    let files = long();
    for (name, bytes) in &files {
        is_checked_in_as("long", name, bytes);
    }
    let [(_, open), (_, first), (_, second), (_, first_in_db), (_, second_in_db)] = &files;
    assert_eq!(log::tail(open, STREAM), Tail::Whole);
    type Read = fn(&[u8]) -> Result<log::Scan, LogError>;
    let inspect: Read = |bytes| log::inspect(bytes, SIZE);
    for (read, first, second) in [
        (inspect, first, second),
        (log::segment as Read, first_in_db, second_in_db),
    ] {
        let mut index = Index::default();
        index.apply(&read(first).unwrap());
        assert_eq!(
            (index.list("ann").count(), index.was_delivered("hub-1", "ann")),
            (0, false)
        );
        index.apply(&read(second).unwrap());
        let pieces: Vec<Vec<u8>> = index
            .get("ann", 1)
            .unwrap()
            .pieces()
            .map(|p| {
                let file = if p.generation == 5 { first } else { second };
                file[p.at as usize..(p.at + p.len) as usize].to_vec()
            })
            .collect();
        assert_eq!(pieces.concat(), MESSAGE);
    }
    // A ccrd of before knows the kinds of records up to 4: it stops here, as this one does at a kind that it does not know.
    assert_eq!(open[log::HEADER + 8], 5);
    let kinds: Vec<u8> = vec![
        second[log::HEADER + 8],
        second[log::HEADER + log::PART_FRAME + MESSAGE.len() - 20 + 8],
    ];
    assert_eq!(kinds, [5, 6]);
}

/// The header with the checksum that belongs to it.
fn sealed(mut log: Vec<u8>) -> Vec<u8> {
    log[12..16].fill(0);
    let crc = crc32c::crc32c(&log[..log::HEADER]);
    log[12..16].copy_from_slice(&crc.to_le_bytes());
    log
}

/// Damage to what a mark names is damage, wherever it is; everything behind the last mark may be torn.
#[test]
fn the_end_of_an_open_log() {
    let whole = open();
    assert_eq!(log::tail(&whole, STREAM), Tail::Whole);
    let marked = whole.len() - log::MARK;
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        match log::tail(&bad, STREAM) {
            Tail::Damaged { whole, flushed } => assert!(whole <= at && at < flushed.max(log::HEADER), "byte {at}"),
            Tail::Torn(whole) => assert!(at >= marked && whole == marked, "byte {at}"),
            // The mark's own key or number: a delivery to nobody all the same.
            other => panic!("byte {at}: {other:?}"),
        }
    }
    for len in 0..whole.len() {
        match log::tail(&whole[..len], STREAM) {
            Tail::Whole => {}
            Tail::Torn(kept) => assert!(kept <= len && (len >= log::HEADER || kept == 0)),
            other => panic!("cut to {len} bytes: {other:?}"),
        }
    }
    // Records behind a bad one prove nothing by themselves: they may be of the same write.
    let mut torn = whole[..log::HEADER].to_vec();
    (1..4).for_each(|seq| log::put_message(&mut torn, &label(seq), MESSAGE));
    torn[log::HEADER + 20] ^= 1;
    assert_eq!(log::tail(&torn, STREAM), Tail::Torn(log::HEADER));
    // Another stream's mark, as a message might hold one, neither.
    let flushed = torn.len() as u64;
    log::put_mark(&mut torn, Stream([1; 16]), flushed);
    assert_eq!(log::tail(&torn, STREAM), Tail::Torn(log::HEADER));
    // Zeros where records were.
    let mut zeros = whole.clone();
    zeros[log::HEADER..marked].fill(0);
    assert!(matches!(log::tail(&zeros, STREAM), Tail::Damaged { whole: 64, .. }));
    assert!(matches!(log::tail(&[0; 200], STREAM), Tail::Damaged { whole: 0, .. }));
}
