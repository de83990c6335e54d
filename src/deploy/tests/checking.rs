//! `pack check`: each mistake is found, with its place, and the tool's own packs have none.

use super::super::check;
use crate::error::Error;
use std::path::{Path, PathBuf};

fn own(pack: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("templates").join(pack)
}

/// What is wrong with the pack `sentinel` where each text of one of its files is another.
fn wrong_with(edits: &[(&str, &str, &str)]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("sentinel");
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(own("sentinel")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let mut text = std::fs::read_to_string(&path).unwrap();
        for (_, from, to) in edits.iter().filter(|(file, ..)| *file == name) {
            assert!(text.contains(from), "{name} has no {from}");
            text = text.replacen(from, to, 1);
        }
        std::fs::write(folder.join(name), text).unwrap();
    }
    match check(&folder) {
        Err(Error::Invalid(invalid)) => invalid.to_string().replace(dir.path().to_str().unwrap(), ""),
        other => panic!("{edits:?}: {other:?}"),
    }
}

#[test]
fn the_packs_of_the_tool_hold() {
    for name in super::super::names() {
        let pack = check(&own(name.as_str())).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(pack.name, name);
    }
}

/// The file, what stands in it, what instead, and what is told of that.
const MISTAKES: &[(&str, &str, &str, &str)] = &[
    (
        "runtime.toml",
        "parse = \"pairs\"",
        "parse = \"pears\"",
        "unknown word `pears`",
    ),
    ("runtime.toml", "packages =", "packges =", "packges"),
    (
        "runtime.toml",
        "info.role == 'master' or",
        "inof.role == 'master' or",
        "no name `inof`",
    ),
    (
        "runtime.toml",
        "\"master['config-epoch'] | int\"",
        "\"master['config-epoch'] | int)\"",
        "syntax error",
    ),
    (
        "runtime.toml",
        "config_tag =",
        "config_tg =",
        "status.cluster has no `config_tg`",
    ),
    (
        "runtime.toml",
        "config_tag =",
        "config_tg =",
        "status.cluster needs `config_tag`",
    ),
    (
        "runtime.toml",
        "replay_queue = \"0\"\n",
        "",
        "status.copies needs `replay_queue`",
    ),
    ("runtime.toml", "before.active", "bfore.active", "no name `bfore`"),
    ("runtime.toml", "key = \"item\"", "key = \"itm\"", "no name `itm`"),
    (
        "runtime.toml",
        "when = \"node.role == 'member'\"",
        "when = \"nod.role == 'member'\"",
        "no name `nod`",
    ),
    (
        "runtime.toml",
        "{{ settings.name }}",
        "{{ setings.name }}",
        "no template sees `setings`",
    ),
    (
        "runtime.toml",
        "class = [\"serves\", \"votes\"]",
        "class = [\"votes\"]",
        "no role has the class",
    ),
    (
        "runtime.toml",
        "name = \"replicas\"",
        "name = \"master\"",
        "two probes are called `master`",
    ),
    (
        "runtime.toml",
        "template = \"redis.conf\"",
        "template = \"rdis.conf\"",
        "could not read the pack's file",
    ),
    ("redis.conf", "{% endif %}", "", "unexpected end of input"),
    (
        "redis.conf",
        "{{ node.addresses",
        "{{ nodde.addresses",
        "no template sees `nodde`",
    ),
    ("settings.toml", "default = 2", "default = 0", "at least 1"),
];

#[test]
fn every_mistake_has_its_place() {
    for (file, from, to, seen) in MISTAKES {
        let report = wrong_with(&[(file, from, to)]);
        assert!(report.contains(seen), "{from} → {to}: {report}");
        let placed = report.contains(&format!("/sentinel/{file}:")) || !report.contains("╭─");
        assert!(placed, "{report}");
    }
}

#[test]
fn what_a_person_reads_of_a_pack() {
    insta::assert_snapshot!(wrong_with(&[
        ("runtime.toml", "info.role == 'master' or", "inof.role == 'master' or"),
        ("runtime.toml", "config_tag =", "config_tg ="),
        ("sentinel.conf", "{{ settings.quorum }}", "{{ setting.quorum }}"),
    ]));
}

#[test]
fn the_mapped_pack_of_the_page_holds() {
    let page = include_str!("../../../docs/packs.md");
    let snippets = page.split("```toml\n").skip(1).filter_map(|s| s.split("```").next());
    let mapped: Vec<&str> = snippets.filter(|s| s.contains("schema = 2")).collect();
    assert_eq!(mapped.len(), 1);
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("example");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("runtime.toml"), mapped[0]).unwrap();
    std::fs::write(folder.join("settings.toml"), "").unwrap();
    check(&folder).unwrap_or_else(|e| panic!("{e}"));
}
