//! What is compiled into the tool: its folders, and the program that images carry into machines.

use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // `include_dir` alone does not notice a file that is added.
    for folder in ["images", "labs", "templates"] {
        if Path::new(folder).is_dir() {
            println!("cargo::rerun-if-changed={folder}");
        }
    }
    clock();
}

/// Compiles `runtime/clock` for machines, whose system is older than this host's: static, small, and the same bytes whatever the tool is
/// built for, since the image's digest covers them. Cargo cannot be asked: it is waiting for us.
fn clock() {
    const SOURCE: &str = "runtime/clock/src/main.rs";
    println!("cargo::rerun-if-changed={SOURCE}");
    let set = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"));
    let status = Command::new(set("RUSTC"))
        .args([
            SOURCE,
            "--crate-name=lab_clock",
            "--edition=2024",
            "--target=x86_64-unknown-linux-gnu",
        ])
        .args([
            "-Copt-level=s",
            "-Clto=fat",
            "-Ccodegen-units=1",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
        ])
        .arg("-o")
        .arg(Path::new(&set("OUT_DIR")).join("lab-clock"))
        .status();
    assert!(
        status.as_ref().is_ok_and(|s| s.success()),
        "compile {SOURCE}: {status:?}"
    );
}
