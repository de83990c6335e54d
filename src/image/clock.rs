//! The program in every machine that tells and sets its clock (`runtime/clock`): a file and a unit of the image.

use super::tree::Tree;
use crate::error::Result;

/// The program, as build.rs compiled it.
pub(super) const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lab-clock"));

/// Its unit. Whoever asks waits in the port until it runs.
pub(super) const UNIT: &str = "\
[Unit]
Description=Clock of a machine of a lab
DefaultDependencies=no
ConditionPathExistsGlob=/sys/class/virtio-ports/*
Conflicts=shutdown.target
Before=shutdown.target

[Service]
ExecStart=/usr/lib/failoverlab/clock
Restart=on-failure
RestartSec=1

[Install]
WantedBy=multi-user.target
";

/// Puts program and unit into an installed system, and lets it start at boot.
pub(super) fn install(tree: &Tree) -> Result<()> {
    tree.write("/usr/lib/failoverlab/clock", 0o755, PROGRAM)?;
    tree.write("/etc/systemd/system/failoverlab-clock.service", 0o644, UNIT.as_bytes())?;
    tree.enable("failoverlab-clock.service")
}
