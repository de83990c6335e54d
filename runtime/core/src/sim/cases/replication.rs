//! The copy: what it takes in, what it says of itself, and what it keeps.

use super::fixture::Lab;
use super::orderly::{lost, serves, state, with_an_open_log};
use ccr_contract::status::ServiceState;

#[test]
fn what_the_old_node_still_has_is_taken_before_anybody_mounts_with_a_loss() {
    let mut lab = Lab::new(1, 400);
    lab.secs(16);
    let a = lab.active();
    lab.world.throttled = true;
    lab.secs(16);
    with_an_open_log(&mut lab);
    lab.power_off(a);
    lab.world.throttled = false;
    lab.until(20, "the dial refuses", |lab| {
        state(lab, 1 - a) == Some(ServiceState::PartiallyOnline)
    });
    lab.secs(5);
    let mark = lab.mark();
    lab.start(a);
    lab.until(40, "it serves with everything", |lab| serves(lab, 1 - a));
    assert!(lab.since(mark, "copy.lost").is_empty(), "{}", lab.tail(20));
    assert_eq!(lost(&mut lab, 1 - a), Vec::<String>::new());
    lab.secs(30);
    lab.converges();
}

#[test]
fn both_without_power_lose_nothing_whoever_is_back_first() {
    for first in 0..2 {
        let mut lab = Lab::new(1, 400);
        lab.secs(20);
        let a = with_an_open_log(&mut lab);
        lab.power_off(0);
        lab.power_off(1);
        lab.secs(2);
        let mark = lab.mark();
        let first = if first == 0 { a } else { 1 - a };
        lab.start(first);
        lab.secs(1);
        lab.start(1 - first);
        lab.until(40, "one of them serves", |lab| {
            !lab.since(mark, "service.online ").is_empty()
        });
        let b = lab.active();
        assert_eq!(lost(&mut lab, b), Vec::<String>::new(), "{first} first");
        lab.secs(30);
        lab.converges();
    }
}
