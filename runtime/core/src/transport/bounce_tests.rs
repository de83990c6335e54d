use super::*;
use crate::io::{Boot, ClientRequest, Effect, Input, Node, Now, OpId, Reply, ReqId};
use crate::member::fixture::config;
use std::collections::BTreeMap;

/// A hub on a disk that does everything at once, and a store that answers as it is told.
struct Rig {
    hub: Hub,
    files: BTreeMap<String, Vec<u8>>,
    full: bool,
    us: u64,
    /// Deliveries that wait for an answer: operation, recipient, message.
    out: Vec<(OpId, String, Vec<u8>)>,
    said: Vec<Reply>,
    told: Vec<EventKind>,
}

impl Rig {
    fn new(files: BTreeMap<String, Vec<u8>>, entropy: u64) -> Self {
        let mut config = config();
        config.node = "hub".into();
        let boot = Boot {
            entropy,
            version: String::new(),
            planted: None,
        };
        let mut rig = Self {
            hub: Hub::new(config, boot),
            files,
            full: false,
            us: 0,
            out: Vec::new(),
            said: Vec::new(),
            told: Vec::new(),
        };
        rig.step(Input::Start);
        rig
    }

    fn step(&mut self, input: Input) {
        self.us += 1000;
        let now = Now {
            boot_us: self.us,
            rtc_us: 1_172_706_245_000_000,
        };
        for effect in self.hub.step(now, input) {
            match effect {
                Effect::Disk { op, action } => {
                    let result = self.perform(action);
                    self.step(Input::DiskDone { op, result });
                }
                Effect::Lmtp {
                    op, recipient, message, ..
                } => self.out.push((op, recipient, message.to_vec())),
                Effect::Reply { reply, .. } => self.said.push(reply),
                Effect::Event(event) => self.told.push(event.what()),
                other => panic!("{other:?}"),
            }
        }
    }

    fn perform(&mut self, action: DiskAction) -> DiskResult {
        match action {
            DiskAction::List { folder } => {
                let folder = format!("{folder}/");
                let files = self.files.iter();
                let files = files.filter_map(|(n, b)| Some((n.strip_prefix(&folder)?.to_owned(), b.len() as u64)));
                DiskResult::Files(files.collect())
            }
            DiskAction::Read { file, .. } => {
                let bytes = self.files.get(&file).cloned();
                bytes.map_or(DiskResult::Missing, DiskResult::Bytes)
            }
            DiskAction::Replace { .. } if self.full => DiskResult::Full,
            DiskAction::Replace { file, bytes } => {
                self.files.insert(file, bytes);
                DiskResult::Done
            }
            DiskAction::Rename { from, to } => {
                let bytes = self.files.remove(&from).expect("what is renamed is there");
                self.files.insert(to, bytes);
                DiskResult::Done
            }
            other => panic!("{other:?}"),
        }
    }

    fn submit(&mut self, sender: &str, recipients: &[&str]) {
        let request = ClientRequest::Submit {
            sender: sender.into(),
            recipients: recipients.iter().map(|r| (*r).to_owned()).collect(),
            message: b"Subject: hi\r\nMessage-ID: <k1>\r\n\r\nthe body\r\n".to_vec(),
        };
        self.step(Input::Client { req: ReqId(1), request });
    }

    /// The store answers the oldest delivery to this recipient.
    fn answer(&mut self, to: &str, code: u16, text: &str) -> Vec<u8> {
        let at = self.out.iter().position(|(_, r, _)| r == to);
        let (op, _, message) = self.out.remove(at.expect("it is being delivered"));
        let text = text.to_owned();
        self.step(Input::LmtpDone {
            op,
            result: Ok(LmtpReply { code, text }),
        });
        message
    }

    fn queued(&self) -> Vec<&String> {
        self.files.keys().filter(|n| n.starts_with("queue/")).collect()
    }
}

const STORED: &str = "2.1.5 stored node=node1 epoch=4 stream=3f generation=1";

#[test]
fn the_sender_of_what_was_refused_for_good_is_told_once() {
    let mut rig = Rig::new(BTreeMap::new(), 7);
    rig.submit("bob@x", &["ann@x", "nobody@x"]);
    rig.answer("nobody@x", 550, "5.1.1 no such mailbox name");
    let bounce = rig.answer("bob@x", 250, STORED);
    let text = String::from_utf8(bounce).unwrap();
    for part in [
        "To: <bob@x>\r\n",
        "Date: Wed, 28 Feb 2007 23:44:05 +0000\r\n",
        "Content-Type: multipart/report; report-type=delivery-status; boundary=\"hub-",
        "\r\nFinal-Recipient: rfc822; nobody@x\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "\r\nDiagnostic-Code: smtp; 550 5.1.1 no such mailbox name\r\n",
        "\r\n\r\nSubject: hi\r\nMessage-ID: <k1>\r\n\r\n--",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains("the body") && text.ends_with("--\r\n"), "{text}");
    assert!(text.lines().all(|l| l.len() < 900 && !l.contains('\n')), "{text}");
    // The other recipient still waits, and the message with it; the bounce is in the dumpster.
    assert_eq!(rig.queued().len(), 1);
    let bounced = |k: &&EventKind| matches!(k, EventKind::HubBounced { to, .. } if to == "bob@x");
    assert_eq!(rig.told.iter().filter(bounced).count(), 1);
    // The hub dies, tries both again, and is refused again: no second bounce.
    let mut again = Rig::new(rig.files, 8);
    again.answer("nobody@x", 550, "5.1.1 no such mailbox name");
    again.answer("ann@x", 250, STORED);
    assert_eq!((again.queued().len(), again.out.len()), (0, 0));
    assert_eq!(again.told.iter().filter(bounced).count(), 0);
}

