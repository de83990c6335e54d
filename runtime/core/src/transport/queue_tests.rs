use super::*;
use proptest::prelude::*;

fn head(n: u64, recipients: usize, accepted_ms: u64) -> Head {
    Head {
        id: format!("hub-{n}"),
        sender: String::new(),
        recipients: (0..recipients).map(|r| format!("r{r}@lab")).collect(),
        key: String::new(),
        accepted_ms,
        bytes: 100,
        sum: None,
    }
}

fn accepted(queue: &mut Queue, n: u64, recipients: usize) {
    queue.arriving(head(n, recipients, n));
    queue.accept(&format!("hub-{n}"));
}

/// Does what there is to do; bodies come at once. What was sent.
fn go(queue: &mut Queue, now: u64) -> Vec<(String, usize)> {
    let mut sent = Vec::new();
    loop {
        let work = queue.work(now);
        if work.is_empty() {
            return sent;
        }
        for w in work {
            match w {
                Work::Load(id) => {
                    queue.loading(&id);
                    queue.loaded(&id, b"hello".to_vec());
                }
                Work::Send(id, recipient) => {
                    queue.sent(&id, recipient);
                    sent.push((id, recipient));
                }
            }
        }
    }
}

#[test]
fn the_oldest_leaves_the_dumpster_first_also_after_a_restart() {
    let mut queue = Queue::default();
    // As a restart finds them: by name, the last one first.
    for (n, accepted_ms) in [(9, 40), (11, 60), (10, 40), (1, 10)] {
        queue.restore(head(n, 1, accepted_ms), true);
    }
    queue.restored();
    assert_eq!(queue.evict(300, 0), ["hub-1"], "first by room");
    assert_eq!(queue.evict(300, 50), ["hub-9", "hub-10"], "then by age");
    assert_eq!((queue.dumpster_len(), queue.dumpster_bytes()), (1, 100));
}

#[test]
fn what_was_accepted_first_is_tried_first() {
    let ids = |sent: &[(String, usize)]| sent.iter().map(|s| s.0.clone()).collect::<Vec<_>>();
    let first: Vec<String> = (1..=8).map(|n| format!("hub-{n}")).collect();
    let mut queue = Queue::default();
    (1..=20).for_each(|n| accepted(&mut queue, n, 1));
    assert_eq!(ids(&go(&mut queue, 1)), first, "not in the order of the names");
    // The same after a restart, which finds them by name.
    let mut queue = Queue::default();
    let mut names: Vec<u64> = (1..=20).collect();
    names.sort_by_key(u64::to_string);
    names.into_iter().for_each(|n| queue.restore(head(n, 1, n), false));
    queue.restored();
    assert_eq!(ids(&go(&mut queue, 1)), first);
    // One that failed comes again at its time, before those that came later.
    queue.failed("hub-3", 0, 1, (10, 10));
    queue.done("hub-4", 0, 1);
    assert_eq!(go(&mut queue, 1), [("hub-9".to_owned(), 0), ("hub-10".to_owned(), 0)]);
    assert_eq!(queue.next_due(), Some(11));
    // Those whose bodies are there already go meanwhile.
    ["hub-1", "hub-2", "hub-5", "hub-6"]
        .iter()
        .for_each(|id| queue.done(id, 0, 1));
    let ahead: Vec<String> = (11..=14).map(|n| format!("hub-{n}")).collect();
    assert_eq!(ids(&go(&mut queue, 11)), ahead);
    queue.done("hub-7", 0, 1);
    assert_eq!(go(&mut queue, 11), [("hub-3".to_owned(), 0)]);
}

#[test]
fn bodies_are_counted_also_while_they_are_on_their_way() {
    let mut queue = Queue::default();
    let mut loads = Vec::new();
    for n in 0..500 {
        accepted(&mut queue, n, 1);
        for w in queue.work(1) {
            let Work::Load(id) = w else { panic!("{w:?}") };
            queue.loading(&id);
            loads.push(id);
        }
    }
    assert_eq!((loads.len(), queue.held), (HELD, HELD));
    for id in loads {
        queue.loaded(&id, b"hello".to_vec());
        let sends = queue.work(1);
        assert!(sends.iter().all(|w| matches!(w, Work::Send(..))), "{sends:?}");
    }
    assert_eq!(go(&mut queue, 1).len(), PARALLEL);
    assert_eq!((queue.held, queue.sent), (HELD, PARALLEL));
}

