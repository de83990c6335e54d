//! The agent's decisions, without an agent: sessions, followers, windows; and whatever else may arrive.

use lab_agent::core::{ADOPT_WITHIN, Core, Input, JOBS, JobId, Order};
use lab_agent::message::{End, FromAgent, INPUT_WINDOW, MAX_LINE, Stream, ToAgent, VERSION, WINDOW};
use lab_agent::wire::{Decoder, Frame, encode};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const OURS: [u8; 16] = [1; 16];
const THEIRS: [u8; 16] = [2; 16];

fn hello(owner: [u8; 16]) -> Input {
    let (version, nonce) = (VERSION, [7; 16]);
    Input::Said(0, ToAgent::Hello { version, nonce, owner })
}

fn begun() -> Core {
    let mut core = Core::new("boot", 100);
    core.hear(0, hello(OURS));
    core
}

fn run(channel: u32, within_ms: u32) -> Input {
    let argv = vec!["x".to_owned()];
    Input::Said(channel, ToAgent::Run { argv, within_ms })
}

fn follow(channel: u32, from: Option<(u64, u64)>) -> Input {
    let (key, argv) = ("k".to_owned(), vec!["f".to_owned()]);
    Input::Said(channel, ToAgent::Follow { key, argv, from })
}

/// Of a command that was begun in a session of [`hello`].
fn following(id: JobId, next: u64, ran_ms: u64) -> FromAgent {
    let session = [7; 16];
    FromAgent::Following {
        id,
        next,
        session,
        ran_ms,
    }
}

fn printed(job: JobId, text: &str) -> Input {
    Input::Output(job, Stream::Out, text.as_bytes().to_vec())
}

fn spawned(orders: &[Order]) -> Vec<JobId> {
    let ids = orders.iter().filter_map(|o| match o {
        Order::Spawn(id, _) => Some(*id),
        _ => None,
    });
    ids.collect()
}

fn killed(orders: &[Order]) -> Vec<JobId> {
    let ids = orders.iter().filter_map(|o| match o {
        Order::Kill(id) | Order::Drop(id) => Some(*id),
        _ => None,
    });
    ids.collect()
}

fn lines(orders: &[Order]) -> Vec<(u64, String)> {
    let lines = orders.iter().filter_map(|o| match o {
        Order::Say(_, FromAgent::Line { number, text }) => Some((*number, String::from_utf8_lossy(text).into_owned())),
        _ => None,
    });
    lines.collect()
}

fn is_refused(orders: &[Order]) -> bool {
    orders
        .iter()
        .any(|o| matches!(o, Order::Say(0, FromAgent::Refused { .. })))
}

fn ended(orders: &[Order]) -> Option<(u32, End)> {
    orders.iter().find_map(|o| match o {
        Order::Say(channel, FromAgent::Ended { how, .. }) => Some((*channel, *how)),
        _ => None,
    })
}

#[test]
fn nothing_begins_before_a_session_does() {
    let mut core = Core::new("boot", 0);
    for input in [run(1, 5), follow(2, None), Input::Said(3, ToAgent::Look)] {
        let orders = core.hear(0, input);
        assert!(is_refused(&orders) && orders.len() == 1, "{orders:?}");
    }
    // What an earlier host left half said is no fault of the next one's.
    assert_eq!(core.hear(0, Input::Garbage("x".into())), []);
    let other = Input::Said(
        0,
        ToAgent::Hello {
            version: VERSION + 1,
            nonce: [3; 16],
            owner: OURS,
        },
    );
    assert!(
        core.hear(0, other).iter().any(
            |o| matches!(o, Order::Say(0, FromAgent::Welcome { version: VERSION, nonce, .. }) if *nonce == [3; 16])
        )
    );
    assert!(is_refused(&core.hear(0, run(1, 5))));
}

#[test]
fn a_new_session_ends_what_the_one_before_began() {
    let mut core = begun();
    let command = spawned(&core.hear(0, run(1, 1000)))[0];
    let follower = spawned(&core.hear(0, follow(2, None)))[0];
    let put = ToAgent::Put {
        path: "/a".into(),
        mode: 0o600,
        length: 3,
    };
    core.hear(0, Input::Said(3, put));
    let orders = core.hear(5, hello(OURS));
    assert_eq!(killed(&orders), [command, follower + 1]);
    // The welcome is behind what is not said any more.
    let unsaid = orders.iter().position(|o| *o == Order::Unsay).unwrap();
    assert!(matches!(orders[unsaid + 1], Order::Say(0, FromAgent::Welcome { .. })));
    // Its end interests nobody any more.
    assert_eq!(core.hear(6, Input::Ended(command, End::Signalled(9))), []);
    // Another owner's session ends the follower too.
    assert_eq!(killed(&core.hear(7, hello(THEIRS))), [follower]);
}

