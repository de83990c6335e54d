//! Orders as an operator gives them, in the original's words: they say why not, and when they are done.

use crate::cluster::Cluster;
use crate::failover::{SETTINGS, SOON, healthy, other};
use ccr_contract::status::ServiceState;

#[test]
fn a_service_is_stopped_moved_started_and_its_copy_seeded() {
    let Some(cluster) = Cluster::start(SETTINGS) else {
        return;
    };
    let first = cluster.until("the service is online", SOON, Cluster::active);
    let second = other(first);
    cluster.until("the copy is healthy", SOON, |c| healthy(c, second));
    let said = cluster.ctl(first, &["cms", "status"]).expect("a status");
    assert!(
        said.contains(&format!("{first} <Active>")) && said.contains("<Quorum Owner>"),
        "{said}"
    );
    // What is mandatory, and what is only validated.
    for words in [
        &["cms", "stop"][..],
        &["cms", "move", second],
        &["move", second, "--comment", " "],
    ] {
        let refused = cluster.ctl(first, words).expect_err("without a comment");
        assert!(refused.contains("--comment"), "{refused}");
    }
    let validate = ["cms", "move", second, "--validate-only"];
    let said = cluster.ctl(first, &validate).expect("a healthy copy");
    assert!(said.contains("nothing stands in the way"), "{said}");
    assert_eq!(cluster.active(), Some(first), "nothing was moved");
    a_hundred_and_fifty_recipients_and_the_odd_ones_out(&cluster);

    // The order of an upgrade: stop, move, start.
    let stop = ["cms", "stop", "--comment", "upgrade"];
    cluster.ctl(first, &stop).expect("it stops");
    let state = |c: &Cluster| Some(c.status(first)?.service?.state);
    assert_eq!(state(&cluster), Some(ServiceState::Offline), "done is done");
    let to_the_other = ["cms", "move", "--comment", "upgrade"];
    let said = cluster.ctl(first, &to_the_other).expect("it is moved");
    assert!(said.contains(&format!("belongs to {second} now")), "{said}");
    cluster.ctl(first, &["cms", "start"]).expect("it starts");
    cluster.until("it serves there", SOON, |c| (c.active()? == second).then_some(()));
    assert_eq!(cluster.stored("box149"), Some(1));

    // A seed that is waited for, from either node.
    cluster.until("the copy is healthy", SOON, |c| healthy(c, first));
    for node in [first, second] {
        let said = cluster.ctl(node, &["copy", "update", "--wait"]).expect("a seed");
        assert!(said.contains("Healthy after"), "{said}");
        assert!(healthy(&cluster, first).is_some(), "done is done");
    }

    comments_are_told(&cluster, [first, second]);

    // The lab file's and the original's words.
    for (setting, recorded) in [
        ("dial=GoodAvailability", "dial=good-availability"),
        ("heartbeat=0.35 s", "heartbeat_ms=350"),
    ] {
        let said = cluster.ctl(second, &["cluster", "set", setting]).expect(setting);
        assert!(said.contains(recorded), "{said}");
    }
    let seeds = ["cluster", "events", "--kind", "copy.seeding", "--since", "10m"];
    for (node, ordered) in [(first, 2), (second, 0)] {
        let said = cluster.ctl(node, &seeds).expect("events");
        let by_order = said.lines().filter(|l| l.contains("an operator ordered it"));
        assert_eq!(by_order.count(), ordered, "{node}: {said}");
        assert!(said.lines().all(|l| l.contains("  copy.seeding ")), "{said}");
    }
}

/// Why the service was stopped, and a copy suspended, by whoever carried it out.
fn comments_are_told(cluster: &Cluster, nodes: [&str; 2]) {
    let suspend = ["copy", "suspend", "--comment", "a look"];
    cluster.ctl(nodes[0], &suspend).expect("it is suspended");
    cluster.ctl(nodes[0], &["copy", "resume"]).expect("it is resumed");
    for (kind, comment) in [("service.stop", "upgrade"), ("copy.suspend", "a look")] {
        let told = nodes.map(|n| cluster.ctl(n, &["cluster", "events", "--kind", kind]).expect("events"));
        let told: Vec<&str> = told.iter().flat_map(|t| t.lines()).collect();
        let comment = format!("comment=\"{comment}\"");
        assert!(matches!(&told[..], [line] if line.contains(&comment)), "{told:?}");
    }
}

fn a_hundred_and_fifty_recipients_and_the_odd_ones_out(cluster: &Cluster) {
    let names: Vec<String> = (0..150).map(|n| format!("box{n}@lab")).collect();
    let to: Vec<&str> = names.iter().map(String::as_str).collect();
    let message = "Message-ID: <all@test>\r\n\r\nhello\r\n";
    cluster.submit(&to, message).expect("accepted");
    for (odd, code) in [("a/b@lab", "550 5.1.1"), ("ann", "501 5.1.3"), ("gü@lab", "553 5.6.7")] {
        let refused = cluster.submit(&["ann@lab", odd], message).expect_err("no such mailbox");
        assert!(refused.starts_with(code), "{refused}");
    }
    cluster.submit(&["postmaster"], message).expect("accepted");
    for name in ["box0", "box149", "postmaster"] {
        cluster.until(name, SOON, |c| (c.stored(name)? == 1).then_some(()));
    }
}
