//! `scripts/bootstrap` against fakes of apt, dpkg, sudo and rustc: nothing is installed here.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A host: its installed packages with their versions, what apt offers of QEMU, and its rustc.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new(installed: &BTreeMap<String, String>, candidate: &str, rustc: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let packages: String = installed.iter().map(|(p, v)| format!("{p} {v}\n")).collect();
        std::fs::write(dir.path().join("installed"), packages).unwrap();
        let host = Self { dir };
        let at = host.dir.path().display().to_string();
        // The last argument is the package, the one before it the format.
        host.fake(
            "dpkg-query",
            &format!(
                "for p; do :; done\nversion=$(sed -n \"s/^$p //p\" {at}/installed)\n[ -n \"$version\" ] || exit 1\n\
                 case \"$*\" in *Version*) printf %s \"$version\" ;; *) printf installed ;; esac"
            ),
        );
        host.fake("apt-get", &format!("echo \"apt-get $*\" >> {at}/log"));
        host.fake("sudo", &format!("echo sudo >> {at}/log; exec \"$@\""));
        host.fake(
            "apt-cache",
            &format!("echo 'qemu-system-x86:'; echo '  Installed: x'; echo '  Candidate: {candidate}'"),
        );
        host.fake("id", "echo 1000");
        host.fake(
            "rustc",
            &rustc.map_or("exit 1".to_owned(), |v| format!("echo 'rustc {v} (x 2026-01-01)'")),
        );
        host
    }

    fn fake(&self, name: &str, script: &str) {
        // Written by a process of its own: what this one, with its threads that fork, has just written may be "busy".
        let mut writer = Command::new("sh")
            .args(["-c", "cat > \"$1\"; chmod 755 \"$1\"", "sh"])
            .arg(self.dir.path().join(name))
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let text = format!("#!/bin/sh\n{script}\n");
        std::io::Write::write_all(&mut writer.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(writer.wait().unwrap().success());
    }

    fn run(&self, yes: bool) -> Output {
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bootstrap"))
            .env("PATH", format!("{}:/usr/bin:/bin", self.dir.path().display()))
            .env("YES", if yes { "1" } else { "" })
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }
}

fn all() -> BTreeMap<String, String> {
    let out = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/bootstrap"))
        .arg("--list")
        .output()
        .unwrap();
    assert!(out.status.success());
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().map(|p| (p.to_owned(), "7.2".to_owned())).collect()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_host_with_everything_is_left_alone() {
    let host = Host::new(&all(), "7.2", Some("1.95.0"));
    let out = host.run(false);
    assert!(
        out.status.success() && out.stdout.is_empty() && out.stderr.is_empty(),
        "{out:?}"
    );
    assert_eq!(host.log(), "");
}

#[test]
fn what_is_missing_is_listed_and_installed_only_when_agreed() {
    let mut installed = all();
    installed.remove("uidmap");
    installed.remove("mmdebstrap");
    let host = Host::new(&installed, "7.2", Some("1.96.1"));
    let out = host.run(false);
    assert!(!out.status.success());
    assert_eq!(text(&out.stdout), "Missing packages: mmdebstrap uidmap\n");
    assert!(text(&out.stderr).contains("YES=1") && host.log().is_empty());
    let out = host.run(true);
    assert!(out.status.success(), "{out:?}");
    assert_eq!(
        host.log(),
        "sudo\napt-get update\nsudo\napt-get install --yes --no-install-recommends mmdebstrap uidmap\n"
    );
}

#[test]
fn the_two_packages_of_qemu_get_one_version() {
    let mut installed = all();
    installed.remove("qemu-system-x86");
    installed.remove("make");
    installed.insert("qemu-utils".into(), "1:10.0+bpo12".into());
    let host = Host::new(&installed, "1:7.2+deb12u18", Some("1.95.0"));
    let out = host.run(true);
    assert!(out.status.success(), "{out:?}");
    let pinned = "--allow-downgrades make qemu-system-x86=1:7.2+deb12u18 qemu-utils=1:7.2+deb12u18\n";
    assert!(host.log().ends_with(pinned), "{}", host.log());
}

#[test]
fn a_missing_or_old_toolchain_is_named_with_its_remedy() {
    for (rustc, found) in [
        (None, "found: none"),
        (Some("1.9.0"), "found: 1.9"),
        (Some("0.99.0"), "found: 0.99"),
    ] {
        let host = Host::new(&all(), "7.2", rustc);
        let out = host.run(true);
        assert!(!out.status.success());
        let said = text(&out.stderr);
        assert!(
            said.contains(found) && said.contains("rustup toolchain install 1.95"),
            "{said}"
        );
        assert_eq!(host.log(), "");
    }
}

#[test]
fn doctors_remedies_are_in_the_list() {
    let listed = all();
    for (program, package) in failoverlab::image::PROGRAMS {
        assert!(listed.contains_key(package), "{program} is of {package}");
    }
}
