use super::*;
use crate::verify::sample::{self, Change, Plan, history};
use crate::verify::{History, RunReport, ScenarioReport, Verdict, turn_name};
use proptest::prelude::*;
use std::path::Path;

fn report(name: &str, turn: u32, verdict: Verdict) -> ScenarioReport {
    ScenarioReport {
        turn,
        ..ScenarioReport::empty(name, "a title", verdict)
    }
}

/// A short history with a bit of everything.
fn small() -> History {
    let mut h = history(&Plan {
        rate: 4,
        stretch: 2,
        ..Plan::new(&[Change::PowerOff])
    });
    h.observations.truncate(4);
    h.ops.truncate(12);
    h.events.truncate(12);
    h
}

/// A run of these scenarios, on the disk.
fn write_run(folder: &Path, manifest: &Manifest, scenarios: &[ScenarioReport], h: &History) -> RunReport {
    begin(folder, manifest, &sample::lab(), "schema = 1\n").unwrap();
    for s in scenarios {
        let own = folder.join(s.name());
        std::fs::create_dir_all(&own).unwrap();
        let parts = BTreeMap::from([("steps/more.toml".to_owned(), "x = 1\n".to_owned())]);
        scenario(&own, ("id = \"F05\"\n", &parts), s, h).unwrap();
    }
    let report = RunReport {
        distributions: crate::verify::distributions(scenarios),
        on_purpose: Default::default(),
        lab: manifest.lab.clone(),
        seed: manifest.seed,
        accel: manifest.accel.clone(),
        on: manifest.on.clone(),
        verdict: scenarios.iter().map(|s| s.verdict).fold(Verdict::Skipped, Verdict::and),
        scenarios: scenarios.to_vec(),
    };
    end(folder, &report).unwrap();
    report
}

fn manifest(selected: &[&str]) -> Manifest {
    Manifest {
        tool: crate::TOOL.into(),
        wall: 1,
        lab: "ccr".into(),
        lab_digest: sample::lab().digest,
        seed: 7,
        accel: "tcg".into(),
        on: "machines".into(),
        repeat: 1,
        selected: selected.iter().map(|s| (*s).to_owned()).collect(),
        ..Manifest::default()
    }
}

fn one_run() -> (tempfile::TempDir, RunReport) {
    let dir = tempfile::tempdir().unwrap();
    let all = [report("F00", 1, Verdict::Pass), report("F05", 1, Verdict::Fail)];
    let written = write_run(dir.path(), &manifest(&["F00", "F05"]), &all, &small());
    (dir, written)
}

#[test]
fn what_is_written_is_read() {
    let (dir, written) = one_run();
    let run = read(dir.path()).unwrap();
    assert_eq!(run.missing, Vec::<String>::new());
    assert_eq!(run.report, written);
    assert_eq!(run.lab, Some(sample::lab()));
    assert_eq!(run.manifest, Some(manifest(&["F00", "F05"])));
    assert_eq!(run.scenarios[1].history, small());
    assert_eq!(run.scenarios[1].text, "id = \"F05\"\n");
}

