use super::*;
use proptest::prelude::*;

fn to_agent() -> impl Strategy<Value = (u32, ToAgent)> {
    let text = "[ -~]{0,20}";
    let argv = || prop::collection::vec("[ -~]{1,9}", 1..5);
    let bytes = || prop::collection::vec(any::<u8>(), 0..50);
    let on_zero = (any::<u16>(), any::<[u8; 16]>(), any::<[u8; 16]>())
        .prop_map(|(version, nonce, owner)| (0, ToAgent::Hello { version, nonce, owner }));
    let others = prop_oneof![
        (argv(), any::<u32>()).prop_map(|(argv, within_ms)| ToAgent::Run { argv, within_ms }),
        (text, argv(), any::<Option<(u64, u64)>>()).prop_map(|(key, argv, from)| ToAgent::Follow { key, argv, from }),
        any::<u64>().prop_map(|next| ToAgent::Ack { next }),
        bytes().prop_map(ToAgent::Input),
        Just(ToAgent::InputEnd),
        any::<u32>().prop_map(ToAgent::Credit),
        Just(ToAgent::Kill),
        (text, any::<u32>(), any::<u64>()).prop_map(|(p, mode, length)| ToAgent::Put {
            path: format!("/{p}"),
            mode,
            length
        }),
        text.prop_map(|p| ToAgent::Get { path: format!("/{p}") }),
        Just(ToAgent::Look),
        (any::<u32>(), 0..1_000_000_000u32).prop_map(|(s, n)| ToAgent::Set(Duration::new(s.into(), n))),
        Just(ToAgent::Sample),
    ];
    prop_oneof![on_zero, (1..u32::MAX, others)]
}

fn from_agent() -> impl Strategy<Value = (u32, FromAgent)> {
    let text = || "[ -~]{0,20}";
    let bytes = || prop::collection::vec(any::<u8>(), 0..50);
    let time = || (any::<u32>(), 0..1_000_000_000u32).prop_map(|(s, n)| Duration::new(s.into(), n));
    let clock = move || (time(), time()).prop_map(|(time, boottime)| Clock { time, boottime });
    let port = (text(), any::<Option<bool>>()).prop_map(|(name, carrier)| NetworkPort { name, carrier });
    let end = prop_oneof![
        any::<i32>().prop_map(End::Exited),
        any::<i32>().prop_map(End::Signalled),
        Just(End::TimeRanOut),
        Just(End::Killed),
        Just(End::LineTooLong)
    ];
    let on_zero = prop_oneof![
        (any::<u16>(), any::<[u8; 16]>(), text()).prop_map(|(version, nonce, boot_id)| FromAgent::Welcome {
            version,
            nonce,
            boot_id
        }),
        text().prop_map(|why| FromAgent::Refused { why }),
    ];
    let others = prop_oneof![
        bytes().prop_map(|b| FromAgent::Output(Stream::Out, b)),
        bytes().prop_map(|b| FromAgent::Output(Stream::Err, b)),
        any::<u32>().prop_map(FromAgent::Credit),
        (any::<u64>(), any::<u64>(), any::<[u8; 16]>(), any::<u64>()).prop_map(|(id, next, session, ran_ms)| {
            FromAgent::Following {
                id,
                next,
                session,
                ran_ms,
            }
        }),
        (any::<u64>(), bytes()).prop_map(|(number, text)| FromAgent::Line { number, text }),
        (end, bytes()).prop_map(|(how, stderr)| FromAgent::Ended { how, stderr }),
        Just(FromAgent::Done),
        text().prop_map(|why| FromAgent::Failed { why }),
        clock().prop_map(FromAgent::Clock),
        (text(), clock(), any::<[u32; 3]>(), prop::collection::vec(port, 0..4)).prop_map(
            |(boot_id, clock, load, ports)| FromAgent::Sampled(Sample {
                boot_id,
                clock,
                load,
                ports
            })
        ),
    ];
    prop_oneof![on_zero.prop_map(|m| (0, m)), (1..u32::MAX, others)]
}

proptest! {
    #[test]
    fn what_the_host_says_is_understood((channel, said) in to_agent()) {
        prop_assert_eq!(ToAgent::parse(&said.frame(channel)), Ok(said));
    }

    #[test]
    fn what_the_agent_says_is_understood((channel, said) in from_agent()) {
        prop_assert_eq!(FromAgent::parse(&said.frame(channel)), Ok(said));
    }

    /// What is taken for a message is one: said again, it is the same bytes.
    #[test]
    fn nothing_else_is_taken_for_a_message(
        kind in 0..16u8, channel in 0..3u32, body in prop::collection::vec(0..8u8, 0..60),
    ) {
        let frame = Frame { kind, channel, body };
        if let Ok(said) = FromAgent::parse(&frame) {
            prop_assert_eq!(said.frame(channel), frame.clone());
        }
        match ToAgent::parse(&frame) {
            Ok(ToAgent::Hello { version, .. }) if version != VERSION => {}
            Err(_) => {}
            Ok(said) => prop_assert_eq!(said.frame(channel), frame),
        }
    }
}

#[test]
fn hostile_words_are_refused() {
    let run = |argv: &[&str]| {
        let argv = argv.iter().map(|a| (*a).to_owned()).collect();
        ToAgent::parse(&ToAgent::Run { argv, within_ms: 1 }.frame(1))
    };
    assert!(run(&["x", ""]).is_ok());
    assert!(run(&[]).is_err() && run(&[""]).is_err() && run(&["x", "a\0b"]).is_err());
    let get = |path: String| ToAgent::parse(&ToAgent::Get { path }.frame(1));
    assert!(get("/a\nb".into()).is_ok());
    for bad in ["", "a", "/a\0", &format!("/{}", "x".repeat(4095))] {
        assert!(get(bad.to_owned()).is_err(), "{bad:?}");
    }
    let mut bad = ToAgent::Get { path: "/a".into() }.frame(1);
    bad.body[4] = 0xff;
    assert_eq!(ToAgent::parse(&bad), Err(Malformed("a text is no UTF-8")));
    assert!(ToAgent::parse(&ToAgent::Look.frame(0)).is_err() && FromAgent::parse(&FromAgent::Done.frame(0)).is_err());
}

#[test]
fn a_reason_is_cut_where_a_letter_ends() {
    let why = "ä".repeat(MAX_WHY);
    let said = FromAgent::parse(&FromAgent::Failed { why: why.clone() }.frame(1)).unwrap();
    assert_eq!(
        said,
        FromAgent::Failed {
            why: why[..MAX_WHY].into()
        }
    );
}
