//! Lessons: what is wrong with them is found, and what they say is what the lab says.

use super::*;
use crate::runs::names as files;
use crate::scenario::{About, Action, Options, parse, vocabulary};
use crate::simulated::{SimWorlds, lacks};
use crate::spec::example;
use crate::verify::Verdict;
use std::path::Path;
use std::sync::Arc;

/// A chapter without a mistake.
const WELL: &str = r#"+++
title = "One"
+++
## Look

```ask
id = "who"
question = "Who?"
options = [
  { text = "a", if = "service.active == a", why = "It does: {acked}." },
  { text = "b", if = "service.active == b", why = "It moved." },
]
```
```hint
say = "Look."
```
```do
steps = [
  { workload = "mail", rate = "20/s", size = "32 KiB" },
  { move = "b" },
]
```
```watch
meanwhile = "Wait."
see = [ { step = { expect = "service-online", on = "b", within = "30s" }, say = "There." } ]
```
```check
steps = [ { expect = "healthy", within = "60s" } ]
limits = ["measured.lost == 0"]
invariants = ["I1"]
forbid = ["split-brain", { event = "cluster.quorum-lost", on = "a" }]
require = { acks = 1 }
```
The end.
"#;

/// A demo of these chapters in a folder.
fn folder(chapters: &[(&str, &str)]) -> (tempfile::TempDir, Source) {
    let dir = tempfile::tempdir().unwrap();
    let head = "title = \"T\"\nlab = \"ccr\"\nabout = \"A\"\nminutes = 1\n";
    std::fs::write(dir.path().join(HEAD_FILE), head).unwrap();
    for (name, text) in chapters {
        std::fs::write(dir.path().join(name), text).unwrap();
    }
    let source = find(dir.path().to_str().unwrap(), Path::new("/")).unwrap();
    (dir, source)
}

fn of_ccr(source: &Source) -> Result<Demo> {
    read(source, |_| Ok(example("ccr")))
}

/// The rules and lines of all that is wrong with a chapter.
fn wrong(text: &str) -> Vec<(String, u64)> {
    let (_dir, source) = folder(&[("01-one.md", text)]);
    match of_ccr(&source) {
        Ok(_) => Vec::new(),
        Err(Error::Invalid(invalid)) => {
            let files: Vec<_> = invalid.files().collect();
            let findings = files.iter().flat_map(|f| f["findings"].as_array().unwrap().clone());
            findings
                .map(|f| (f["rule"].as_str().unwrap().to_owned(), f["line"].as_u64().unwrap()))
                .collect()
        }
        Err(e) => panic!("{e}"),
    }
}

#[test]
fn each_mistake_is_found_with_its_line() {
    assert_eq!(wrong(WELL), []);
    let after_title = |more: &str| format!("title = \"One\"\n{more}");
    let planted = [
        ("```hint\n", "```tip\n".to_owned(), "unknown-fence", 14),
        ("say = \"Look.\"", "tell = \"Look.\"".to_owned(), "unknown-key", 15),
        ("title = \"One\"\n", after_title("from = \"x\"\n"), "unknown-key", 3),
        ("title = \"One\"\n", "\n".to_owned(), "missing-key", 2),
        (", within = \"60s\"", String::new(), "missing-key", 28),
        ("if = \"service.active == b\", ", String::new(), "no-right-answer", 11),
        (
            "service.active == b",
            "service.active == a".to_owned(),
            "two-right-answers",
            11,
        ),
        (
            "service.active == b",
            "service.actve == b".to_owned(),
            "bad-expression",
            11,
        ),
        ("service.active == b", "event:copy.resynced".to_owned(), "bad-value", 11),
        (", why = \"It moved.\"", String::new(), "missing-key", 11),
        ("{acked}", "{acks}".to_owned(), "bad-value", 10),
        (
            "  { text = \"b\", if = \"service.active == b\", why = \"It moved.\" },\n",
            String::new(),
            "bad-value",
            6,
        ),
        ("id = \"who\"\n", "\n".to_owned(), "missing-key", 6),
        ("{ move = \"b\" }", "{ move = \"node1\" }".to_owned(), "host-name", 20),
        ("{ move = \"b\" }", "{ mvoe = \"b\" }".to_owned(), "unknown-key", 20),
        (
            "{ move = \"b\" }",
            "{ fault = \"cut\", between = [\"a\", \"b\"], network = \"third\" }".to_owned(),
            "bad-fault",
            20,
        ),
        (
            "{ expect = \"service-online\", on = \"b\", within = \"30s\" }",
            "{ heal = \"all\" }".to_owned(),
            "not-a-look",
            25,
        ),
        (
            "{ expect = \"healthy\", within = \"60s\" }",
            "{ move = \"a\" }".to_owned(),
            "not-a-look",
            28,
        ),
        ("measured.lost ==", "measured.gone ==".to_owned(), "bad-expression", 29),
        ("[\"I1\"]", "[\"I99\"]".to_owned(), "bad-value", 30),
        ("\"split-brain\"", "\"split-brian\"".to_owned(), "bad-value", 31),
        (
            "within = \"30s\"",
            "within = \"30 parsecs\"".to_owned(),
            "bad-value",
            25,
        ),
        ("say = \"Look.\"\n```", "say = \"Look.\"".to_owned(), "open-fence", 14),
        ("steps = [\n", "steps = [[\n".to_owned(), "syntax", 17),
    ];
    for (from, to, rule, line) in planted {
        assert!(WELL.contains(from), "{from}");
        let found = wrong(&WELL.replacen(from, &to, 1));
        let fits = |(r, l): &(String, u64)| r == rule && (*l == line || rule == "syntax");
        assert!(found.iter().any(fits), "{rule} in line {line}, not {found:?}: {to}");
    }
}