#[test]
fn every_file_has_its_version() {
    let (dir, _) = one_run();
    let mut seen = 0;
    for folder in [dir.path().to_owned(), dir.path().join("F05")] {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            match path.extension().and_then(|e| e.to_str()) {
                Some("json") => {
                    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
                    assert_eq!(value["schema"], SCHEMA, "{}", path.display());
                }
                Some("jsonl") => assert_eq!(
                    serde_json::from_str::<serde_json::Value>(text.lines().next().unwrap()).unwrap()["schema"],
                    SCHEMA
                ),
                _ => continue,
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 3 + 6);
}

#[test]
fn a_file_that_is_missing_torn_newer_or_older_is_named_and_the_rest_is_read() {
    let files = [
        names::EVENTS,
        names::OPS,
        names::OBSERVATIONS,
        names::DUMPS,
        names::HISTORY,
        names::VERDICT,
    ];
    for file in files {
        let (dir, written) = one_run();
        let path = dir.path().join("F05").join(file);
        let whole = std::fs::read(&path).unwrap();
        let named = |what: &str| {
            let run = read(dir.path()).unwrap();
            let name = format!("F05/{file}: ");
            assert!(
                run.missing.iter().any(|m| m.starts_with(&name)),
                "{what} {file}: {:?}",
                run.missing
            );
            assert_eq!(run.report, written, "{what} {file}");
            assert_eq!(run.scenarios.len(), 2);
            assert!(
                !run.scenarios[1].history.missing.is_empty(),
                "whoever judges it again knows"
            );
            assert!(run.scenarios[0].history.missing.is_empty(), "the other one is whole");
        };
        std::fs::remove_file(&path).unwrap();
        named("missing");
        std::fs::write(&path, &whole[..whole.len() * 2 / 3]).unwrap();
        named("torn");
        let text = String::from_utf8(whole).unwrap();
        let version = |to: &str| text.replacen("\"schema\": 1", to, 1).replacen("\"schema\":1", to, 1);
        std::fs::write(&path, version("\"schema\": 2")).unwrap();
        named("newer");
        std::fs::write(&path, version("\"was\": 1")).unwrap();
        named("older");
    }
}

#[test]
fn a_torn_line_costs_that_line_only() {
    let (dir, _) = one_run();
    let path = dir.path().join("F05").join(names::OPS);
    let all = read(dir.path()).unwrap().scenarios[1].history.ops.len();
    let text = std::fs::read_to_string(&path).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[3] = "{\"type\":\"inv";
    std::fs::write(&path, lines.join("\n") + "\n").unwrap();
    let run = read(dir.path()).unwrap();
    assert_eq!(run.scenarios[1].history.ops.len(), all - 1);
    assert!(
        run.missing[0].contains("1 torn, the first in line 4"),
        "{:?}",
        run.missing
    );
}

#[test]
fn without_its_own_verdict_a_run_is_unknown_at_best() {
    let (dir, _) = one_run();
    std::fs::remove_file(dir.path().join(names::VERDICT)).unwrap();
    std::fs::remove_dir_all(dir.path().join("F05")).unwrap();
    let run = read(dir.path()).unwrap();
    assert_eq!(run.report.verdict, Verdict::Unknown);
    assert_eq!(run.report.scenarios.len(), 1);
    assert_eq!(run.report.lab, "ccr");
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(read(empty.path()).unwrap_err().exit_code(), 2);
    let nowhere = read(&empty.path().join("nowhere")).unwrap_err().to_string();
    assert!(nowhere.contains("no such folder"), "{nowhere}");
}

const IDS: [&str; 11] = [
    "F00", "F01", "F02", "F03", "F04", "F05", "F06", "F07", "F08", "F09", "F13",
];

/// The shards of one run with `repeat` turns, and the run that they are parts of.
fn shards(n: usize, repeat: u32) -> (tempfile::TempDir, Vec<Run>, RunReport) {
    let dir = tempfile::tempdir().unwrap();
    let turns = |ids: Vec<&str>| -> Vec<ScenarioReport> {
        ids.into_iter()
            .flat_map(|id| (1..=repeat).map(move |t| report(id, t, Verdict::Pass)))
            .collect()
    };
    let about = Manifest {
        repeat,
        ..manifest(&IDS)
    };
    let whole = write_run(
        &dir.path().join("whole"),
        &about,
        &turns(IDS.to_vec()),
        &History::default(),
    );
    let mut all = Vec::new();
    for i in 1..=n {
        let ids: Vec<&str> = IDS.into_iter().skip(i - 1).step_by(n).collect();
        if ids.is_empty() {
            continue;
        }
        let folder = dir.path().join(format!("shard{i}"));
        let about = Manifest {
            shard: Some((i, n)),
            wall: i as u64,
            ..about.clone()
        };
        write_run(&folder, &about, &turns(ids), &History::default());
        all.push(read(&folder).unwrap());
    }
    (dir, all, whole)
}

#[test]
fn eight_shards_are_the_whole_run() {
    for (n, repeat) in [(8, 1), (3, 2), (1, 1), (16, 1)] {
        let (dir, mut all, whole) = shards(n, repeat);
        all.reverse();
        let merged = merge(&all).unwrap();
        assert_eq!(merged.report, whole, "{n} shards");
        assert_eq!(merged.manifest.shard, None);
        let out = dir.path().join("out");
        begin(&out, &merged.manifest, &sample::lab(), "").unwrap();
        merged.copy_scenarios(&out).unwrap();
        end(&out, &merged.report).unwrap();
        let run = read(&out).unwrap();
        assert_eq!((run.missing.len(), run.report.clone()), (0, whole));
        assert_eq!(run.scenarios.len(), IDS.len() * repeat as usize);
    }
}

#[test]
fn a_shard_that_is_missing_double_or_strange_is_an_error() {
    let refused = |all: &[Run], part: &str| {
        let e = merge(all).unwrap_err();
        assert_eq!(e.exit_code(), 2);
        assert!(e.to_string().contains(part), "{e}");
    };
    let (_dir, mut all, _) = shards(8, 1);
    let last = all.pop().unwrap();
    refused(&all, "missing");
    refused(&[], "none is named");
    let again = read(&all[0].folder).unwrap();
    all.push(last);
    all.push(again);
    refused(&all, "twice");
    let mut strange = all.pop().unwrap();
    all.remove(0);
    strange.manifest.as_mut().unwrap().seed = 8;
    all.push(strange);
    refused(&all, "another seed");
    let mut all = shards(4, 1).1;
    all[2].report.scenarios.pop();
    refused(&all, "is missing in it");
    all[2].manifest = None;
    refused(&all, "cannot be read");
    let whole = Manifest::default();
    all[2].manifest = Some(whole);
    refused(&all, "no shard");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever stands in the files: it is read without a panic, and the run is there.
    #[test]
    fn garbage_is_no_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), which in 0_usize..7) {
        let (dir, _) = one_run();
        let files = [names::EVENTS, names::OPS, names::OBSERVATIONS, names::DUMPS, names::HISTORY, names::VERDICT, names::SCENARIO];
        std::fs::write(dir.path().join("F05").join(files[which]), &bytes).unwrap();
        std::fs::write(dir.path().join(names::LAB), &bytes).unwrap();
        let run = read(dir.path()).unwrap();
        prop_assert_eq!(run.scenarios.len(), 2);
        prop_assert!(run.lab.is_none());
    }

    /// Every turn of every scenario is in one place, however they are divided.
    #[test]
    fn shards_divide_and_merge_takes_them_back(n in 1_usize..14, repeat in 1_u32..3) {
        let (_dir, all, whole) = shards(n, repeat);
        let merged = merge(&all).unwrap();
        let names: Vec<String> = merged.report.scenarios.iter().map(ScenarioReport::name).collect();
        let right: Vec<String> = IDS.iter().flat_map(|id| (1..=repeat).map(move |t| turn_name(id, t))).collect();
        prop_assert_eq!(names, right);
        prop_assert_eq!(merged.report, whole);
    }
}
