use super::*;
use crate::verify::InvariantId::{self, *};
use crate::verify::sample::{self, Change, Plan, history};
use crate::verify::{Context, Forbidden, Judged, Pattern, judge};
use crate::wait::Slowness;

fn page(id: &'static str, title: &'static str, changes: &[Change], seed: u64) -> (ScenarioReport, History) {
    let lab = sample::lab();
    let h = history(&Plan {
        seed,
        ..Plan::new(changes)
    });
    let invariants: &[InvariantId] = match changes {
        [Change::PowerOff] => &[I1, I3, I4, I8, I12],
        [] => &[I1, I4, I8, I12],
        _ => &[I1, I2, I4, I8, I12],
    };
    let judged = Judged {
        id,
        title,
        invariants,
        forbid: &[Pattern::of(Forbidden::SplitBrain)],
        events: &[],
        sometimes: &[],
        acks: 50,
        closed_generations: 2,
        role_changes: changes.len() as u64,
    };
    let mut report = judge(judged, &h, &Context::of(&lab, Slowness::NONE), Vec::new());
    report.seconds = 41.3;
    report.looks = (id == "F00").then_some(crate::verify::Looks {
        count: 341,
        per_second: 8.3,
        median_age_ms: 120.5,
    });
    (report, h)
}

fn run_of(scenarios: Vec<ScenarioReport>) -> RunReport {
    sample::run(Verdict::Pass, scenarios)
}

fn pages() -> Vec<(ScenarioReport, History)> {
    vec![
        page("F00", "Control: nothing is broken", &[], 1),
        page("F01", "Planned move and back", &[Change::Planned, Change::Planned], 2),
        page("F05", "The active node loses power", &[Change::PowerOff], 7),
    ]
}

/// Whatever would load something, or run, but our own script.
fn is_self_contained(page: &str) {
    let own = format!("<script>{SCRIPT}</script>");
    assert!(page.matches(&own).count() <= 1);
    let page = page.replace(&own, "").replace("url(#", "");
    assert!(!page.contains("<script"), "a script");
    for outside in ["http://", "https://", " src=", "@import", "url(", "onload=", "onerror="] {
        assert!(!page.contains(outside), "the page fetches or runs something: {outside}");
    }
    assert_eq!(
        page.matches("content=\"default-src &#x27;none&#x27;").count(),
        1,
        "{}",
        &page[..400]
    );
}

/// `FAILOVERLAB_SAMPLE_REPORT=FOLDER` keeps the pages, to be looked at.
#[test]
fn the_pages_are_whole_and_safe() {
    let all = pages();
    let lab = sample::lab();
    let run = run_of(all.iter().map(|(r, _)| r.clone()).collect());
    let scenario = include_str!("../../../labs/ccr/scenarios/F05.toml");
    let keep = std::env::var_os("FAILOVERLAB_SAMPLE_REPORT").map(std::path::PathBuf::from);
    let over = run_page(&lab, &run, "report.html", &[]).unwrap();
    is_self_contained(&over);
    for (report, history) in &all {
        let page = Page {
            report,
            history,
            scenario,
        };
        let text = scenario_page(&lab, &run, &page, "report.html").unwrap();
        is_self_contained(&text);
        let drawn = text.replace(SCRIPT, "");
        assert!(!drawn.contains("undefined") && !drawn.contains("NaN"));
        assert!(text.len() < 1 << 20, "{} bytes", text.len());
        assert!(over.contains(&format!("href=\"{}/report.html\"", report.id)));
        if report.id == "F05" {
            for part in [
                "The active node loses power",
                "role filled active",
                "role struck off",
                "op fail",
                "class=\"outage\"",
                "noticed",
                "I3",
                "votes node1",
                "no answer for",
            ] {
                assert!(text.contains(part), "{part}");
            }
        }
        if let Some(folder) = &keep {
            let folder = folder.join(&report.id);
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(folder.join("report.html"), &text).unwrap();
        }
    }
    if let Some(folder) = &keep {
        std::fs::write(folder.join("report.html"), &over).unwrap();
    }
}

#[test]
fn every_time_in_words_is_the_journals() {
    let (_, h) = page("F05", "x", &[Change::PowerOff], 7);
    let (tracks, _) = Tracks::of(&sample::lab(), &h).unwrap();
    let all = spoken(&h, &tracks);
    let fault = all.iter().find(|l| l.lane == "fault").unwrap();
    let at = |t_us: u64| (t_us - tracks.extent.from_us) as f64 / 1e6;
    assert_eq!(
        (fault.from, fault.to),
        (at(h.faults[0].begin_us), at(h.faults[0].end_us.unwrap()))
    );
    let off = all.iter().find(|l| l.lane == "node1" && l.what == "off").unwrap();
    assert_eq!((off.from, off.to), (fault.from, fault.to));
}