#[test]
fn what_is_missing_in_a_chapter_is_found() {
    let rules = |text: &str| wrong(text).into_iter().map(|(rule, _)| rule).collect::<Vec<_>>();
    let (begin, check) = (WELL.find("```check").unwrap(), WELL.find("The end.").unwrap());
    let without_check = format!("{}{}", &WELL[..begin], &WELL[check..]);
    assert_eq!(rules(&without_check), ["no-check"]);
    let (ask, acts) = (WELL.find("```ask").unwrap(), WELL.find("```do").unwrap());
    let without_ask = format!("{}{}", &WELL[..ask], &WELL[acts..]);
    assert_eq!(rules(&without_ask), ["no-question"]);
    let question = &WELL[ask..WELL.find("```hint").unwrap()];
    let last = format!("{WELL}\n{}", question.replace("\"who\"", "\"again\""));
    assert_eq!(rules(&last), ["no-steps"]);
    let twice = WELL.replacen(question, &format!("{question}{question}"), 1);
    assert_eq!(rules(&twice), ["bad-value"]);
    let long = WELL.replace("The end.", &"word ".repeat(251));
    assert_eq!(rules(&long), ["too-long"]);
    assert_eq!(rules(&WELL[WELL.find("## Look").unwrap()..]), ["no-title"]);
    assert_eq!(rules("+++\ntitle = \"x\"\n")[0], "open-head");
}

#[test]
fn mistakes_of_all_files_are_told_at_once_and_so_is_a_lab_that_is_not_there() {
    let bad = WELL.replace("```hint", "```tip");
    let (_dir, source) = folder(&[("01-one.md", &bad), ("02-two.md", &bad), ("3 three.md", WELL)]);
    let told = of_ccr(&source).unwrap_err().to_string();
    for file in ["01-one.md:14:4", "02-two.md:14:4", "3 three.md"] {
        assert!(told.contains(file), "{file}: {told}");
    }
    let nowhere = read(&source, |_| {
        Err(Error::Usage(Problem::new("find the lab").observed("none")))
    });
    let told = nowhere.unwrap_err().to_string();
    assert!(told.contains("no-lab") && told.contains("demo.toml:2:"), "{told}");
}

#[test]
fn a_chapter_is_a_scenario_that_can_be_run_again() {
    let lab = example("ccr");
    let (pack, set) = (vocabulary(&lab).unwrap(), BTreeMap::new());
    let rules = Rules {
        host_names: false,
        lab: &lab,
        pack: &pack,
        set: &set,
        shelf: None,
    };
    let (_dir, own) = folder(&[("01-one.md", WELL)]);
    let built_in = names(Path::new("/nowhere")).into_iter().map(Source::Embedded);
    for source in built_in.chain([own]) {
        for chapter in of_ccr(&source).unwrap().chapters {
            let ours = &chapter.scenario;
            let again = parse("scenario.toml", &ours.text, rules).unwrap_or_else(|e| panic!("{e}\n{}", ours.text));
            let actions = |s: &Scenario| s.steps.iter().map(|s| s.action.clone()).collect::<Vec<Action>>();
            assert_eq!(actions(&again), actions(ours));
            assert_eq!(
                (&again.id, &again.title, &again.require),
                (&ours.id, &ours.title, &ours.require)
            );
            assert_eq!((&again.forbid, &again.invariants), (&ours.forbid, &ours.invariants));
        }
    }
}