#[test]
fn nobody_is_told_of_a_bounce_or_where_there_is_no_mailbox() {
    for sender in ["", "\"o dd\"@x", "a/b@x"] {
        let mut rig = Rig::new(BTreeMap::new(), 7);
        rig.submit(sender, &["nobody@x"]);
        rig.answer("nobody@x", 552, "5.3.4 too long");
        assert_eq!((rig.queued().len(), rig.out.len()), (0, 0), "{sender}");
        let status = rig.hub.status().hub.unwrap();
        assert_eq!((status.refused, status.queued), (1, 0));
    }
}

#[test]
fn a_bounce_without_room_is_tried_again() {
    let mut rig = Rig::new(BTreeMap::new(), 7);
    rig.submit("bob@x", &["nobody@x"]);
    rig.full = true;
    rig.answer("nobody@x", 550, "no");
    assert_eq!(rig.queued().len(), 1, "the message stays");
    rig.full = false;
    rig.us += 60_000_000;
    rig.step(Input::Tick);
    rig.answer("nobody@x", 550, "no");
    let text = String::from_utf8(rig.answer("bob@x", 250, STORED)).unwrap();
    assert!(text.contains("Status: 5.0.0\r\n"), "{text}");
    assert!(rig.queued().is_empty());
}

#[test]
fn a_recipient_that_names_no_mailbox_is_not_queued() {
    for recipient in ["", "a/b@x", "gü@x", "a<b@x"] {
        let mut rig = Rig::new(BTreeMap::new(), 7);
        rig.submit("bob@x", &[recipient]);
        assert!(
            matches!(rig.said[..], [Reply::Refused { temporary: false, .. }]),
            "{recipient}: {:?}",
            rig.said
        );
        assert!(rig.queued().is_empty());
    }
}

#[test]
fn status_codes_and_headers() {
    for (said, code) in [
        ("5.1.1 no", "5.1.1"),
        ("5.12.345", "5.12.345"),
        ("4.4.7 QUEUE.Expired", "4.4.7"),
        ("2.1.1 no", "5.0.0"),
        ("5.1 no", "5.0.0"),
        ("5..1", "5.0.0"),
        ("", "5.0.0"),
    ] {
        assert_eq!(status_of(said), code, "{said}");
    }
    assert_eq!(header(b"A: b\r\n c\r\n\r\nbody\r\n"), b"A: b\r\n c\r\n");
    assert_eq!(header(b"no end of a line"), b"");
    let long = [&b"A: b\r\n"[..], &[b'x'; MAX_SHOWN], b"\r\n\r\n"].concat();
    assert_eq!(header(&long), b"A: b\r\n");
}

const DAY_US: u64 = 24 * 3600 * 1_000_000;

impl Rig {
    /// The connection of the oldest delivery to this recipient breaks.
    fn breaks(&mut self, to: &str) {
        let at = self.out.iter().position(|(_, r, _)| r == to);
        let (op, ..) = self.out.remove(at.expect("it is being delivered"));
        let result = Err("connection refused".to_owned());
        self.step(Input::LmtpDone { op, result });
    }
    /// Time passes, without the ticks in between.
    fn later(&mut self, us: u64) {
        self.us += us;
        self.step(Input::Tick);
    }
}

#[test]
fn a_message_that_cannot_be_delivered_for_two_days_goes_back_to_its_sender() {
    let mut rig = Rig::new(BTreeMap::new(), 7);
    rig.submit("bob@x", &["ann@x", "eve@x"]);
    rig.answer("eve@x", 250, STORED);
    rig.breaks("ann@x");
    rig.later(2 * DAY_US - 60_000_000);
    rig.breaks("ann@x");
    assert!(rig.told.iter().all(|k| !matches!(k, EventKind::HubBounced { .. })));
    rig.later(120_000_000);
    rig.breaks("ann@x");
    let text = String::from_utf8(rig.answer("bob@x", 250, STORED)).unwrap();
    for part in [
        "Final-Recipient: rfc822; ann@x\r\nAction: failed\r\nStatus: 4.4.7\r\n",
        "550 4.4.7 QUEUE.Expired; message expired; the last attempt: connection refused\r\n",
    ] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert_eq!((rig.queued().len(), rig.out.len()), (0, 0));
    assert_eq!(rig.hub.status().hub.unwrap().refused, 1);
}

#[test]
fn what_came_back_from_the_dumpster_is_not_given_up_for_its_age() {
    let mut rig = Rig::new(BTreeMap::new(), 7);
    rig.submit("bob@x", &["ann@x"]);
    rig.answer("ann@x", 250, STORED);
    rig.later(3 * DAY_US);
    assert!(rig.queued().is_empty());
    assert_eq!(rig.hub.queue.redeliver(9).len(), 1);
    let id = rig.hub.queue.queued().next().unwrap().head.id.clone();
    let bytes = rig.files.remove(&format!("dumpster/{id}")).unwrap();
    rig.files.insert(format!("queue/{id}"), bytes);
    rig.later(1);
    rig.breaks("ann@x");
    assert_eq!(rig.queued().len(), 1);
    // Another life of the hub cannot tell, and begins anew.
    rig.later(60_000_000);
    let mut again = Rig::new(rig.files, 8);
    again.breaks("ann@x");
    assert_eq!(again.queued().len(), 1);
    again.later(DAY_US);
    again.breaks("ann@x");
    assert_eq!((again.queued().len(), again.hub.status().hub.unwrap().refused), (1, 0));
    again.later(DAY_US + 1_000_000);
    again.breaks("ann@x");
    assert_eq!(again.hub.status().hub.unwrap().refused, 1);
}
