//! Whatever is in a lab file: an answer, never a panic.

use super::super::*;
use super::example_context;
use proptest::prelude::*;
use std::sync::LazyLock;

const LABS: [&str; 2] = [
    include_str!("../../../labs/ccr/lab.toml"),
    include_str!("../../../labs/bare/lab.toml"),
];

/// Things that a value may be replaced by.
const EVIL: &[&str] = &[
    "\"\"",
    "\"../../etc\"",
    "-1",
    "99999999999999999999",
    "nan",
    "[]",
    "[[]]",
    "{}",
    "{ a = { b = [1] } }",
    "1979-05-27",
    "\"255.255.255.255\"",
    "\"255.255.255.248/29\"",
    "\"0.0.0.0/8\"",
    "\"18446744073709551615 B\"",
    "\"18446744073709551615 d\"",
    "65535",
    "0",
    "true",
    "[\"node1\", \"node1\"]",
    "\"\u{1F480}\"",
];

static CONTEXT: LazyLock<Context> = LazyLock::new(|| Context {
    host_memory: Some(Size::mib(512)),
    ..example_context()
});

/// Reads it, and shows whatever was found.
fn read(text: &str) -> bool {
    match parse("lab.toml", text, &CONTEXT) {
        Ok(loaded) => {
            render("lab.toml", text, &loaded.warnings, true);
            true
        }
        Err(Error::Invalid(invalid)) => {
            assert!(!invalid.findings.is_empty() && !invalid.report.is_empty());
            assert!(invalid.coloured().len() >= invalid.report.len());
            false
        }
        Err(e) => {
            assert_eq!(e.exit_code(), 4);
            false
        }
    }
}

/// Both labs with the value of one key replaced.
fn replaced(text: &str, line: usize, value: &str) -> Option<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let (key, _) = lines[line].split_once(" = ")?;
    lines[line] = format!("{key} = {value}");
    Some(lines.join("\n"))
}

#[test]
fn every_value_replaced_by_every_evil_one() {
    for text in LABS {
        for line in 0..text.lines().count() {
            for evil in EVIL {
                if let Some(text) = replaced(text, line, evil) {
                    read(&text);
                }
            }
        }
    }
}

#[test]
fn every_line_left_out_or_doubled() {
    for text in LABS {
        let lines: Vec<&str> = text.lines().collect();
        for i in 0..lines.len() {
            let mut fewer = lines.clone();
            fewer.remove(i);
            read(&fewer.join("\n"));
            let mut more = lines.clone();
            more.insert(i, lines[i]);
            read(&more.join("\n"));
        }
    }
}

#[test]
fn deep_and_wide_files_end() {
    read(&format!("a = {}", "[".repeat(10_000)));
    read(&format!("a = {}1{}", "[".repeat(10_000), "]".repeat(10_000)));
    read(&format!("a{} = 1", ".a".repeat(10_000)));
    read(
        &(0..3000)
            .map(|i| format!("[nodes.n{i}]\nvcpus = 0\n"))
            .collect::<String>(),
    );
    let many: String = (0..2000)
        .map(|i| format!("[nodes.n{i}]\nnetworks = [\"n\"]\n"))
        .collect();
    assert!(!read(&format!(
        "schema = 1\nname = \"x\"\n[networks.n]\nsubnet = \"10.0.0.0/8\"\n{many}"
    )));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn garbage(text in "\\PC{0,200}") {
        read(&text);
    }

    #[test]
    fn garbage_of_our_own_words(words in proptest::collection::vec(prop_oneof![
        "[a-z]{1,3}", Just("[nodes.a]\n".into()), Just("[networks.n]\n".into()), Just("[runtime]\n".into()), Just("\n".into()),
        Just(" = ".into()), Just("\"".into()), Just("{".into()), Just("}".into()), Just("[".into()), Just("]".into()),
        Just("subnet".into()), Just("\"10.0.0.0/8\"".into()), Just("schema = 1\n".into()), Just("name = \"x\"\n".into()),
    ], 0..40)) {
        read(&words.concat());
    }

    #[test]
    fn a_lab_cut_off_or_with_bytes_changed(
        which in 0..2usize,
        at in any::<proptest::sample::Index>(),
        cut in any::<bool>(),
        with in "[\\PC\n\u{0}\"\\[\\]={}]{0,4}",
    ) {
        let text = LABS[which];
        let mut i = at.index(text.len());
        while !text.is_char_boundary(i) {
            i -= 1;
        }
        let rest = if cut { "" } else { &text[i..] };
        read(&format!("{}{with}{rest}", &text[..i]));
    }
}

#[test]
fn what_an_editor_put_there_is_named_with_what_is_meant() {
    let help = |text: &str| {
        let findings = crate::spec::decode::<toml::Table>(text).unwrap_err();
        findings[0].help.clone().unwrap_or_default()
    };
    for (text, said) in [
        ("name = “ccr”", "“ (U+201C) is a typographic quotation mark: write \""),
        ("name = ‘ccr’", "(U+2018) is a typographic quotation mark: write '"),
        ("name\u{a0}= 1", "(U+00A0) is a no-break space: write a plain one"),
        ("name = 1\n\u{1a}", "(U+001A) is Ctrl-Z"),
        (
            "\u{200b}name = 1",
            "(U+200B) is a character that cannot be seen: delete it",
        ),
        ("name = –1", "(U+2013) is a dash: write -"),
        ("name = \u{7}", "(U+0007) is a control character: delete it"),
    ] {
        assert!(help(text).contains(said), "{text:?}: {}", help(text));
    }
    // Inside of text each of them is what it is.
    assert!(crate::spec::decode::<toml::Table>("title = \"“a” – b\u{a0}c\"").is_ok());
    assert_eq!(help("name = ccr"), "");
}

#[test]
fn a_hostile_file_does_not_reach_the_terminal() {
    for evil in ["\x1b[2J", "\u{9b}31m", "\u{202e}", "\r"] {
        for text in [
            format!("name = \"{evil}\""),
            format!("# {evil}\nname = 1"),
            format!("\"{}\" = 1", evil.escape_unicode()),
        ] {
            let Err(Error::Invalid(invalid)) = parse(&format!("{evil}.toml"), &text, &example_context()) else {
                panic!("it holds");
            };
            assert!(!invalid.report.contains(evil), "{:?}", invalid.report);
            assert!(
                !invalid.report.chars().any(|c| c.is_control() && c != '\n'),
                "{:?}",
                invalid.report
            );
        }
    }
}
