use super::draw::draw;
use super::screen::Screen;
use crate::event::{Draft, Event, Severity, Source};
use crate::picture::Place;
use crate::verify::sample::{self, Change, Plan, history};
use crate::verify::{FaultRecord, History, ScenarioReport, Verdict};
use crate::view::{News, Replay, View, tests};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::json;
use std::sync::Arc;

fn replay(id: &str, history: History) -> Replay {
    let report = ScenarioReport::empty(id, "The active node loses power", Verdict::Pass);
    Replay::of(Arc::new(sample::lab()), report, history).unwrap()
}

/// A run in which node1 loses power after eight seconds.
fn power_off() -> Screen {
    Screen::of_run(vec![replay("F05", history(&Plan::new(&[Change::PowerOff])))])
}

fn shown(screen: &Screen, width: u16, height: u16) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(frame, screen)).unwrap();
    let lines: Vec<String> = terminal
        .backend()
        .to_string()
        .lines()
        .map(|l| l.trim_matches('"').trim_end().to_owned())
        .collect();
    lines.join("\n")
}

fn press(screen: &mut Screen, keys: &[KeyCode]) {
    for key in keys {
        assert!(screen.key(KeyEvent::new(*key, KeyModifiers::NONE)), "{key:?} left");
    }
}

/// Seconds since the run began.
fn at(screen: &Screen) -> f64 {
    (screen.now_us - screen.scrub.as_ref().unwrap().extent.from_us) as f64 / 1e6
}

#[test]
fn a_failover_as_a_terminal_shows_it() {
    let mut screen = power_off();
    insta::assert_snapshot!("begin", shown(&screen, 100, 32));
    press(&mut screen, &[KeyCode::Char('n'), KeyCode::Right, KeyCode::Right]);
    insta::assert_snapshot!("no_power", shown(&screen, 100, 32));
    press(&mut screen, &[KeyCode::Char('n')]);
    insta::assert_snapshot!("taken_over", shown(&screen, 150, 26));
}

#[test]
fn a_cut_cable_is_drawn() {
    let mut h = history(&Plan::new(&[]));
    let flow = |from: &str, to: &str| json!({"network": "private", "from": from, "to": to});
    let target = json!({
        "between": [{"role": "active", "node": "node1"}, {"role": "passive", "node": "node2"}],
        "direction": "both", "match": {}, "paths": [flow("node1", "node2"), flow("node2", "node1")],
    });
    h.faults.push(FaultRecord {
        id: 1,
        kind: "cut".into(),
        target,
        begin_us: h.observations[3].t_us,
        end_us: None,
        proof: json!({}),
        effective: None,
        pending: false,
    });
    let mut screen = Screen::of_run(vec![replay("F17", h)]);
    press(&mut screen, &[KeyCode::End]);
    let text = shown(&screen, 110, 32);
    for said in [
        "private  node1 →╳←╳   node2 →╳←╳",
        "node1: out cut to node2; in cut from node2",
        "public   node1 →─←─   node2 →─←─   hub →─←─",
        "○ 1 cut node1 ↔ node2",
        "no effect yet",
    ] {
        assert!(text.contains(said), "{said}:\n{text}");
    }
}

#[test]
fn keys_go_through_the_run() {
    let mut screen = power_off();
    let end = screen.scrub.as_ref().unwrap().extent;
    press(&mut screen, &[KeyCode::Right, KeyCode::Right, KeyCode::Left]);
    assert_eq!(at(&screen), 1.0);
    press(&mut screen, &[KeyCode::PageDown]);
    assert_eq!(at(&screen), 11.0);
    press(&mut screen, &[KeyCode::Home, KeyCode::Char('n')]);
    assert_eq!(screen.view.picture.faults.len(), 1, "the first moment is the fault");
    press(&mut screen, &[KeyCode::Char('n')]);
    assert_eq!(screen.view.picture.service.active.as_deref(), Some("node2"));
    press(&mut screen, &[KeyCode::Char('p')]);
    assert_eq!(screen.view.picture.faults.len(), 1);
    let before = screen.now_us;
    press(&mut screen, &[KeyCode::Char(' ')]);
    screen.pass(500_000);
    assert_eq!(screen.now_us, before + 500_000, "it plays");
    press(&mut screen, &[KeyCode::Char(' ')]);
    screen.pass(500_000);
    assert_eq!(screen.now_us, before + 500_000, "it stands");
    press(&mut screen, &[KeyCode::End, KeyCode::Right]);
    assert_eq!(screen.now_us, end.to_us);
    let quit = |code, modifiers| !power_off().key(KeyEvent::new(code, modifiers));
    assert!(quit(KeyCode::Char('q'), KeyModifiers::NONE) && quit(KeyCode::Char('c'), KeyModifiers::CONTROL));
}

