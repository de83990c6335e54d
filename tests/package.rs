//! The Debian package: what is in it runs, and it asks for all that it needs.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

const TOOL: &str = env!("CARGO_BIN_EXE_failoverlab");

fn run(program: impl AsRef<std::ffi::OsStr>, args: &[&str]) -> Output {
    Command::new(program)
        .args(args)
        .env("COMPRESS", "none")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap()
}

fn text(out: &Output) -> String {
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).trim().to_owned()
}

/// A program in the place of ccrd, which is built for guests alone.
fn program(dir: &Path) -> String {
    let path = dir.join("ccrd");
    std::fs::write(&path, "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// Names before versions and alternatives.
fn names(field: &str) -> Vec<String> {
    field
        .split([',', '|'])
        .filter_map(|d| d.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_is_installed_runs_and_needs_nothing_that_it_does_not_name() {
    let dir = tempfile::tempdir().unwrap();
    let ccrd = program(dir.path());
    let deb = text(&run("scripts/deb", &[TOOL, &ccrd, &dir.path().display().to_string()]));
    let root = dir.path().join("root");
    text(&run("dpkg-deb", &["--extract", &deb, &root.display().to_string()]));

    let tool = root.join("usr/bin/failoverlab");
    assert!(text(&run(&tool, &["--version"])).starts_with("failoverlab "));
    assert!(
        tool.canonicalize().unwrap().with_file_name("ccrd").is_file(),
        "beside the tool"
    );
    for file in [
        "man/man1/failoverlab-up.1.gz",
        "bash-completion/completions/failoverlab",
        "doc/failoverlab/README.md",
    ] {
        let meta = root.join("usr/share").join(file).metadata().unwrap();
        assert!(
            meta.len() > 100 && meta.permissions().mode() & 0o777 == 0o644,
            "{file}: {meta:?}"
        );
    }

    let depends = names(&text(&run("dpkg-deb", &["--field", &deb, "Depends"])));
    for package in text(&run("scripts/bootstrap", &["--list-run"])).lines() {
        assert!(
            depends.contains(&package.to_owned()),
            "{package} is not among {depends:?}"
        );
    }
    // Those that the tool itself is linked with, not those that these are linked with.
    let needed = text(&run("objdump", &["-p", TOOL]));
    let libraries: Vec<&str> = needed
        .lines()
        .filter_map(|l| l.trim().strip_prefix("NEEDED"))
        .map(str::trim)
        .collect();
    assert!(libraries.len() > 2, "{needed}");
    for library in libraries {
        let owner = text(&run("dpkg", &["--search", &format!("*/{library}")]));
        let owners: Vec<&str> = owner.lines().filter_map(|l| l.split([':', ',']).next()).collect();
        assert!(
            owners.iter().any(|o| depends.iter().any(|d| d == o)),
            "{library} is of {owners:?}"
        );
    }
}

#[test]
fn what_was_not_built_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let out = run(
        "scripts/deb",
        &[TOOL, "target/no/ccrd", &dir.path().display().to_string()],
    );
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(
        !out.status.success() && said.contains("target/no/ccrd") && said.contains("make build"),
        "{said}"
    );
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
