//! Small pieces of XML that libvirt is handed after a machine was made.

use super::template::path;
use super::{Described, Label};
use crate::error::{Error, Problem, Result};
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, Writer};
use std::path::PathBuf;

/// The `<interface>` of `mac` in a domain's live XML, with its carrier set; `None` where no interface has that MAC.
pub(super) fn interface_with_link(domain: &str, mac: &str, up: bool) -> Result<Option<String>> {
    let failed = |e: &dyn std::fmt::Display| Error::Operation(Problem::new("read the machine's ports").observed(e));
    let mut reader = Reader::from_str(domain);
    let mut found = false;
    let mut piece: Option<Writer<Vec<u8>>> = None;
    let mut depth = 0_u32;
    loop {
        let event = reader.read_event().map_err(|e| failed(&e))?;
        let Some(writer) = &mut piece else {
            match event {
                Event::Start(ref e) if e.name().as_ref() == "interface" => {
                    let mut w = Writer::new(Vec::new());
                    w.write_event(event).map_err(|e| failed(&e))?;
                    (piece, found, depth) = (Some(w), false, 0);
                }
                Event::Eof => return Ok(None),
                _ => {}
            }
            continue;
        };
        match &event {
            Event::Empty(e) if depth == 0 && e.name().as_ref() == "link" => continue,
            Event::Empty(e) if depth == 0 && e.name().as_ref() == "mac" => {
                let address = e.try_get_attribute("address").map_err(|e| failed(&e))?;
                found |= address.is_some_and(|a| a.value.eq_ignore_ascii_case(mac));
            }
            Event::Start(_) => depth += 1,
            Event::End(_) if depth > 0 => depth -= 1,
            Event::End(_) => {
                if found {
                    let link = BytesStart::new("link").with_attributes([("state", if up { "up" } else { "down" })]);
                    writer.write_event(Event::Empty(link)).map_err(|e| failed(&e))?;
                    writer.write_event(event).map_err(|e| failed(&e))?;
                    let bytes = piece.take().map(Writer::into_inner).unwrap_or_default();
                    return String::from_utf8(bytes).map(Some).map_err(|e| failed(&e));
                }
                piece = None;
                continue;
            }
            Event::Eof => return Ok(None),
            _ => {}
        }
        writer.write_event(event).map_err(|e| failed(&e))?;
    }
}

/// The label of a machine's lab, as libvirt takes metadata.
pub(super) fn label(label: &Label) -> Result<String> {
    let failed = |e: &dyn std::fmt::Display| {
        Error::Operation(Problem::new("write the machine's label").on(&label.name).observed(e))
    };
    let mut w = Writer::new(Vec::new());
    w.create_element("lab")
        .with_attribute(("name", label.name.as_str()))
        .write_inner_content(|w| {
            for port in &label.down {
                w.create_element("down")
                    .with_attribute(("mac", port.mac.as_str()))
                    .write_empty()?;
            }
            Ok(())
        })
        .map_err(|e| failed(&e))?;
    String::from_utf8(w.into_inner()).map_err(|e| failed(&e))
}