/// Runs a demo in the simulator; its report, and the folder of its run.
fn run_on_sim(demo: &Demo, audience: &mut dyn Audience, seed: u64) -> (tempfile::TempDir, Result<DemoReport>) {
    let dir = tempfile::tempdir().unwrap();
    let worlds = SimWorlds::new(&demo.lab, Arc::default()).unwrap();
    let options = Options {
        seed,
        accel: "none".to_owned(),
        on: "sim".to_owned(),
        repeat: 1,
        folder: dir.path().join("run"),
        jobs: 1,
        fail_fast: false,
        about: About::default(),
    };
    let report = play::run(&worlds, demo, audience, &options);
    (dir, report)
}

#[test]
fn every_lesson_that_is_built_in_passes_unattended_in_the_simulator() {
    for name in names(Path::new("/nowhere")) {
        let demo = of_ccr(&Source::Embedded(name.clone())).unwrap();
        for chapter in &demo.chapters {
            assert_eq!(lacks(&chapter.scenario), None, "{name} {}", chapter.id);
        }
        for seed in 1..=3 {
            let (_dir, report) = run_on_sim(&demo, &mut Nobody, seed);
            let report = report.unwrap();
            let why: Vec<_> = report.chapters.iter().filter_map(|c| c.why.as_ref()).collect();
            assert_eq!(report.verdict, Verdict::Pass, "{name}, seed {seed}: {why:?}");
            let questions: Vec<_> = report.chapters.iter().flat_map(|c| &c.questions).collect();
            assert!(
                questions
                    .iter()
                    .all(|q| q.right.is_some() && !q.why.as_ref().unwrap().contains('{'))
            );
            let asked: usize = demo.chapters.iter().map(|c| c.asks.len()).sum();
            assert_eq!(questions.len(), asked);
        }
    }
}

/// The report of a demo of one chapter.
fn report_of(text: &str) -> DemoReport {
    let (_dir, source) = folder(&[("01-one.md", text)]);
    let demo = of_ccr(&source).unwrap();
    run_on_sim(&demo, &mut Nobody, 1).1.unwrap()
}

#[test]
fn a_lesson_that_says_what_is_not_so_does_not_pass() {
    let report = report_of(WELL);
    assert_eq!(report.verdict, Verdict::Pass, "{:?}", report.chapters[0].why);
    assert_eq!(report.chapters[0].questions[0].right.as_deref(), Some("b"));
    // No answer is right.
    let report = report_of(&WELL.replace("if = \"service.active == b\"", "if = \"service.state == Failed\""));
    assert_eq!(report.chapters[0].questions[0].verdict, Verdict::Fail);
    // Two are.
    let report = report_of(&WELL.replace("if = \"service.active == a\"", "if = \"service.state == Online\""));
    assert_eq!(report.chapters[0].questions[0].verdict, Verdict::Fail);
    assert_eq!(report.verdict.exit_code(), 1);
    // Nothing was detected, so nobody can say how long that took.
    let report = report_of(&WELL.replace("if = \"service.active == a\"", "if = \"measured.detect_ms > 1\""));
    assert_eq!(report.chapters[0].questions[0].verdict, Verdict::Unknown);
    assert_eq!(report.verdict.exit_code(), 3);
    let report = report_of(&WELL.replace("measured.lost == 0", "measured.acked == 0"));
    assert_eq!(
        (report.chapters[0].limits[0].verdict, report.verdict),
        (Verdict::Fail, Verdict::Fail)
    );
    // The steps do not come to their end: what the question turns on was not seen.
    let report = report_of(&WELL.replace("\"service-online\"", "\"service-failed\""));
    assert_eq!(
        (report.chapters[0].questions[0].verdict, report.verdict),
        (Verdict::Unknown, Verdict::Fail)
    );
}

