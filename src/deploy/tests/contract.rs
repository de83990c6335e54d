//! What a pack's commands answer: status, orders, events.

use super::*;
use crate::error::Result;
use crate::guest::Remote;
use ccr_contract::dump::Dump;
use ccr_contract::status::Status;

fn status(remote: &mut dyn Remote, pack: &Pack, deadline: Deadline) -> Result<Status> {
    let lab = spec::example("ccr");
    super::super::status(remote, pack, &lab, &lab.nodes[0], deadline)
}

fn dump(remote: &mut dyn Remote, pack: &Pack, deadline: Deadline) -> Result<Dump> {
    let lab = spec::example("ccr");
    super::super::dump(remote, pack, &lab, &lab.nodes[0], deadline)
}

fn operate(remote: &mut dyn Remote, pack: &Pack, word: &str, args: &[String], deadline: Deadline) -> Result<Answer> {
    let lab = spec::example("ccr");
    super::super::operate(remote, pack, &lab, &lab.nodes[0], word, args, deadline)
}

#[test]
fn only_the_contracts_json_is_taken() {
    let pack = Pack::load("ccr").unwrap();
    let good = r#"{"schema":1,"node":"hub","version":"0.1.0","epoch":7,"cluster":null,"service":null}"#;
    let mut remote = FakeRemote::new().answer(&["ccrctl", "status", "--json"], 0, good);
    assert_eq!(status(&mut remote, &pack, soon()).unwrap().epoch, 7);
    for bad in [
        "",
        "null",
        "Status: fine",
        "{",
        r#"{"schema":1}"#,
        "\u{0}",
        &good.replace("\"schema\":1", "\"schema\":2"),
        &format!("{good}x"),
    ] {
        let mut remote = FakeRemote::new().answer(&["ccrctl", "status"], 0, bad);
        let e = status(&mut remote, &pack, soon()).unwrap_err();
        assert_eq!(e.exit_code(), 5, "{bad}: {e}");
        let mut remote = FakeRemote::new().answer(&["ccrctl", "dump"], 0, bad);
        assert!(dump(&mut remote, &pack, soon()).is_err());
    }
    let mut remote = FakeRemote::new().answer(&["ccrctl", "status"], 0, vec![b' '; 2 << 20]);
    assert!(
        status(&mut remote, &pack, soon())
            .unwrap_err()
            .to_string()
            .contains("at most 1 MiB")
    );
    let mut remote = FakeRemote::new().complain(&["ccrctl", "status"], 1, "no daemon\n");
    assert!(
        status(&mut remote, &pack, soon())
            .unwrap_err()
            .to_string()
            .contains("no daemon")
    );
}