#[test]
fn bodies_in_memory_are_bounded_in_bytes_and_the_longest_one_goes_alone() {
    let mut queue = Queue::default();
    let lengths = [HELD_BYTES / 2, HELD_BYTES / 4, 2 * HELD_BYTES, 1, HELD_BYTES];
    for (n, bytes) in (1..).zip(lengths) {
        queue.arriving(Head { bytes, ..head(n, 1, n) });
        queue.accept(&format!("hub-{n}"));
    }
    let ids = |work: Vec<Work>| -> Vec<String> {
        work.into_iter()
            .map(|w| match w {
                Work::Load(id) | Work::Send(id, _) => id,
            })
            .collect()
    };
    let all: [&[&str]; 4] = [&["hub-1", "hub-2"], &["hub-3"], &["hub-4"], &["hub-5"]];
    for (at, round) in all.iter().enumerate() {
        // What is short does not overtake what is long.
        let loads = ids(queue.work(1));
        assert_eq!(&loads, round, "round {at}");
        loads.iter().for_each(|id| queue.loading(id));
        assert!(queue.body_bytes() <= HELD_BYTES || round.len() == 1);
        for id in &loads {
            queue.loaded(id, b"hello".to_vec());
        }
        assert_eq!(&ids(queue.work(1))[..loads.len()], *round);
        for id in loads {
            queue.sent(&id, 0);
            queue.done(&id, 0, 1);
            queue.retire(&id, 1);
        }
    }
    assert_eq!((queue.body_bytes(), queue.bodies()), (0, 0));
}

#[test]
fn a_body_is_in_memory_only_while_somebody_waits_for_it() {
    let mut queue = Queue::default();
    accepted(&mut queue, 1, 2);
    assert_eq!(go(&mut queue, 1).len(), 2);
    queue.failed("hub-1", 0, 1, (10, 10));
    assert_eq!(queue.held, 1, "the other one is under way");
    queue.done("hub-1", 1, 3);
    assert_eq!((queue.held, queue.sent), (0, 0));
    assert!(queue.body("hub-1").is_none() && !queue.is_done("hub-1"));
    assert_eq!(go(&mut queue, 11), [("hub-1".to_owned(), 0)]);
    queue.done("hub-1", 0, 3);
    assert!(queue.is_done("hub-1"));
    queue.retire("hub-1", 20);
    assert_eq!((queue.held, queue.dumpster_len()), (0, 1));
    // A later epoch asks for both again.
    assert_eq!(queue.redeliver(4), ["hub-1"]);
    assert_eq!(go(&mut queue, 12).len(), 2);
}

#[test]
fn a_damaged_message_is_told_from_a_whole_one() {
    let file = head(1, 1, 5).encode(vec![b'x'; 100]);
    assert_eq!(Head::message(&file), Ok(&[b'x'; 100][..]));
    for at in 0..file.len() {
        let mut bad = file.clone();
        bad[at] ^= 4;
        // A flip in the name of the checksum's own field leaves a head without one.
        let read = Head::message(&bad);
        assert!(read.is_err() || read == Ok(&[b'x'; 100][..]), "byte {at}: {read:?}");
    }
    assert!(Head::message(&file[..file.len() - 1]).is_err());
    assert!(Head::decode(&file[..20]).is_err());
    // Files had neither schema nor checksums before.
    let old = br#"{"id":"hub-1","sender":"","recipients":["a@b"],"key":"","accepted_ms":5,"bytes":2,"more":1}"#;
    let old = [&old[..], b"\nhi"].concat();
    assert_eq!(Head::decode(&old).map(|h| h.id), Ok("hub-1".into()));
    assert_eq!(Head::message(&old), Ok(&b"hi"[..]));
}

proptest! {
    /// Whatever happens in whatever order, counts and readiness are what the messages say.
    #[test]
    fn counts_and_places_follow_the_messages(steps in proptest::collection::vec((0..8_u8, 0..6_u64, 0..3_usize), 0..80)) {
        let mut queue = Queue::default();
        let (mut now, mut epoch) = (1, 1);
        for (what, n, recipient) in steps {
            let id = format!("hub-{n}");
            match what {
                0 if queue.mail(&id).is_none() && !queue.dumpster.contains_key(&id) => accepted(&mut queue, n, 1 + recipient),
                1 | 2 => {
                    for w in queue.work(now) {
                        match w {
                            Work::Load(id) => queue.loading(&id),
                            Work::Send(id, i) => queue.sent(&id, i),
                        }
                    }
                }
                3 if queue.mail(&id).is_some_and(|m| m.loading) => queue.loaded(&id, b"hi".to_vec()),
                4 if queue.mail(&id).is_some_and(|m| matches!(m.states.get(recipient), Some(State::Sent { .. }))) => {
                    queue.done(&id, recipient, epoch);
                    if queue.is_done(&id) {
                        queue.retire(&id, now);
                    }
                }
                5 => queue.failed(&id, recipient, now, (3, 9)),
                6 => now += 4,
                7 => {
                    epoch += 1;
                    queue.redeliver(epoch);
                }
                _ => {}
            }
            let held = queue.queue.values().filter(|m| m.is_held()).count();
            let sent: usize = queue.queue.values().map(Mail::sent).sum();
            prop_assert_eq!((held, sent), (queue.held, queue.sent));
            prop_assert!(held <= HELD && sent <= PARALLEL);
            for mail in queue.queue.values() {
                let waits = mail.states.iter().any(|s| matches!(s, State::Waiting { .. })) && !mail.loading;
                let listed = queue.unread.contains(&mail.number)
                    || queue.ready.contains(&mail.number)
                    || queue.later.iter().any(|(_, n)| *n == mail.number);
                prop_assert_eq!(waits, listed);
                prop_assert_eq!(queue.ids.get(&mail.number), Some(&mail.head.id));
            }
            prop_assert_eq!(queue.ids.len(), queue.queue.len());
        }
    }
}
