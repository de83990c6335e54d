use super::*;
use crate::error::Error;
use crate::event::Journal;
use crate::fabric::frame::tests::ip_frame;
use crate::fabric::lab::tests::{config, cut, machines};
use crate::fabric::{Control, Fabric, RuleOwner};
use crate::wait::{Deadline, Probe, wait_until};
use smoltcp::wire::IpProtocol;
use std::process::Command;
use std::time::Duration;

/// Interface, direction, length, kept length and comment of each frame in `file`.
fn read(file: &Path) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap_or_default();
    read::records(&bytes).iter().map(read::Record::line).collect()
}

/// The same as tshark reads it; `None` where it is not installed.
fn tshark(file: &Path) -> Option<Vec<String>> {
    let fields = [
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.len",
        "frame.cap_len",
        "frame.comment",
    ];
    let mut c = Command::new("tshark");
    c.arg("-n")
        .arg("-r")
        .arg(file)
        .args(["-T", "fields", "-E", "separator=|"]);
    for f in fields {
        c.args(["-e", f]);
    }
    let out = match c.output() {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            eprintln!(
                "tshark is not installed: only our own reader looks at {}",
                file.display()
            );
            return None;
        }
        out => out.unwrap(),
    };
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    let text = String::from_utf8(out.stdout).unwrap();
    Some(text.lines().map(str::to_owned).collect())
}

/// The frames of `file` once there are `n`; tshark, where it is installed, must read the same.
fn lines(file: &Path, n: usize) -> Vec<String> {
    let lines = wait_until("read the capture", Deadline::after(Duration::from_secs(20)), || {
        let lines = read(file);
        Ok(if lines.len() >= n {
            Probe::Ready(lines)
        } else {
            Probe::NotYet(format!("{lines:?}"))
        })
    })
    .unwrap();
    assert_eq!(tshark(file).unwrap_or_else(|| lines.clone()), lines);
    lines
}

#[test]
fn a_capture_is_read_back_with_its_drops() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("live.pcapng");
    let ring = RingConfig {
        path: dir.path().join("ring.pcapng"),
        bytes: 1 << 20,
    };
    let mut c = config(3, 2);
    c.ring = Some(ring.clone());
    let f = Fabric::start(c, Journal::in_memory()).unwrap();
    let m = machines(&f);
    f.set(RuleOwner::Person, vec![cut("r1", "node0", "node1")]).unwrap();
    let filter = CaptureFilter {
        network: Some("net0".into()),
        node: None,
    };
    let capture = f
        .capture(&filter, Box::new(std::fs::File::create(&file).unwrap()))
        .unwrap();
    m[0].send(None, &[0; 1000]);
    let want = [
        "node0-net0|0x00000001|1042|1042|",
        "node1-net0|0x00000002|1042|1042|dropped: cut by rule r1",
        "node2-net0|0x00000002|1042|1042|",
    ];
    assert_eq!(lines(&file, 3), want);
    // The other network is not in it, but in the ring, which keeps the beginning of each frame.
    m[1].send(None, b"x");
    assert_eq!(
        lines(&ring.path, 6)[..3],
        want.map(|l| l.replace("1042|1042|", "1042|192|"))
            .map(|l| match l.strip_prefix("node0-net0") {
                // It was there when the rules came.
                Some(rest) => format!("node0-net0{rest}rules: revision 2 from here on"),
                None => l,
            })
    );
    assert_eq!(read(&file).len(), 3);
    assert_eq!(capture.lost(), 0);
    // A copy of the ring has all that passed until now; a capture that is ended too.
    let copy = dir.path().join("copy.pcapng");
    m[0].send(None, b"last");
    // The second frame that node2 hears: all copies of it have passed.
    assert_eq!((m[4].next().len(), m[4].next()), (1000, b"last".to_vec()));
    f.keep_ring(&copy).unwrap();
    let frames = std::fs::read(&copy).unwrap();
    let last = read::records(&frames)
        .into_iter()
        .filter(|r| r.bytes.ends_with(b"last"));
    assert_eq!(
        last.map(|r| r.interface).collect::<Vec<_>>(),
        ["node0-net0", "node1-net0", "node2-net0"]
    );
    f.end(capture).unwrap();
    assert_eq!(lines(&file, 6).len(), 6);
    assert!(f.keep_ring(&dir.path().join("no/such/folder")).is_err());
    let e = f.capture(
        &CaptureFilter {
            node: Some("nobody".into()),
            network: None,
        },
        Box::new(std::io::sink()),
    );
    assert!(matches!(e.unwrap_err(), Error::Usage(p) if p.remedy.as_ref().unwrap().contains("node0")));
}

#[test]
fn the_ring_is_bounded_and_readable_in_both_halves() {
    let dir = tempfile::tempdir().unwrap();
    let config = RingConfig {
        path: dir.path().join("ring.pcapng"),
        bytes: 200_000,
    };
    let ports = vec![("net".to_owned(), "a".to_owned(), "port".to_owned())];
    let interfaces = || Interfaces::new(&ports, &CaptureFilter::default());
    let mut r = Recorder::new();
    r.add(ring(&config, interfaces()).unwrap());
    let frame = ip_frame([2; 6], [4; 6], IpProtocol::Udp, (1, 2), &[0; 1400]);
    // Ten thousand frames in ten seconds: 2.6 MB of records.
    for n in 0..10_000u64 {
        r.frame(0, Direction::In, &frame, n * 1_000_000, None);
        r.flush(n * 1_000_000);
    }
    drop(r);
    let size = |p: &Path| std::fs::metadata(p).map_or(0, |m| m.len());
    wait_until("write the ring", Deadline::after(Duration::from_secs(10)), || {
        let n = read(&config.path).len() + read(&config.older()).len();
        Ok(if n > 300 {
            Probe::Ready(())
        } else {
            Probe::NotYet(format!("{n} frames"))
        })
    })
    .unwrap();
    assert!(size(&config.path) + size(&config.older()) <= config.bytes);
}

#[test]
fn a_flood_does_not_push_out_what_came_before_and_says_what_is_missing() {
    let ports = vec![("net".to_owned(), "a".to_owned(), "port".to_owned())];
    let interfaces = || Interfaces::new(&ports, &CaptureFilter::default());
    let (out, chunks) = sync_channel(1 << 20);
    let mut r = Recorder::new();
    r.add(Sink::ring(interfaces(), out));
    let frame = ip_frame([2; 6], [4; 6], IpProtocol::Udp, (1, 2), &[0; 1400]);
    for n in 0..200_000u64 {
        r.frame(0, Direction::In, &frame, n * 5_000, None);
    }
    r.frame(0, Direction::In, &frame, 5_000_000_000, None);
    r.flush(10_000_000_000);
    let records = |c| match c {
        Chunk::Records(bytes) => bytes,
        Chunk::Copy(..) => unreachable!("no copy was asked for"),
    };
    let all: Vec<u8> = chunks.try_iter().flat_map(records).collect();
    let bound = RING_BURST + 2 * RING_RATE;
    assert!((all.len() as u64) < bound + bound / 4, "{}", all.len());
    let text = String::from_utf8_lossy(&all);
    assert!(text.contains("frames before this one were not recorded"));
}
