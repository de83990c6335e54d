//! A lab that is up as far as files go: its record, without machines.

use failoverlab::fabric::PortAssignment;
use failoverlab::files::Home;
use failoverlab::hypervisor::{Accel, CableKind, DiskFormat};
use failoverlab::lab::desired;
use failoverlab::lab::record::{DesiredState, ImageRef, LabRecord};
use failoverlab::spec;
use failoverlab::wait::Slowness;
use std::path::Path;

/// Writes the record of the built-in lab `name` under `home`.
pub fn lab(home: &Path, name: &str, ports: Vec<PortAssignment>) -> LabRecord {
    let source = spec::find(Some(name), Path::new("/")).unwrap();
    let lab = desired::read(&source).unwrap().lab;
    let record = LabRecord {
        schema: 1,
        instance: name.to_owned(),
        desired: DesiredState {
            lab,
            source: format!("{name} (built in)"),
            accel: Accel::Tcg,
            cables: ports.first().map_or(CableKind::Udp, |p| p.cable.kind()),
            slowness: Slowness::NONE,
            image: ImageRef {
                digest: String::new(),
                disk: "/nowhere".into(),
                format: DiskFormat::Qcow2,
                kernel: "/nowhere".into(),
                initrd: "/nowhere".into(),
                cmdline: String::new(),
            },
            seed: 1,
            programs: std::collections::BTreeMap::new(),
            inputs: Default::default(),
        },
        machines: Vec::new(),
        ports,
        complete: false,
        restored_from: None,
        restoring: None,
    };
    let files = Home::under(home).lab(name);
    Home::private_dir(&files.state).unwrap();
    record.save(&files.record()).unwrap();
    record
}