#[test]
fn each_scenario_of_a_run_is_one_key_away() {
    let two = || {
        let all = [("F00", vec![]), ("F05", vec![Change::PowerOff])];
        let all = all.map(|(id, changes)| replay(id, history(&Plan::new(&changes))));
        Screen::of_run(all.into())
    };
    let mut screen = two();
    press(&mut screen, &[KeyCode::Right, KeyCode::Char('s')]);
    assert_eq!((screen.view.name.as_str(), at(&screen)), ("F05", 0.0));
    press(&mut screen, &[KeyCode::Char('s')]);
    assert_eq!(screen.view.name, "F00");
    press(&mut screen, &[KeyCode::Char('S')]);
    assert_eq!(screen.view.name, "F05");
}

#[test]
fn any_size_is_drawn() {
    let mut screen = power_off();
    press(&mut screen, &[KeyCode::Char('?'), KeyCode::End]);
    for (width, height) in [
        (1, 1),
        (3, 2),
        (20, 5),
        (40, 10),
        (80, 24),
        (131, 60),
        (132, 3),
        (400, 100),
    ] {
        let text = shown(&screen, width, height);
        assert_eq!(text.lines().count().max(1), usize::from(height), "{width} × {height}");
    }
}

fn look(t_us: u64, faults: Vec<FaultRecord>) -> News {
    News::Look(Box::new(tests::look(t_us, faults)))
}

fn event(t_us: u64, node: &str, text: &str) -> News {
    let draft = Draft::new(Source::Tool, "note").node(node).severity(Severity::Warning);
    let Draft {
        src,
        node,
        kind,
        severity,
        ..
    } = draft;
    News::Event(Box::new(Event {
        seq: 0,
        t_us,
        src,
        node,
        kind,
        id: None,
        severity,
        node_t_us: None,
        skew_us: None,
        node_seq: None,
        data: json!({"text": text}),
    }))
}

fn live() -> Screen {
    Screen::live(View::new("ccr@1", Arc::new(sample::lab()), 100))
}

#[test]
fn what_others_wrote_does_not_drive_the_terminal() {
    let mut screen = live();
    screen.take(look(2_000_000, Vec::new()));
    screen.take(event(
        2_500_000,
        "node1\u{1b}]0;x\u{7}",
        "a\u{1b}[2J\nb\u{202e}c\u{9b}31m",
    ));
    screen.pass(0);
    let text = shown(&screen, 120, 40);
    assert!(text.contains(r"a\u{1b}[2J b\u{202e}c\u{9b}31m"), "{text}");
    assert!(
        !text.chars().any(|c| c != '\n' && c.is_control() || c == '\u{202e}'),
        "{text:?}"
    );
}

#[test]
fn a_lab_that_goes_away_is_told() {
    let mut screen = live();
    assert!(shown(&screen, 100, 30).contains("asking …"));
    assert!(shown(&screen, 100, 30).contains("health is not known yet"));
    screen.take(look(2_000_000, Vec::new()));
    assert!(shown(&screen, 100, 30).contains("live"));
    screen.take(News::Silent("no supervisor runs".into()));
    let text = shown(&screen, 100, 30);
    assert!(
        text.contains("NOT LIVE since 2.0 s: no supervisor runs; the networks are dark"),
        "{text}"
    );
    screen.take(News::Gap { from: 4, to: 9 });
    screen.take(News::Down);
    let text = shown(&screen, 100, 30);
    assert!(text.contains("THE LAB IS DOWN: this is how it was"), "{text}");
    assert!(text.contains("events 4 to 9 are missing"), "{text}");
}

#[test]
fn cables_are_not_known_before_the_fabric_said_so() {
    let mut screen = live();
    screen.take(look(2_000_000, Vec::new()));
    let text = shown(&screen, 100, 30);
    assert!(text.contains("private  node1 →?←?   node2 →?←?"), "{text}");
}

#[test]
fn a_moment_is_what_a_fold_from_the_begin_makes() {
    let h = history(&Plan::new(&[Change::PowerOff, Change::Planned]));
    let replay = replay("F", h.clone());
    let span = replay.extent.to_us - replay.extent.from_us;
    for part in [0, 1, 7, 20, 33, 50, 77, 99, 100] {
        let t_us = replay.extent.from_us + span * part / 100;
        let mut picture = crate::picture::Picture::of_run(Arc::new(sample::lab()));
        for input in crate::picture::inputs(&h) {
            if input.t_us() <= t_us {
                picture.apply(input);
            }
        }
        picture.pass(t_us);
        let view = replay.at(t_us, 50);
        assert_eq!(view.picture.json(), picture.json(), "{part} %");
        let newest = crate::picture::order(&h).into_iter().rev().find_map(|p| match p {
            Place::Event(i) if h.events[i].t_us <= t_us => Some(h.events[i].seq),
            _ => None,
        });
        let last = view.lines.back().map(|l| match l {
            crate::view::Line::Event(e) => e.seq,
            crate::view::Line::Gap(..) => panic!("no gap"),
        });
        assert_eq!(last, newest, "{part} %");
    }
}
