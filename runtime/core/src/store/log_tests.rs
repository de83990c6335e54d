use super::*;
use proptest::prelude::*;

fn label(seq: u64, mailbox: &str) -> Label {
    Label {
        seq,
        mailbox: mailbox.into(),
        hub_id: format!("hub-{seq}"),
        key: "k@x".into(),
    }
}

fn closed_log(size: usize) -> Vec<u8> {
    let header = Header {
        kind: FileKind::Log,
        stream: Stream([7; 16]),
        generation: 5,
        epoch: 3,
        previous: 0xdead_beef,
    };
    let mut log = header.encode().to_vec();
    put_message(&mut log, &label(1, "ann"), b"hello");
    put_delete(&mut log, &label(1, "ann"));
    put_tombstone(&mut log, &label(2, "bob"));
    put_part(&mut log, 3, 0, b"two ");
    put_part(&mut log, 3, 4, b"pieces");
    put_whole(&mut log, &label(3, "bob"), crc32c::crc32c(b"two pieces"), 10);
    let crc = crc32c::crc32c(&log);
    put_end(&mut log, crc);
    log.resize(size, 0);
    log
}

#[test]
fn what_was_written_is_read() {
    let log = closed_log(4096);
    let scan = inspect(&log, 4096).unwrap();
    assert_eq!(scan.header.generation, 5);
    assert_eq!(scan.link().checksum, scan.crc);
    let Record::Message { at, len, .. } = &scan.records[0] else {
        panic!("{:?}", scan.records)
    };
    assert_eq!(&log[*at as usize..(*at + *len) as usize], b"hello");
    assert_eq!((scan.records.len(), scan.bodies()), (6, 15));
    let Record::Part {
        seq: 3,
        offset: 4,
        at,
        len: 6,
        ..
    } = scan.records[4]
    else {
        panic!("{:?}", scan.records)
    };
    assert_eq!(&log[at as usize..][..6], b"pieces");
    let whole = Record::Whole {
        label: label(3, "bob"),
        crc: crc32c::crc32c(b"two pieces"),
        len: 10,
    };
    assert_eq!(scan.records[5], whole);
    let seg = to_segment(&log, &scan);
    let read = segment(&seg).unwrap();
    assert_eq!(read.records, scan.records);
    assert_eq!(read.link(), scan.link());
}

#[test]
fn a_product_generation_is_exactly_one_mebibyte_and_nothing_else() {
    let log = closed_log(1 << 20);
    assert!(inspect(&log, 1 << 20).is_ok());
    assert!(matches!(
        inspect(&log[..4096], 1 << 20),
        Err(LogError::BadLength { .. })
    ));
    assert_eq!(ccr_contract::config::Settings::default().generation_bytes, 1 << 20);
}

#[test]
fn every_flipped_byte_is_found() {
    let log = closed_log(512);
    for i in 0..log.len() {
        let mut bad = log.clone();
        bad[i] ^= 0x40;
        assert!(inspect(&bad, 512).is_err(), "byte {i}");
    }
}

#[test]
fn parts_and_wholes_that_make_no_sense_are_not_understood() {
    let header = closed_log(512)[..HEADER].to_vec();
    for (kind, payload) in [
        (PART, vec![0; PART_HEAD - 1]),
        // A piece with another one's checksum.
        (PART, [vec![0; PART_HEAD], b"piece".to_vec()].concat()),
        (WHOLE, vec![0; LABEL - 1]),
        (WHOLE, label_bytes(&label(1, "ann"), 0)),
        (WHOLE, [label_bytes(&label(1, "ann"), 0), vec![0; 9]].concat()),
    ] {
        let mut log = header.clone();
        put(&mut log, kind, &[&payload]);
        assert!(scan(&log).is_err_and(|e| e.is_strange()), "{kind} {payload:?}");
    }
}

#[test]
fn a_torn_tail_is_cut_at_the_last_whole_record() {
    let log = closed_log(512);
    let whole = inspect(&log, 512).unwrap();
    for cut in HEADER..whole.used {
        let scan = scan(&log[..cut]).unwrap();
        assert!(scan.used <= cut && scan.end.is_none());
        assert_eq!(scan.crc, crc32c::crc32c(&log[..scan.used]));
        assert_eq!(scan.torn.is_some(), scan.used != cut, "cut at {cut}");
    }
    assert!(matches!(scan(&log[..10]), Err(LogError::NoHeader(10))));
}

#[test]
fn a_stream_is_read_as_it_is_written() {
    let s = Stream([0xab; 16]);
    assert_eq!(s.to_string().parse(), Ok(s));
    for bad in ["", "zz", "ab", &"g".repeat(32), &"é".repeat(16)] {
        assert!(bad.parse::<Stream>().is_err());
    }
}

proptest! {
    #[test]
    fn garbage_is_an_error_and_no_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = scan(&bytes);
        let _ = inspect(&bytes, bytes.len());
        let _ = segment(&bytes);
    }
    #[test]
    fn damaged_logs_are_no_panic(at in 0usize..512, with in any::<[u8; 4]>()) {
        let mut log = closed_log(512);
        for (i, b) in with.iter().enumerate() {
            if let Some(x) = log.get_mut(at + i) { *x = *b }
        }
        let _ = scan(&log);
        let _ = inspect(&log, 512);
    }
}
