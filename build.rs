//! What is compiled into the tool: its folders, and the program that images carry into machines.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // `include_dir` alone does not notice a file that is added.
    for folder in ["demos", "images", "labs", "templates"] {
        if Path::new(folder).is_dir() {
            println!("cargo::rerun-if-changed={folder}");
        }
    }
    let out = PathBuf::from(set("OUT_DIR"));
    println!("cargo::rerun-if-changed=runtime/agent/src");
    let library = out.join("liblab_agent.rlib");
    compile(
        "runtime/agent/src/lib.rs",
        "lab_agent",
        &library,
        &["--crate-type=rlib".into()],
    );
    let library = format!("--extern=lab_agent={}", library.display());
    compile(
        "runtime/agent/src/main.rs",
        "lab_agent_program",
        &out.join("lab-agent"),
        &[library],
    );
}

fn set(name: &str) -> OsString {
    std::env::var_os(name).unwrap_or_else(|| panic!("cargo sets {name}"))
}

/// Compiles a program, or its library, for machines, whose system is older than this host's: static, small, and the same bytes whatever
/// the tool is built for, since the image's digest covers them. Cargo cannot be asked: it is waiting for us.
fn compile(source: &str, name: &str, to: &Path, more: &[String]) {
    println!("cargo::rerun-if-changed={source}");
    let status = Command::new(set("RUSTC"))
        .args([source, "--edition=2024", "--target=x86_64-unknown-linux-gnu"])
        .arg(format!("--crate-name={name}"))
        .args([
            "-Copt-level=s",
            "-Clto=fat",
            "-Ccodegen-units=1",
            "-Cpanic=abort",
            "-Cstrip=symbols",
            "-Ctarget-feature=+crt-static",
        ])
        .args(more)
        .arg("-o")
        .arg(to)
        .status();
    assert!(
        status.as_ref().is_ok_and(|s| s.success()),
        "compile {source}: {status:?}"
    );
}
