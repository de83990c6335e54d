use super::*;
use crate::fabric::{Bandwidth, Flap};
use crate::units::{Percent, Size, Span};
use proptest::prelude::*;

fn rule(effect: Effect) -> Rule {
    Rule {
        id: "r".into(),
        network: "n".into(),
        from: "a".into(),
        to: "b".into(),
        matches: Match::default(),
        effect,
        seed: 7,
    }
}

/// Outcomes of `n` frames of `len` bytes, `gap` nanoseconds apart.
fn run(effect: &Effect, n: usize, len: usize, gap: u64) -> Vec<(Option<Drop>, Decision)> {
    let r = rule(effect.clone());
    let mut flow = FlowState::new(&r, "a", "b", 0);
    let s = Summary {
        payload: 14,
        ..Summary::default()
    };
    (0..n as u64)
        .map(|i| {
            let mut decision = Decision::default();
            (flow.apply(effect, len, &s, i * gap, &mut decision), decision)
        })
        .collect()
}

fn share<T>(all: &[T], f: impl Fn(&T) -> bool) -> f64 {
    all.iter().filter(|x| f(x)).count() as f64 / all.len() as f64
}

#[test]
fn loss_has_its_share_and_its_bursts() {
    let even = run(
        &Effect {
            loss: Some(Percent(30.0)),
            ..Effect::default()
        },
        20_000,
        100,
        1,
    );
    assert!((share(&even, |o| o.0.is_some()) - 0.3).abs() < 0.02);
    let bursty = run(
        &Effect {
            loss: Some(Percent(30.0)),
            burst: Some(10),
            ..Effect::default()
        },
        50_000,
        100,
        1,
    );
    assert!((share(&bursty, |o| o.0.is_some()) - 0.3).abs() < 0.03);
    let bursts = bursty
        .windows(2)
        .filter(|w| w[0].0.is_none() && w[1].0.is_some())
        .count();
    let mean = bursty.iter().filter(|o| o.0.is_some()).count() as f64 / bursts as f64;
    assert!((8.0..12.0).contains(&mean), "{mean}");
    let all = run(
        &Effect {
            loss: Some(Percent(100.0)),
            burst: Some(3),
            ..Effect::default()
        },
        100,
        100,
        1,
    );
    assert!(all.iter().all(|o| o.0 == Some(Drop::Loss)));
    let none = run(
        &Effect {
            loss: Some(Percent(0.0)),
            ..Effect::default()
        },
        1000,
        100,
        1,
    );
    assert!(none.iter().all(|o| o.0.is_none()));
}

#[test]
fn a_rate_spaces_frames_and_its_queue_is_bounded() {
    // 1250 bytes at 10 Mbit/s are 1 ms; ten fit into the queue.
    let e = Effect {
        rate: Some(Bandwidth(10_000_000)),
        queue: Some(Size(12_500)),
        ..Effect::default()
    };
    let out = run(&e, 20, 1250, 0);
    for (i, (drop, decision)) in out.iter().enumerate() {
        if i < 10 {
            assert_eq!((*drop, decision.delay), (None, (i as u64 + 1) * 1_000_000));
        } else {
            assert_eq!(*drop, Some(Drop::Queue));
        }
    }
    // At half the rate nothing waits.
    assert!(
        run(&e, 20, 1250, 2_000_000)
            .iter()
            .all(|(d, f)| d.is_none() && f.delay == 1_000_000)
    );
}

#[test]
fn jitter_keeps_order_and_reorder_breaks_it() {
    let base = Effect {
        delay: Some(Span::millis(100)),
        jitter: Some(Span::millis(50)),
        ..Effect::default()
    };
    for d in [Distribution::Uniform, Distribution::Normal, Distribution::Pareto] {
        let e = Effect {
            distribution: Some(d),
            ..base.clone()
        };
        let gap = 10_000_000;
        let due: Vec<u64> = run(&e, 500, 100, gap)
            .iter()
            .enumerate()
            .map(|(i, o)| i as u64 * gap + o.1.delay)
            .collect();
        assert!(due.is_sorted(), "{d:?}");
        let delays: Vec<u64> = due.iter().enumerate().map(|(i, d)| d - i as u64 * gap).collect();
        assert!(delays.iter().max() > delays.iter().min(), "{d:?}");
    }
    let e = Effect {
        reorder: Some(Percent(20.0)),
        ..base
    };
    let out = run(&e, 5000, 100, 1);
    assert!((share(&out, |o| o.1.delay == 0) - 0.2).abs() < 0.03);
}