#[test]
fn a_follower_goes_on_for_its_owner_without_losing_or_doubling_a_line() {
    let mut core = begun();
    let id = spawned(&core.hear(0, follow(1, None)))[0];
    assert_eq!(
        lines(&core.hear(0, printed(id, "a\nb\nc"))),
        [(0, "a".into()), (1, "b".into())]
    );
    core.hear(0, Input::Said(1, ToAgent::Ack { next: 1 }));
    core.hear(0, Input::Gone);
    assert_eq!(core.hear(0, printed(id, "c\nd\n")), []);
    core.hear(0, hello(OURS));
    // A host that does not know what it had gets all that it did not acknowledge.
    let orders = core.hear(1, follow(9, None));
    assert_eq!(spawned(&orders), []);
    assert_eq!(lines(&orders), [(1, "b".into()), (2, "cc".into()), (3, "d".into())]);
    core.hear(2, hello(OURS));
    // One that knows gets the rest only.
    let orders = core.hear(3, follow(9, Some((id, 3))));
    assert_eq!(orders[0], Order::Say(9, following(id, 3, 3)));
    assert_eq!(lines(&orders), [(3, "d".into())]);
    assert_eq!(lines(&core.hear(4, printed(id, "e\n"))), [(4, "e".into())]);
}

/// A machine that came back to an earlier instant has followers in its memory: a host must know them from those that it began.
#[test]
fn a_follower_says_in_which_session_it_was_begun_and_for_how_long_it_runs() {
    let mut core = Core::new("boot", 100);
    let session = |nonce: u8| {
        let (version, nonce, owner) = (VERSION, [nonce; 16], OURS);
        Input::Said(0, ToAgent::Hello { version, nonce, owner })
    };
    let said = |orders: Vec<Order>| {
        let of = |o: &Order| match o {
            Order::Say(_, FromAgent::Following { session, ran_ms, .. }) => Some((session[0], *ran_ms)),
            _ => None,
        };
        orders.iter().find_map(of)
    };
    core.hear(10, session(1));
    assert_eq!(said(core.hear(20, follow(1, None))), Some((1, 0)));
    core.hear(30, session(2));
    assert_eq!(said(core.hear(50, follow(4, None))), Some((1, 30)));
    // Whoever ends it and asks again gets one of this session.
    core.hear(60, Input::Said(4, ToAgent::Kill));
    assert_eq!(said(core.hear(70, follow(5, None))), Some((2, 0)));
}

#[test]
fn a_follower_that_is_not_the_one_that_is_meant_is_begun_anew() {
    for from in [Some((7, 0)), Some((100, 9)), Some((100, 0))] {
        let mut core = begun();
        let id = spawned(&core.hear(0, follow(1, None)))[0];
        core.hear(0, printed(id, "a\nb\n"));
        core.hear(0, Input::Said(1, ToAgent::Ack { next: 1 }));
        core.hear(0, hello(OURS));
        let orders = core.hear(1, follow(1, from));
        assert_eq!(killed(&orders), [id], "{from:?}");
        assert_eq!(spawned(&orders), [id + 1], "{from:?}");
        assert!(orders.contains(&Order::Say(1, following(id + 1, 0, 0))));
        assert_eq!(core.hear(2, printed(id, "z\n")), []);
    }
}

#[test]
fn a_follower_that_nobody_asks_for_is_ended() {
    let mut core = begun();
    let id = spawned(&core.hear(0, follow(1, None)))[0];
    core.hear(0, Input::Gone);
    assert_eq!(core.due(), None);
    core.hear(10, hello(OURS));
    assert_eq!(core.due(), Some(10 + ADOPT_WITHIN));
    assert_eq!(killed(&core.hear(10 + ADOPT_WITHIN, Input::Tick)), [id]);
}