/// Lines that somebody types.
struct Typed(std::vec::IntoIter<&'static str>);

impl Input for Typed {
    fn line(&mut self) -> Result<Option<String>> {
        Ok(self.0.next().map(str::to_owned))
    }
}

/// What a person sees who types these lines, and what comes of it.
fn studied(demo: &Demo, lines: Vec<&'static str>) -> (String, Result<DemoReport>, Option<serde_json::Value>) {
    let mut out = Vec::new();
    let (dir, report) = run_on_sim(demo, &mut Study::new(Typed(lines.into_iter()), &mut out), 1);
    let kept = std::fs::read(dir.path().join("run").join(files::DEMO)).ok();
    let kept = kept.map(|bytes| serde_json::from_slice(&bytes).unwrap());
    (String::from_utf8(out).unwrap(), report, kept)
}

#[test]
fn a_person_predicts_and_the_lab_says_what_was_so() {
    let (_dir, source) = folder(&[("01-one.md", WELL)]);
    let demo = of_ccr(&source).unwrap();
    let (seen, report, kept) = studied(&demo, vec!["?", "?", "9", "1", ""]);
    let question = report.unwrap().chapters[0].questions[0].clone();
    assert_eq!(
        (question.predicted.as_deref(), question.right.as_deref()),
        (Some("a"), Some("b"))
    );
    assert_eq!(kept.unwrap()["chapters"][0]["questions"][0]["predicted"], "a");
    // In this order, each once.
    let mut rest = seen.as_str();
    for line in [
        "1 of 1: One",
        "## Look",
        "? Who?",
        "Look.",
        "There is no further hint.",
        "Type a number from 1 to 2.",
        "Enter: do it",
        "move = \"b\"",
        "Wait.",
        "→ There.",
        "Checking:",
        "you predicted: a",
        "but the lab says:",
        "It moved.",
        "Measured:",
        "measured.lost = 0",
        "The end.",
        "✓ pass One",
    ] {
        let (_, behind) = rest
            .split_once(line)
            .unwrap_or_else(|| panic!("no {line:?} in {rest}\nof {seen}"));
        rest = behind;
    }
    let (seen, ..) = studied(&demo, vec!["2", ""]);
    assert!(seen.contains("as you predicted:"), "{seen}");
    let (seen, report, _) = studied(&demo, vec!["s", ""]);
    assert!(
        seen.contains("the lab says:") && report.unwrap().verdict == Verdict::Pass,
        "{seen}"
    );
}

#[test]
fn who_leaves_is_let_go_and_nothing_is_done_any_more() {
    let (_dir, source) = folder(&[("01-one.md", WELL)]);
    let demo = of_ccr(&source).unwrap();
    for lines in [vec![], vec!["q"], vec!["1", "q"]] {
        let (seen, report, _) = studied(&demo, lines);
        assert!(matches!(report, Err(Error::Interrupted)), "{seen}");
        assert!(!seen.contains("workload"), "{seen}");
    }
}

#[test]
fn what_a_lesson_says_cannot_steer_the_terminal() {
    let (_dir, source) = folder(&[("01-one.md", &WELL.replace("The end.", "The \u{1b}[2Jend."))]);
    let (seen, ..) = studied(&of_ccr(&source).unwrap(), vec!["1", ""]);
    assert!(
        seen.contains("The \\u{1b}[2Jend.") && !seen.contains('\u{1b}'),
        "{seen}"
    );
}

#[test]
fn a_folder_overrides_what_is_built_in() {
    let here = tempfile::tempdir().unwrap();
    let own = here.path().join("demos/first");
    std::fs::create_dir_all(&own).unwrap();
    assert_eq!(
        find("first", here.path()).unwrap(),
        Source::Embedded("first".to_owned())
    );
    std::fs::write(own.join(HEAD_FILE), "").unwrap();
    assert_eq!(find("first", here.path()).unwrap(), Source::Folder(own));
    let told = find("frist", here.path()).unwrap_err();
    let remedy = told.problem().unwrap().remedy.clone().unwrap();
    assert!(remedy.contains("first"), "{remedy}");
    assert!(files::OF_THE_RUN.contains(&files::DEMO));
}

/// `docs/demo.md` has every name of what is measured, and every fence. UPDATE_DOCS=1 rewrites its list.
#[test]
fn the_page_of_demos_names_what_is_measured_and_every_fence() {
    use crate::spec::{entry, with_list};
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/demo.md");
    let written = std::fs::read_to_string(&page).unwrap();
    let rows = measured::NAMES.map(|(name, what)| entry(&format!("`measured.{name}`: {what}")));
    let right = with_list(&written, "measured", &rows);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&page, &right).unwrap();
    } else {
        assert_eq!(written, right, "UPDATE_DOCS=1 cargo test the_page_of_demos");
    }
    for fence in chapter::FENCES {
        assert!(written.contains(&format!("| `{fence}` |")), "{fence}");
    }
}
