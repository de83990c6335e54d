//! What needs more than one part of the shell, or a real Samba.

mod cluster;
mod damage;
mod everyday;
mod failover;
mod files;
mod operators;
mod programs;
mod samba;
mod shell;
mod upgrade;
mod wait;
mod witness;

#[test]
fn this_build_has_no_planted_bugs() {
    let out = std::process::Command::new(env!("CARGO_BIN_EXE_ccrd"))
        .arg("--version")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    assert!(!said.contains("planted") && !ccr_core::planted::AVAILABLE, "{said}");
}