#[test]
fn a_flap_begins_cut_and_an_mtu_drops_only_what_is_longer() {
    let e = Effect {
        flap: Some(Flap {
            down: Span::millis(10),
            up: Span::millis(30),
        }),
        ..Effect::default()
    };
    let out = run(&e, 80, 100, 1_000_000);
    for (ms, (drop, _)) in out.iter().enumerate() {
        assert_eq!(drop.is_some(), ms % 40 < 10, "{ms} ms");
    }
    let e = Effect {
        mtu: Some(1000),
        ..Effect::default()
    };
    assert_eq!(run(&e, 1, 1014, 0)[0].0, None);
    assert_eq!(run(&e, 1, 1015, 0)[0].0, Some(Drop::Mtu));
}

#[test]
fn nonsense_is_named() {
    let cases = [
        (Effect::default(), "no effect"),
        (
            Effect {
                burst: Some(2),
                ..Effect::cut()
            },
            "needs a loss",
        ),
        (
            Effect {
                loss: Some(Percent(90.0)),
                burst: Some(2),
                ..Effect::default()
            },
            "at most 66.7%",
        ),
        (
            Effect {
                loss: Some(Percent(120.0)),
                ..Effect::default()
            },
            "between 0% and 100%",
        ),
        (
            Effect {
                rate: Some(Bandwidth(0)),
                ..Effect::default()
            },
            "rate of zero",
        ),
        (
            Effect {
                jitter: Some(Span::millis(1)),
                ..Effect::default()
            },
            "needs a delay",
        ),
        (
            Effect {
                flap: Some(Flap {
                    down: Span::millis(0),
                    up: Span::millis(0),
                }),
                ..Effect::default()
            },
            "above zero",
        ),
        (
            Effect {
                queue: Some(Size(1)),
                ..Effect::cut()
            },
            "needs a rate",
        ),
        (
            Effect {
                mend: true,
                ..Effect::cut()
            },
            "needs `corrupt`",
        ),
        (
            Effect {
                delay: Some(Span::secs(3600)),
                ..Effect::default()
            },
            "at most 60 s",
        ),
    ];
    for (effect, text) in cases {
        let said = nonsense(&effect).unwrap_or_default();
        assert!(said.contains(text), "{said} / {text}");
    }
    assert_eq!(nonsense(&Effect::cut()), None);
}

fn some_effect() -> impl Strategy<Value = Effect> {
    let pct = || proptest::option::of((0.0..=100.0f64).prop_map(Percent));
    let span = || proptest::option::of((0u64..200).prop_map(Span::millis));
    (
        pct(),
        pct(),
        pct(),
        pct(),
        span(),
        span(),
        proptest::option::of(1u64..100_000_000),
        any::<bool>(),
    )
        .prop_map(
            |(loss, corrupt, duplicate, reorder, delay, jitter, rate, mend)| Effect {
                loss,
                corrupt,
                mend: mend && corrupt.is_some(),
                duplicate,
                rate: rate.map(Bandwidth),
                delay,
                jitter: jitter.and(delay),
                reorder: reorder.filter(|_| delay.is_some()),
                ..Effect::default()
            },
        )
}

proptest! {
    #[test]
    fn the_same_seed_and_frames_give_the_same_decisions(e in some_effect(), gap in 0u64..1_000_000) {
        prop_assert_eq!(run(&e, 50, 200, gap), run(&e, 50, 200, gap));
    }

    #[test]
    fn an_effect_beside_it_does_not_change_which_frames_are_lost(e in some_effect()) {
        // Loss draws first and every draw count is fixed, so adding a fixed delay keeps the losses.
        let with = Effect { delay: Some(Span::millis(5)), jitter: None, reorder: None, rate: None, ..e.clone() };
        let without = Effect { delay: None, ..with.clone() };
        let losses = |e: &Effect| run(e, 50, 200, 10).iter().map(|o| o.0).collect::<Vec<_>>();
        prop_assert_eq!(losses(&with), losses(&without));
    }
}
