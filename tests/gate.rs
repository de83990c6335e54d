//! The gate itself: `scripts/test` and `.ci/run` end badly when anything does, and still run the rest. They are tried on a small
//! workspace of the same form with real tests, built by the real cargo; what installs, lints or changes users is a fake.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where the gate's own scripts are.
const REPOSITORY: &str = env!("CARGO_MANIFEST_DIR");

/// What fails when a file of this name is there.
const PLANTS: [&str; 6] = ["first", "second", "planted", "user", "root", "lint"];

/// A workspace with two test programs of its own, a runtime with the build of planted bugs, and machines.
struct Workspace {
    dir: PathBuf,
    _tempdir: tempfile::TempDir,
}

/// How a script ended.
struct Ended {
    status: i32,
    text: String,
}

impl Workspace {
    fn new() -> Self {
        let tempdir = tempfile::tempdir().unwrap();
        let this = Self {
            dir: tempdir.path().to_owned(),
            _tempdir: tempdir,
        };
        this.sources();
        this.fakes();
        this.copy("scripts/test");
        this.copy(".ci/run");
        let made = this
            .command("cargo")
            .args(["generate-lockfile", "--offline"])
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        this
    }

    fn sources(&self) {
        let package = |name: &str, more: &str| format!("[package]\nname = \"{name}\"\nedition = \"2024\"\n{more}");
        let machines = "[[bin]]\nname = \"failoverlab\"\ntest = false\n[[test]]\nname = \"machines\"\nharness = false\ntest = false\n";
        let root = format!(
            "[workspace]\nmembers = [\"core\"]\n{}",
            package("failoverlab", machines)
        );
        self.write("Cargo.toml", &root);
        self.write("src/main.rs", "fn main() {}\n");
        self.write("tests/first.rs", &self.fails_where("first"));
        self.write("tests/second.rs", &self.fails_where("second"));
        // As libtest-mimic: the form of cargo's own, and its status.
        let says = r#"fn main() {
            let names: Vec<String> = std::env::args().skip(1).collect();
            let who = if names.is_empty() { "user" } else { "root" };
            let bad = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(who).exists();
            println!("\nmachines ran {who}\n");
            if bad { println!("failures:\n\n---- {who} ----\nleaks of {who}\n\n\nfailures:\n    {who}\n"); }
            println!("test result: {}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.10s",
                if bad { "FAILED" } else { "ok" }, 3 - u32::from(bad), u32::from(bad));
            std::process::exit(if bad { 101 } else { 0 });
        }"#;
        self.write("tests/machines.rs", says);
        let planted =
            "[features]\nplanted-bugs = []\n[[test]]\nname = \"planted\"\nrequired-features = [\"planted-bugs\"]\n";
        self.write("core/Cargo.toml", &package("ccr-core", planted));
        self.write("core/src/lib.rs", &self.fails_where("never"));
        self.write("core/tests/planted.rs", &self.fails_where("planted"));
    }

    /// A test program that fails where a file of this name is there.
    fn fails_where(&self, name: &str) -> String {
        let path = self.dir.join(name);
        format!("#[test]\nfn {name}() {{\n    assert!(!std::path::Path::new({path:?}).exists());\n}}\n")
    }

    /// What installs, lints or changes users: it writes down that it was asked.
    fn fakes(&self) {
        let log = self.dir.join("log").display().to_string();
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let lint = self.dir.join("lint").display().to_string();
        self.program(
            "fake/cargo",
            &format!(
                "case $1 in\nfmt | clippy | doc | deny) echo \"cargo $1\" >>{log}; [ \"$1\" != clippy ] || [ ! -e {lint} ] ;;\n\
                 tree) echo 'ccrd v0.1.0' ;;\n*) exec {cargo} \"$@\" ;;\nesac"
            ),
        );
        self.program("fake/id", "echo 0");
        // -i leaves nothing of the environment behind: the tool is where the staged one is.
        self.program(
            "fake/setpriv",
            "while [ \"${1#--}\" != \"$1\" ]; do shift; done; exec \"$@\"",
        );
        self.program("fake/getent", "echo nobody:x:1:1::/nowhere:/bin/sh");
        for name in ["fake/useradd", "fake/usermod"] {
            self.program(name, &format!("echo \"${{0##*/}}\" >>{log}"));
        }
        self.program("scripts/bootstrap", "");
        self.program("scripts/lint-docs", "");
        self.program("scripts/build-ccrd", "cp target/debug/failoverlab target/debug/ccrd");
        std::fs::copy(Path::new(REPOSITORY).join("Makefile"), self.dir.join("Makefile")).unwrap();
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Written by a process of its own: what this one, with its threads that fork, has just written may be "busy".
    fn program(&self, path: &str, script: &str) {
        self.write(&format!("{path}.text"), &format!("#!/bin/sh\n{script}\n"));
        let to = self.dir.join(path);
        let made = Command::new("sh")
            .args(["-c", "cat \"$1.text\" >\"$1\" && chmod 755 \"$1\"", "sh"])
            .arg(to)
            .status()
            .unwrap();
        assert!(made.success());
    }

    fn copy(&self, path: &str) {
        let to = self.dir.join(path);
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        let copied = Command::new("cp")
            .arg(Path::new(REPOSITORY).join(path))
            .arg(to)
            .status()
            .unwrap();
        assert!(copied.success());
    }

    fn command(&self, program: &str) -> Command {
        let path = std::env::var("PATH").unwrap();
        let mut command = Command::new(program);
        command
            .current_dir(&self.dir)
            .env("PATH", format!("{}:{path}", self.dir.join("fake").display()))
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("CARGO_BUILD_TARGET_DIR")
            .env_remove("FAILOVERLAB_SOAK")
            .env_remove("MAKEFLAGS")
            // make would take it for the one to call.
            .env_remove("CARGO")
            .env("FAILOVERLAB_TEST_USER", "somebody")
            .stdin(Stdio::null());
        command
    }

    fn run(&self, script: &str, tier: &[&str]) -> Ended {
        let path = self.dir.join(script);
        let out = self.command(path.to_str().unwrap()).args(tier).output().unwrap();
        let text = [out.stdout, out.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        Ended {
            status: out.status.code().unwrap(),
            text,
        }
    }

    /// Runs a script while this one is planted.
    fn run_with(&self, plant: &str, script: &str, tier: &[&str]) -> Ended {
        assert!(PLANTS.contains(&plant));
        self.write(plant, "");
        let ended = self.run(script, tier);
        std::fs::remove_file(self.dir.join(plant)).unwrap();
        ended
    }
}

impl Ended {
    /// How often a test program told its result, the sum at the end left out.
    fn programs(&self) -> usize {
        self.text.matches("test result: ").count() - 1
    }

    /// The sum at the end.
    fn sum(&self) -> &str {
        let at = self
            .text
            .rfind("test result: ")
            .unwrap_or_else(|| panic!("{}", self.text));
        self.text[at..].split("; 0 ignored").next().unwrap()
    }
}

/// Results of one whole run: two programs, the runtime's library and its documentation, the planted bugs, the machines twice.
const ALL: usize = 7;

#[test]
fn one_failing_test_in_any_tier_fails_the_whole_and_the_rest_still_runs() {
    let w = Workspace::new();
    let well = w.run("scripts/test", &["ci"]);
    assert_eq!(well.status, 0, "{}", well.text);
    assert_eq!(
        (well.programs(), well.sum()),
        (ALL, "test result: ok. 10 passed; 0 failed"),
        "{}",
        well.text
    );
    let broken = "assertion failed";
    for (plant, why) in [
        ("first", broken),
        ("second", broken),
        ("planted", broken),
        ("user", "leaks of user"),
        ("root", "leaks of root"),
    ] {
        let ended = w.run_with(plant, "scripts/test", &["ci"]);
        assert_ne!(ended.status, 0, "{plant}: {}", ended.text);
        assert_eq!(ended.programs(), ALL, "{plant}: {}", ended.text);
        assert_eq!(
            ended.sum(),
            "test result: FAILED. 9 passed; 1 failed",
            "{plant}: {}",
            ended.text
        );
        let at_the_end = ended.text.split_once("ci: what failed:").map(|(_, end)| end);
        assert!(
            at_the_end.is_some_and(|end| end.contains(why)),
            "{plant}: {}",
            ended.text
        );
    }
    for (plant, tier) in [
        ("first", "units"),
        ("planted", "units"),
        ("user", "machines"),
        ("root", "machines"),
    ] {
        assert_ne!(
            w.run_with(plant, "scripts/test", &[tier]).status,
            0,
            "{plant} in {tier}"
        );
    }
    assert_eq!(
        w.run_with("root", "scripts/test", &["units"]).status,
        0,
        "the other tier is another one"
    );
}

#[test]
fn ci_fails_with_each_of_its_parts() {
    let w = Workspace::new();
    let well = w.run(".ci/run", &[]);
    assert_eq!(well.status, 0, "{}", well.text);
    let log = std::fs::read_to_string(w.dir.join("log")).unwrap();
    for asked in ["cargo fmt", "cargo clippy", "cargo doc", "cargo deny"] {
        assert!(log.contains(asked), "{asked} is part of it: {log}");
    }
    for plant in ["second", "planted", "user", "root"] {
        let ended = w.run_with(plant, ".ci/run", &[]);
        assert_ne!(ended.status, 0, "{plant}: {}", ended.text);
        assert_eq!(
            ended.sum(),
            "test result: FAILED. 9 passed; 1 failed",
            "{plant}: {}",
            ended.text
        );
    }
    let ended = w.run_with("lint", ".ci/run", &[]);
    assert_ne!(ended.status, 0, "{}", ended.text);
    assert_eq!(ended.programs(), ALL, "the tests run all the same: {}", ended.text);
}

#[test]
fn what_cannot_be_built_or_runs_no_test_fails() {
    let w = Workspace::new();
    let second = std::fs::read_to_string(w.dir.join("tests/second.rs")).unwrap();
    for (source, seen) in [
        (
            "#[test]\nfn second() { let x: u8 = \"no\"; }\n",
            "no test program ran, and the status is 101",
        ),
        ("fn second() {}\n", "ran no test"),
        ("#[test]\n#[ignore]\nfn second() {}\n", "ran no test"),
        (
            "#[test]\nfn second() { std::process::exit(0); }\n",
            "ended without a result",
        ),
    ] {
        w.write("tests/second.rs", source);
        let ended = w.run("scripts/test", &["units"]);
        assert_ne!(ended.status, 0, "{source}: {}", ended.text);
        assert!(ended.text.contains(seen), "{source}: {}", ended.text);
        assert!(
            ended.text.contains("test planted ... ok"),
            "the rest still runs: {}",
            ended.text
        );
        assert!(ended.sum().starts_with("test result: FAILED."), "{}", ended.text);
        assert!(!ended.sum().ends_with(" 0 failed"), "{}", ended.text);
    }
    w.write("tests/second.rs", &second);

    w.write("tests/machines.rs", "fn main() {}\n");
    let ended = w.run("scripts/test", &["machines"]);
    assert!(
        ended.status != 0 && ended.text.contains("no test program ran"),
        "{}",
        ended.text
    );
    w.write("tests/machines.rs", "fn main() { no }\n");
    let ended = w.run(".ci/run", &[]);
    assert!(
        ended.status != 0 && ended.text.contains("machines: could not be built"),
        "{}",
        ended.text
    );
    assert_eq!(ended.programs(), ALL - 2, "{}", ended.text);
}