/// What the script places is where the journal has it, to the microsecond.
#[test]
fn every_time_in_the_drawing_is_the_journals() {
    let lab = sample::lab();
    let (report, history) = page("F05", "x", &[Change::PowerOff], 7);
    let page = Page {
        report: &report,
        history: &history,
        scenario: "",
    };
    let text = scenario_page(&lab, &run_of(vec![report.clone()]), &page, "report.html").unwrap();
    let (tracks, _) = Tracks::of(&lab, &history).unwrap();
    let since = |t_us: u64| t_us - tracks.extent.from_us;
    let times_of = |class: &str| -> Vec<u64> {
        let shapes = text.split('<').filter(|e| e.contains(&format!("class=\"{class}\"")));
        let times = shapes.filter_map(|e| e.split("data-t=\"").nth(1)?.split('"').next());
        times
            .flat_map(|t| t.split(' ').map(|t| t.parse().expect("a time is a number")))
            .collect()
    };
    let fault = &history.faults[0];
    assert_eq!(times_of("fault"), [since(fault.begin_us), since(fault.end_us.unwrap())]);
    let (from, to) = tracks.outage.unwrap();
    assert_eq!(times_of("outage"), [since(from), since(to)]);
    let refused = history.operations().unwrap();
    let refused = refused.iter().filter(|o| o.outcome == crate::verify::Outcome::Fail);
    let mut refused: Vec<u64> = refused.map(|o| since(o.begin_us)).collect();
    let mut drawn = times_of("op fail");
    refused.sort_unstable();
    drawn.sort_unstable();
    assert!(!drawn.is_empty());
    assert_eq!(drawn, refused);
    let told = history
        .events
        .iter()
        .filter(|e| e.severity == crate::event::Severity::Error && e.t_us >= history.from_us);
    let drawn: Vec<u64> = times_of("event error").chunks(3).map(|t| t[0]).collect();
    for t in drawn {
        assert!(told.clone().any(|e| since(e.t_us) == t), "{t}");
    }
}

/// Markup, controls, marks that turn the text, a line of a megabyte: all of it is text.
#[test]
fn hostile_text_is_text_everywhere() {
    let (mut report, mut history) = page("F05", "x", &[Change::PowerOff], 7);
    let evil = format!(
        "<script>alert(1)</script>\u{202e}\u{0}]]>&\"'|`x`\n# y{}",
        "z".repeat(1 << 20)
    );
    report.title.clone_from(&evil);
    report.why = Some(evil.clone());
    report.verdict = Verdict::Fail;
    for i in &mut report.invariants {
        i.detail = "y".repeat(1 << 20);
    }
    history.events[0].kind.clone_from(&evil);
    history.events[0].data = serde_json::Value::String(evil.clone());
    history.faults[0].kind.clone_from(&evil);
    history.faults[0].proof = serde_json::json!({ evil.clone(): evil.clone() });
    for check in &mut report.checks {
        check.text.clone_from(&evil);
        check.detail.clone_from(&evil);
    }
    report.faults.clone_from(&history.faults);
    let run = run_of(vec![report.clone()]);
    let page = Page {
        report: &report,
        history: &history,
        scenario: &evil,
    };
    let lab = sample::lab();
    let texts = [
        scenario_page(&lab, &run, &page, "report.html").unwrap(),
        run_page(&lab, &run, "report.html", std::slice::from_ref(&evil)).unwrap(),
        crate::report::junit(&run).unwrap(),
        crate::report::summary(&run),
    ];
    for text in &texts {
        let text = text.replace(&format!("<script>{SCRIPT}</script>"), "");
        assert!(!text.contains("<script"), "{}", &text[..500]);
        assert!(!text.contains(['\u{202e}', '\u{0}']), "hidden characters are shown");
    }
    for page in &texts {
        assert!(page.len() < 1 << 20, "{} bytes", page.len());
    }
    let mut reader = quick_xml::Reader::from_str(&texts[2]);
    loop {
        if matches!(
            reader.read_event().expect("JUnit is well-formed"),
            quick_xml::events::Event::Eof
        ) {
            break;
        }
    }
    let rows = texts[3].lines().filter(|l| l.starts_with("| ")).count();
    assert_eq!(rows, 2, "a head and one row: {}", texts[3]);
}

#[test]
fn an_invariant_names_the_operations_that_break_it() {
    let (_, history) = page("F05", "x", &[Change::PowerOff], 7);
    let op = &history.operations().unwrap()[12];
    let broken = crate::verify::InvariantReport {
        id: "I3".into(),
        verdict: Verdict::Fail,
        detail: format!("Deliver {} was acknowledged and is missing; operation 3", op.key),
    };
    let shown = serde_json::to_value(parts::invariant(&broken, &history, &|t| t as f64)).unwrap();
    let ops: Vec<u64> = shown["ops"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|o| o["op"].as_u64())
        .collect();
    assert!(ops.contains(&op.op) && ops.contains(&3), "{ops:?}");
    assert!(!ops.contains(&33) && !ops.contains(&30), "{ops:?}");
}

#[test]
fn a_run_without_anything_makes_pages_too() {
    let empty = ScenarioReport::empty("F05", "x", Verdict::Unknown);
    let run = run_of(vec![empty.clone()]);
    let page = Page {
        report: &empty,
        history: &History::default(),
        scenario: "",
    };
    let text = scenario_page(&sample::lab(), &run, &page, "report.html").unwrap();
    assert!(text.contains("unknown") && !text.contains("<svg"));
}

/// Whoever goes from region to region hears where it is.
#[test]
fn every_region_of_a_page_has_its_own_name() {
    let lab = sample::lab();
    for (report, history) in &pages() {
        let run = run_of(vec![report.clone()]);
        let page = Page {
            report,
            history,
            scenario: "",
        };
        let text = scenario_page(&lab, &run, &page, "report.html").unwrap();
        let mut names: Vec<&str> = text
            .split("role=\"region\" aria-label=\"")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert!(all > 5 && names.len() == all, "{}: {all} regions, {names:?}", report.id);
    }
}

#[test]
fn what_was_not_run_stands_apart() {
    let run = run_of(vec![
        ScenarioReport::empty("F00", "ran", Verdict::Pass),
        ScenarioReport::empty("F06", "did not", Verdict::Skipped),
    ]);
    let text = run_page(&sample::lab(), &run, "report.html", &[]).unwrap();
    let apart = text.find("Not run (1)").expect("a list of those");
    assert!(text.find("F00/report.html").unwrap() < apart && text.find("F06/report.html").unwrap() > apart);
}