/// What to snapshot: each local disk onto its new overlay, shared disks and memory left out.
pub(super) fn snapshot(domain: &Described, disks: &[(String, PathBuf)]) -> Result<String> {
    let refuse = |seen: String| Error::Operation(Problem::new("describe the snapshot").on(&domain.name).observed(seen));
    for (target, _) in disks {
        if domain.disk(target).is_none() {
            return Err(refuse(format!("there is no disk {target}")));
        }
    }
    let mut layers = Vec::new();
    for disk in &domain.devices.disk {
        let target = disk.target.dev.as_str();
        let overlay = disks.iter().find(|(t, _)| t == target).map(|(_, p)| p);
        match (overlay, disk.shareable.is_some()) {
            (Some(_), true) => return Err(refuse(format!("the shared disk {target} cannot be layered"))),
            (None, false) => return Err(refuse(format!("no overlay for the disk {target}"))),
            (Some(p), false) => layers.push((target, Some(path(p).map_err(refuse)?))),
            (None, true) => layers.push((target, None)),
        }
    }
    let mut w = Writer::new(Vec::new());
    w.create_element("domainsnapshot")
        .write_inner_content(|w| {
            w.create_element("memory")
                .with_attribute(("snapshot", "no"))
                .write_empty()?;
            w.create_element("disks").write_inner_content(|w| {
                for (target, overlay) in &layers {
                    let disk = w.create_element("disk").with_attribute(("name", *target));
                    match overlay {
                        None => disk.with_attribute(("snapshot", "no")).write_empty()?,
                        Some(file) => disk
                            .with_attributes([("snapshot", "external"), ("type", "file")])
                            .write_inner_content(|w| {
                                w.create_element("driver")
                                    .with_attribute(("type", "qcow2"))
                                    .write_empty()?;
                                w.create_element("source")
                                    .with_attribute(("file", *file))
                                    .write_empty()?;
                                Ok(())
                            })?,
                    };
                }
                Ok(())
            })?;
            Ok(())
        })
        .map_err(|e| refuse(e.to_string()))?;
    String::from_utf8(w.into_inner()).map_err(|e| refuse(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::machine;
    use super::*;
    use proptest::prelude::*;

    const LIVE: &str = r#"<domain type="qemu"><name>a</name><devices>
        <disk type="file"><mac address="52:54:00:00:00:02"/></disk>
        <interface type='udp'><mac address='52:54:00:00:00:01'/><link state='up'/><alias name='net0'/></interface>
        <interface type='udp'><mac address='52:54:00:00:00:02'/><source address='127.0.0.1' port='1'><local address='127.0.0.1' port='2'/></source>
          <link state='up'/><x><link state='kept'/></x></interface>
        </devices></domain>"#;

    #[test]
    fn only_the_carrier_of_the_right_port_changes() {
        let piece = interface_with_link(LIVE, "52:54:00:00:00:02", false).unwrap().unwrap();
        #[derive(serde::Deserialize)]
        struct Kept {
            x: Nested,
        }
        #[derive(serde::Deserialize)]
        struct Nested {
            link: super::super::Link,
        }
        let i: super::super::Interface = quick_xml::de::from_str(&piece).unwrap();
        assert_eq!(i.mac.address, "52:54:00:00:00:02");
        assert_eq!((i.source.port, i.source.local.port), (1, 2));
        assert_eq!(i.link.unwrap().state, "down");
        let kept: Kept = quick_xml::de::from_str(&piece).unwrap();
        assert_eq!(kept.x.link.state, "kept");
    }

    #[test]
    fn a_mac_that_no_port_has_is_none() {
        assert_eq!(interface_with_link(LIVE, "52:54:00:00:00:03", false).unwrap(), None);
        assert_eq!(interface_with_link("<domain><interface>", "x", false).unwrap(), None);
    }

    #[derive(serde::Deserialize)]
    struct Wanted {
        memory: WantedMemory,
        disks: WantedDisks,
    }
    #[derive(serde::Deserialize)]
    struct WantedMemory {
        #[serde(rename = "@snapshot")]
        snapshot: String,
    }
    #[derive(serde::Deserialize)]
    struct WantedDisks {
        disk: Vec<WantedDisk>,
    }
    #[derive(serde::Deserialize)]
    struct WantedDisk {
        #[serde(rename = "@name")]
        name: String,
        #[serde(rename = "@snapshot")]
        snapshot: String,
        source: Option<super::super::FileSource>,
    }

    fn layers(a: &str) -> Vec<(String, PathBuf)> {
        vec![("vda".into(), a.into()), ("vdb".into(), "/new/b".into())]
    }

    #[test]
    fn a_snapshot_names_every_disk() {
        let d = Described::parse(&machine("node1").to_xml().unwrap()).unwrap();
        let say = |layers: &[(String, PathBuf)]| snapshot(&d, layers);
        assert!(say(&layers("/a")[..1]).is_err(), "vdb was forgotten");
        assert!(
            say(&[layers("/a"), vec![("sda".into(), "/s".into())]].concat()).is_err(),
            "a shared disk"
        );
        assert!(
            say(&[layers("/a"), vec![("vdx".into(), "/s".into())]].concat()).is_err(),
            "no such disk"
        );
        assert!(say(&layers("/a\nb")).is_err(), "a line break in a path");
        assert!(say(&layers("relative")).is_err());
    }

    proptest! {
        #[test]
        fn paths_in_a_snapshot_come_back(a in "/[^\\pC]{0,30}") {
            let d = Described::parse(&machine("node1").to_xml().unwrap()).unwrap();
            let xml = snapshot(&d, &layers(&a)).unwrap();
            let w: Wanted = quick_xml::de::from_str(&xml).unwrap();
            prop_assert_eq!(w.memory.snapshot, "no");
            let disks: Vec<_> = w.disks.disk.iter().map(|d| (d.name.as_str(), d.snapshot.as_str())).collect();
            prop_assert_eq!(disks, [("vda", "external"), ("vdb", "external"), ("sda", "no")]);
            prop_assert_eq!(&w.disks.disk[0].source.as_ref().unwrap().file, &a);
        }

        #[test]
        fn garbage_never_panics(xml in "\\PC*|<domain><interface><mac address='x'/>.*") {
            let _ = interface_with_link(&xml, "x", true);
        }
    }
}