#[test]
fn the_end_of_a_follower_waits_for_its_last_line() {
    let mut core = begun();
    let id = spawned(&core.hear(0, follow(1, None)))[0];
    core.hear(0, printed(id, "a\n"));
    core.hear(0, Input::Output(id, Stream::Err, b"why".to_vec()));
    assert_eq!(
        ended(&core.hear(0, Input::Ended(id, End::Exited(3)))),
        Some((1, End::Exited(3)))
    );
    core.hear(0, hello(OURS));
    let orders = core.hear(0, follow(1, None));
    assert_eq!(
        (lines(&orders), ended(&orders)),
        (vec![(0, "a".into())], Some((1, End::Exited(3))))
    );
    core.hear(0, Input::Said(1, ToAgent::Ack { next: 1 }));
    // It is forgotten: the next one is new.
    assert_eq!(spawned(&core.hear(0, follow(1, None))), [id + 1]);
}

#[test]
fn a_command_that_does_not_end_in_time_is_killed_and_said_so() {
    let mut core = begun();
    let id = spawned(&core.hear(0, run(1, 50)))[0];
    assert_eq!(core.due(), Some(50));
    assert_eq!(core.hear(49, Input::Tick), []);
    assert_eq!(killed(&core.hear(50, Input::Tick)), [id]);
    assert_eq!(core.due(), None);
    let orders = core.hear(51, Input::Ended(id, End::Signalled(9)));
    assert_eq!(ended(&orders), Some((1, End::TimeRanOut)));
    // What could not begin ends as in a shell.
    let id = spawned(&core.hear(0, run(1, 50)))[0];
    let orders = core.hear(0, Input::NotBegun(id, 127, "x: not found".into()));
    assert_eq!(
        orders[0],
        Order::Say(1, FromAgent::Output(Stream::Err, b"x: not found\n".to_vec()))
    );
    assert_eq!(ended(&orders), Some((1, End::Exited(127))));
}

#[test]
fn neither_side_sends_more_than_the_other_takes() {
    let mut core = begun();
    let id = spawned(&core.hear(0, run(1, 50)))[0];
    assert_eq!(core.room(id, Stream::Out), WINDOW);
    core.hear(0, Input::Output(id, Stream::Out, vec![0; WINDOW]));
    assert_eq!(core.room(id, Stream::Err), 0);
    core.hear(0, Input::Said(1, ToAgent::Credit(10)));
    assert_eq!(core.room(id, Stream::Err), 10);
    assert!(is_refused(
        &core.hear(0, Input::Said(1, ToAgent::Credit(WINDOW as u32)))
    ));
    let mut core = begun();
    let id = spawned(&core.hear(0, run(1, 50)))[0];
    let most = ToAgent::Input(vec![0; INPUT_WINDOW]);
    assert!(!is_refused(&core.hear(0, Input::Said(1, most.clone()))));
    let credit = core.hear(0, Input::Taken(id, 5));
    assert_eq!(credit, [Order::Say(1, FromAgent::Credit(5))]);
    assert!(is_refused(&core.hear(0, Input::Said(1, most))));
}

#[test]
fn whoever_breaks_the_rules_has_no_session_any_more() {
    let put = |length| ToAgent::Put {
        path: "/a".into(),
        mode: 0,
        length,
    };
    let get = ToAgent::Get { path: "/a".into() };
    let input = || ToAgent::Input(vec![1; 4]);
    let run = |within_ms| ToAgent::Run {
        argv: vec!["x".into()],
        within_ms,
    };
    for said in [
        vec![run(1), run(1)],
        vec![run(1), ToAgent::Ack { next: 0 }],
        vec![run(1), ToAgent::InputEnd, ToAgent::InputEnd],
        vec![run(1), ToAgent::InputEnd, input()],
        vec![put(3), input()],
        vec![put(5), input(), ToAgent::InputEnd],
        vec![get, input()],
    ] {
        let mut core = begun();
        let last = said.len() - 1;
        for (n, said) in said.iter().enumerate() {
            let orders = core.hear(0, Input::Said(1, said.clone()));
            assert_eq!(is_refused(&orders), n == last, "{said:?}");
        }
        assert!(is_refused(&core.hear(0, Input::Said(2, ToAgent::Look))), "{said:?}");
    }
}