#[test]
fn orders_are_those_of_the_pack() {
    let pack = Pack::load("ccr").unwrap();
    let mut remote = FakeRemote::new()
        .answer(&["ccrctl", "move"], 0, r#"{"done":"node2 serves"}"#)
        .answer(&["ccrctl", "start"], 0, r#"{"other":1}"#)
        .answer(&["ccrctl", "stop"], 0, "\n");
    let answer = operate(&mut remote, &pack, "move", &["node2".into()], soon()).unwrap();
    let done = |seen: &str| Answer {
        done: true,
        seen: seen.into(),
    };
    assert_eq!(answer, done("node2 serves"));
    let words = ["ccrctl", "move", "--comment", "failoverlab", "node2"];
    assert_eq!(remote.argvs()[0], words, "a comment is mandatory");
    let start = operate(&mut remote, &pack, "start", &[], soon()).unwrap();
    assert_eq!(start, done(r#"{"other":1}"#));
    assert_eq!(operate(&mut remote, &pack, "stop", &[], soon()).unwrap(), done(""));
    let e = operate(&mut remote, &pack, "mvoe", &[], soon()).unwrap_err();
    assert_eq!(e.exit_code(), 2);
    assert_eq!(remote.commands.len(), 3);
}

#[test]
fn a_refusal_is_an_answer_and_a_failure_is_none() {
    let pack = Pack::load("ccr").unwrap();
    let order = |mut remote: FakeRemote| operate(&mut remote, &pack, "move", &[], soon());
    let to = &["ccrctl", "move"];
    let refused = order(FakeRemote::new().complain(to, 1, "ccrctl: the copy is Suspended\n")).unwrap();
    assert_eq!(
        refused,
        Answer {
            done: false,
            seen: "ccrctl: the copy is Suspended".into()
        }
    );
    // Wrong words, no daemon, no such command, killed.
    for status in [2, 3, 127, 137] {
        let e = order(FakeRemote::new().complain(to, status, "ccrctl: why\n")).unwrap_err();
        assert!(
            matches!(&e, Error::Operation(p) if p.observed.as_deref().unwrap().contains("why")),
            "{e}"
        );
    }
    for remote in [
        FakeRemote::new().die(to, "connection reset"),
        FakeRemote::new().answer(to, 0, "Moved.\n"),
    ] {
        assert!(matches!(order(remote), Err(Error::Operation(_))));
    }
}

#[test]
fn events_are_handed_out_until_a_line_is_none() {
    let pack = Pack::load("ccr").unwrap();
    let line = |seq| format!(r#"{{"seq":{seq},"node_t_us":5,"kind":"service.online","severity":"info"}}"#);
    let follow = |text: String| {
        let mut seen = Vec::new();
        let mut remote = FakeRemote::new().answer(&["ccrctl", "events"], 0, text);
        let end = follow_events(&mut remote, &pack, &mut |e| {
            seen.push(e.seq);
            e.seq < 2
        });
        (seen, end)
    };
    let (seen, end) = follow(format!("{}\n{}\n{}\n{}\n", line(0), line(1), line(2), line(3)));
    assert!(end.is_ok() && seen == [0, 1, 2]);
    let (seen, end) = follow(format!("{}\nccrd: panicked\n{}\n", line(0), line(1)));
    assert_eq!(seen, [0]);
    assert!(end.unwrap_err().to_string().contains("ccrd: panicked"));
}

#[test]
fn a_watch_hands_out_statuses_bad_lines_and_silence() {
    let pack = Pack::load("ccr").unwrap();
    let argv = pack.runtime.contract.watch.as_deref().unwrap();
    let line = |t: &str| {
        format!(r#"{{"schema":1,"node":"hub","version":"1","epoch":7,"cluster":null,"service":null,"node_t_us":{t}}}"#)
    };
    let follow = |text: String| {
        let mut seen = Vec::new();
        let mut remote = FakeRemote::new().answer(&["ccrctl", "status", "--json", "--follow"], 0, text);
        watch(&mut remote, argv, &mut |s| {
            match s {
                Watched::Said(s) => seen.push(Some(
                    s.map(|s| s.node_t_us.unwrap_or_default()).map_err(|e| e.to_string()),
                )),
                Watched::Nothing => seen.push(None),
                Watched::Begins => assert!(seen.is_empty()),
                Watched::GoesOn => unreachable!("nobody began it before"),
            }
            true
        })
        .unwrap();
        seen
    };
    assert_eq!(
        follow(format!("{}\n{}\n", line("5"), line("9"))),
        [Some(Ok(5)), Some(Ok(9)), None]
    );
    for (bad, why) in [
        ("Status: fine".to_owned(), "no such JSON"),
        (line("5").replace("\"schema\":1", "\"schema\":2"), "schema 2"),
        (line("null"), "node_t_us"),
        (" ".repeat((1 << 20) + 1), "at most 1 MiB"),
    ] {
        let seen = follow(format!("{}\n{bad}\n{}\n", line("5"), line("9")));
        assert!(seen[0] == Some(Ok(5)) && seen[2] == Some(Ok(9)), "{seen:?}");
        assert!(
            matches!(&seen[1], Some(Err(e)) if e.contains(why)),
            "{why}: {:?}",
            seen[1]
        );
    }
}

#[test]
fn a_watch_that_names_no_program_is_no_pack() {
    let with = |watch: &str| {
        let text = crate::guest::template::read("ccr/runtime.toml").unwrap();
        let ours = r#"watch = ["ccrctl", "status", "--json", "--follow"]"#;
        assert!(text.contains(ours));
        parsed(&text.replace(ours, watch)).map(|p| p.runtime.contract.watch)
    };
    // One without is a pack all the same.
    assert_eq!(with("").unwrap(), None);
    let e = with("watch = []").unwrap_err().to_string();
    assert!(e.contains("names no program"), "{e}");
}
