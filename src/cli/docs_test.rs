//! `docs/commands.md` is what each verb's `--help` says. UPDATE_DOCS=1 rewrites it.

use clap::Command;

const HEAD: &str = "\
# Commands

What `failoverlab` and each of its verbs say with `--help`. This page is written from the program itself:
`UPDATE_DOCS=1 cargo test the_page_of_commands` writes it anew.
";

/// A verb's help and that of the verbs below it.
fn pages(command: &Command, path: &str, out: &mut String) {
    let help = command.clone().render_long_help().to_string();
    let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
    *out += &format!("\n## {path}\n```text\n{}\n```\n", lines.join("\n").trim_end());
    let verbs = command
        .get_subcommands()
        .filter(|c| !c.is_hide_set() && c.get_name() != "help");
    for verb in verbs {
        pages(verb, &format!("{path} {}", verb.get_name()), out);
    }
}

#[test]
fn the_page_of_commands_is_what_the_program_says() {
    let mut command = super::command().term_width(100);
    command.build();
    let mut right = HEAD.to_owned();
    pages(&command, "failoverlab", &mut right);
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/commands.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &right).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(written, right, "UPDATE_DOCS=1 cargo test the_page_of_commands");
}