#[test]
fn jobs_and_lines_are_bounded() {
    let mut core = begun();
    for n in 0..JOBS as u32 {
        assert_eq!(spawned(&core.hear(0, run(n + 1, 50))).len(), 1);
    }
    let orders = core.hear(0, run(99, 50));
    assert!(
        matches!(&orders[..], [Order::Say(99, FromAgent::Failed { .. })]),
        "{orders:?}"
    );
    let mut core = begun();
    let id = spawned(&core.hear(0, follow(1, None)))[0];
    let mut printed_bytes = 0;
    while core.room(id, Stream::Out) > 0 {
        let room = core.room(id, Stream::Out);
        core.hear(0, Input::Output(id, Stream::Out, b"\n".repeat(room)));
        printed_bytes += room;
    }
    assert!(printed_bytes < 10_000, "{printed_bytes}");
    core.hear(
        0,
        Input::Said(
            1,
            ToAgent::Ack {
                next: printed_bytes as u64,
            },
        ),
    );
    assert!(core.room(id, Stream::Out) > 0);
    let orders = core.hear(0, Input::Output(id, Stream::Out, vec![b'x'; MAX_LINE + 1]));
    assert_eq!(killed(&orders), [id]);
    let rest = core.hear(0, Input::Output(id, Stream::Out, b"the rest\n".to_vec()));
    assert_eq!(rest, [], "the rest of it is nobody's");
    assert_eq!(
        ended(&core.hear(0, Input::Ended(id, End::Signalled(9)))),
        Some((1, End::LineTooLong))
    );
}

/// What happens to a follower and its host.
#[derive(Debug, Clone)]
enum Step {
    Print(usize),
    /// The host reads so many of the messages that are on their way.
    Read(usize),
    Ack,
    /// The connection breaks; what is on its way is lost. The host remembers what it had, or is a new one that has its journal.
    Break {
        remembers: bool,
    },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        (1..5usize).prop_map(Step::Print),
        (1..9usize).prop_map(Step::Read),
        Just(Step::Ack),
        any::<bool>().prop_map(|remembers| Step::Break { remembers }),
    ]
}

proptest! {
    /// A host that remembers has each line once; one that does not gets nothing twice but what it did not acknowledge.
    #[test]
    fn lines_are_neither_lost_nor_doubled(steps in prop::collection::vec(step(), 1..60)) {
        let mut core = begun();
        let orders = core.hear(0, follow(1, None));
        let id = spawned(&orders)[0];
        let mut on_the_way: Vec<(u64, String)> = lines(&orders);
        let (mut printed_lines, mut acked) = (0u64, 0u64);
        let mut next = 0;
        for step in steps {
            match step {
                Step::Print(count) => for _ in 0..count {
                    on_the_way.extend(lines(&core.hear(0, printed(id, &format!("{printed_lines}\n")))));
                    printed_lines += 1;
                },
                Step::Read(count) => for (number, text) in on_the_way.drain(..count.min(on_the_way.len())) {
                    prop_assert_eq!(number.to_string(), text);
                    prop_assert_eq!(number, next);
                    next += 1;
                },
                Step::Ack => {
                    let orders = core.hear(0, Input::Said(1, ToAgent::Ack { next }));
                    prop_assert_eq!(orders, []);
                    acked = next;
                }
                Step::Break { remembers } => {
                    core.hear(0, hello(OURS));
                    let orders = core.hear(0, follow(1, remembers.then_some((id, next))));
                    prop_assert_eq!(spawned(&orders), []);
                    on_the_way = lines(&orders);
                    if remembers { acked = next } else { next = acked }
                }
            }
        }
        prop_assert_eq!(next + on_the_way.len() as u64, printed_lines);
    }
}

/// Numbers that look random, the same from the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

fn message(dice: &mut Dice) -> (u32, ToAgent) {
    let channel = 1 + dice.roll(6) as u32;
    let argv = vec!["x".to_owned()];
    let said = match dice.roll(14) {
        0 => {
            let (version, nonce, owner) = (VERSION, [0; 16], [dice.roll(2) as u8; 16]);
            return (0, ToAgent::Hello { version, nonce, owner });
        }
        1..=3 => ToAgent::Run {
            argv,
            within_ms: dice.roll(50) as u32,
        },
        4 | 5 => ToAgent::Follow {
            key: dice.roll(3).to_string(),
            argv,
            from: (dice.roll(2) == 0).then(|| (dice.roll(40), dice.roll(5))),
        },
        6 => ToAgent::Ack { next: dice.roll(6) },
        7 => ToAgent::Input(vec![1; dice.roll(9) as usize]),
        8 => ToAgent::InputEnd,
        9 => ToAgent::Credit(dice.roll(90) as u32),
        10 => ToAgent::Kill,
        11 => ToAgent::Put {
            path: "/x".into(),
            mode: 0o600,
            length: dice.roll(9),
        },
        12 => ToAgent::Get { path: "/x".into() },
        _ => ToAgent::Set(std::time::Duration::from_secs(1)),
    };
    (channel, said)
}

