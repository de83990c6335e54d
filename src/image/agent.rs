//! The agent in every machine (`runtime/agent`): a file and a unit of the image.

use super::tree::Tree;
use crate::error::Result;

/// The program, as build.rs compiled it.
pub(crate) const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/lab-agent"));

/// Its unit: it begins with the boot, as soon as there is a port. Whoever speaks to it waits in the port until it runs.
pub(super) const UNIT: &str = "\
[Unit]
Description=Agent of a machine of a lab
DefaultDependencies=no
ConditionPathExistsGlob=/sys/class/virtio-ports/*
Conflicts=shutdown.target
Before=shutdown.target
StartLimitIntervalSec=0

[Service]
ExecStart=/usr/lib/failoverlab/agent
Restart=always
RestartSec=1

[Install]
WantedBy=multi-user.target
";

/// Puts program and unit into an installed system, and lets it start at boot.
pub(super) fn install(tree: &Tree) -> Result<()> {
    tree.write("/usr/lib/failoverlab/agent", 0o755, PROGRAM)?;
    tree.write("/etc/systemd/system/failoverlab-agent.service", 0o644, UNIT.as_bytes())?;
    tree.enable("failoverlab-agent.service")
}