/// What is really going on, by the orders that were given.
#[derive(Default)]
struct World {
    groups: BTreeMap<JobId, bool>,
    files: BTreeSet<JobId>,
    session: bool,
}

impl World {
    fn carry_out(&mut self, orders: &[Order]) {
        for order in orders {
            match order {
                Order::Spawn(id, _) => {
                    assert!(self.session, "a program began without a session");
                    assert!(self.groups.insert(*id, false).is_none());
                }
                Order::Kill(id) => assert_eq!(
                    self.groups.insert(*id, true),
                    Some(false),
                    "killed twice, or never begun"
                ),
                Order::Create(id, ..) | Order::Open(id, _) => assert!(self.session && self.files.insert(*id)),
                Order::Drop(id) => assert!(self.files.remove(id), "no such file"),
                Order::Say(0, FromAgent::Welcome { .. }) => self.session = true,
                Order::Say(0, FromAgent::Refused { .. }) => self.session = false,
                _ => {}
            }
        }
        assert!(self.groups.len() + self.files.len() <= JOBS);
    }

    /// Something that the system would tell.
    fn tell(&mut self, dice: &mut Dice, core: &Core) -> Input {
        let pick = |dice: &mut Dice, ids: Vec<JobId>| ids.get(dice.roll(ids.len().max(1) as u64) as usize).copied();
        match dice.roll(6) {
            0 => Input::Gone,
            1 => Input::Tick,
            2 => match pick(dice, self.files.iter().copied().collect()) {
                Some(id) => {
                    self.files.remove(&id);
                    Input::Filed(id, if dice.roll(2) == 0 { Ok(()) } else { Err("no".into()) })
                }
                None => Input::Tick,
            },
            n => match pick(dice, self.groups.keys().copied().collect()) {
                Some(id) if n == 3 => {
                    self.groups.remove(&id);
                    Input::Ended(id, End::Exited(0))
                }
                Some(id) => {
                    let stream = if n == 4 { Stream::Out } else { Stream::Err };
                    let room = core.room(id, stream) as u64;
                    let bytes = b"ab\ncd\n\nef"[..dice.roll(10).min(room) as usize].to_vec();
                    Input::Output(id, stream, bytes)
                }
                None => Input::Tick,
            },
        }
    }
}

/// 20,000 inputs in every run, more through `FAILOVERLAB_FUZZ`: bytes that are frames, nearly frames, and none; in between what the
/// system tells. No panic, no program without a session, each program and file ended once, and never more of them than allowed.
#[test]
fn whatever_arrives_is_survived() {
    let count = std::env::var("FAILOVERLAB_FUZZ")
        .ok()
        .map_or(20_000, |n| n.parse::<u64>().expect("FAILOVERLAB_FUZZ is a number"));
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut core, mut world, mut decoder) = (Core::new("boot", 0), World::default(), Decoder::default());
    let (mut understood, mut begun) = (0u64, 0u64);
    for now in 0..count {
        let (channel, said) = message(&mut dice);
        let mut frame: Frame = said.frame(channel);
        match dice.roll(16) {
            0 => frame.kind = dice.roll(20) as u8,
            1 => frame.body.push(0),
            2 => drop(frame.body.pop()),
            _ => {}
        }
        let mut bytes = Vec::new();
        encode(&frame, &mut bytes);
        if dice.roll(16) == 0 {
            let at = dice.roll(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << dice.roll(8);
        }
        for heard in decoder.take(&bytes) {
            let heard = heard.ok().and_then(|f| Some((f.channel, ToAgent::parse(&f).ok()?)));
            understood += u64::from(heard.is_some());
            let input = heard.map_or(Input::Garbage("bad".into()), |(channel, said)| {
                Input::Said(channel, said)
            });
            let orders = core.hear(now, input);
            begun += spawned(&orders).len() as u64;
            world.carry_out(&orders);
        }
        let told = world.tell(&mut dice, &core);
        let gone = told == Input::Gone;
        world.carry_out(&core.hear(now, told));
        world.session &= !gone;
    }
    assert!(
        understood > count / 2 && begun > count / 50,
        "{understood} understood, {begun} begun"
    );
}
