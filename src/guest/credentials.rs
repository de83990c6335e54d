//! What a machine knows before it runs: name, networks, keys, files. systemd reads it as a credential (an fw_cfg *file*, so that
//! nothing of it is on a command line) and `systemd-tmpfiles` writes the files before networkd and sshd start, at every boot.

use super::keys::Keys;
use super::template;
use crate::error::{Error, IoContext, Problem, Result};
use crate::files::{Home, NodeFiles};
use crate::hypervisor::Credential;
use crate::private;
use crate::spec::{Lab, Node, NodeFile};
use crate::units::Size;
use base64ct::{Base64, Encoding};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fmt::Write;
use std::net::Ipv4Addr;

/// fw_cfg name under which systemd 252 looks for further tmpfiles.d lines.
const TMPFILES: &str = "opt/io.systemd.credentials/tmpfiles.extra";

/// Where QEMU's user-mode network forwards to unless told otherwise. Static: no lease that a clock's jump could end.
const MGMT_ADDRESS: &str = "10.0.2.15/24";

/// Largest credential. systemd takes 1 MiB of all together, but the kernel hands fw_cfg files out in pages and skips to each one byte
/// by byte: time grows with the square, 0.2 s for 130 KiB and many seconds for 800 KiB on an emulated processor.
pub const LIMIT: Size = Size(256 << 10);

/// Whose the files of the tool's own are.
const ROOT: &str = "root";

/// A file that the machine finds at its first boot.
#[derive(Clone, PartialEq, Eq)]
pub struct BootFile {
    /// Absolute path in the machine.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// User and group.
    pub owner: (String, String),
    /// Whether one that is there stays as it is.
    pub once: bool,
    /// Content.
    pub content: Vec<u8>,
}

impl fmt::Debug for BootFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The content may be a key.
        write!(f, "{} ({:o}, {} bytes)", self.path, self.mode, self.content.len())
    }
}

/// Writes the node's credential files (0600, in a folder 0700) and says how the machine is to be given them.
pub fn write(lab: &Lab, node: &Node, keys: &Keys, files: &NodeFiles) -> Result<Vec<Credential>> {
    let text = tmpfiles(&node.name, &boot_files(lab, node, keys)?)?;
    let dir = files.credentials();
    Home::private_dir(&dir)?;
    let path = dir.join("tmpfiles.extra");
    private::replace_unsynced(&path, text.as_bytes()).tried("write the file", path.display())?;
    Ok(vec![Credential {
        name: TMPFILES.into(),
        path,
    }])
}

/// Every file of the machine, the lab file's `files` last.
pub fn boot_files(lab: &Lab, node: &Node, keys: &Keys) -> Result<Vec<BootFile>> {
    let host = keys
        .hosts
        .get(node.name.as_str())
        .ok_or_else(|| Error::Bug(Problem::new("find the host key").on(&node.name)))?;
    let mut all = Vec::new();
    let mut add = |path: &str, mode, content: String| {
        all.push(BootFile {
            path: path.to_owned(),
            mode,
            owner: (ROOT.to_owned(), ROOT.to_owned()),
            once: false,
            content: content.into_bytes(),
        });
    };
    add("/etc/hostname", 0o644, format!("{}\n", node.name));
    add(
        "/etc/hosts",
        0o644,
        template::render("guest/hosts", &Hosts { hosts: hosts(lab) })?,
    );
    add(
        "/etc/systemd/network/10-mgmt.network",
        0o644,
        template::render(
            "guest/mgmt.network",
            &Mgmt {
                mac: node.mgmt_mac.to_string(),
                address: MGMT_ADDRESS,
            },
        )?,
    );
    for (i, nic) in node.nics.iter().enumerate() {
        let network = lab
            .network(nic.network.as_str())
            .ok_or_else(|| Error::Bug(Problem::new("find the network").on(&nic.network)))?;
        let unit = template::render(
            "guest/lab.network",
            &Port {
                mac: nic.mac.to_string(),
                mtu: network.mtu,
                address: nic.address.to_string(),
                prefix: network.subnet.prefix,
                gateway: network.internet.then(|| network.workstation.to_string()),
            },
        )?;
        add(
            &format!("/etc/systemd/network/{}-{}.network", 20 + i, nic.network),
            0o644,
            unit,
        );
    }
    add("/etc/ssh/ssh_host_ed25519_key", 0o600, host.private.clone());
    add("/etc/ssh/ssh_host_ed25519_key.pub", 0o644, format!("{}\n", host.public));
    add("/root/.ssh/authorized_keys", 0o600, format!("{}\n", keys.tool.public));
    for (path, file) in &node.files {
        all.push(BootFile {
            path: path.clone(),
            mode: file.mode,
            owner: file.owner.clone(),
            once: file.once,
            content: own_text(lab, node, path, file)?.into_bytes(),
        });
    }
    Ok(all)
}

/// What stands in a file of the lab file's.
fn own_text(lab: &Lab, node: &Node, path: &str, file: &NodeFile) -> Result<String> {
    if !file.template {
        return Ok(file.text.clone());
    }
    let view = FileView {
        lab: &lab.name,
        node: node.into(),
        nodes: lab.nodes.iter().map(NodeView::from).collect(),
        networks: lab
            .networks
            .iter()
            .map(|n| NetworkView {
                name: &n.name,
                subnet: n.subnet.to_string(),
                prefix: n.subnet.prefix,
            })
            .collect(),
    };
    template::render_text(path, &file.text, &view)
}

/// What a template of the lab file's sees.
#[derive(Serialize)]
struct FileView<'a> {
    lab: &'a str,
    node: NodeView<'a>,
    nodes: Vec<NodeView<'a>>,
    networks: Vec<NetworkView<'a>>,
}

#[derive(Serialize)]
struct NodeView<'a> {
    name: &'a str,
    addresses: BTreeMap<&'a str, Ipv4Addr>,
    interfaces: BTreeMap<&'a str, &'a str>,
    disks: BTreeMap<&'a str, String>,
}

impl<'a> From<&'a Node> for NodeView<'a> {
    fn from(node: &'a Node) -> Self {
        Self {
            name: &node.name,
            addresses: node.nics.iter().map(|n| (n.network.as_str(), n.address)).collect(),
            interfaces: node
                .nics
                .iter()
                .map(|n| (n.network.as_str(), n.interface.as_str()))
                .collect(),
            disks: node
                .disks
                .iter()
                .map(|d| (d.name.as_str(), format!("/dev/disk/by-id/virtio-{}", d.serial)))
                .collect(),
        }
    }
}

#[derive(Serialize)]
struct NetworkView<'a> {
    name: &'a str,
    subnet: String,
    prefix: u8,
}

#[derive(Serialize)]
struct Hosts {
    hosts: Vec<Host>,
}

#[derive(Serialize)]
struct Host {
    address: Ipv4Addr,
    names: Vec<String>,
}

#[derive(Serialize)]
struct Mgmt {
    mac: String,
    address: &'static str,
}

#[derive(Serialize)]
struct Port {
    mac: String,
    mtu: u16,
    address: String,
    prefix: u8,
    gateway: Option<String>,
}

/// Every node by its name (its first network) and by `NAME-NETWORK`; the cluster and the service.
fn hosts(lab: &Lab) -> Vec<Host> {
    let mut all = Vec::new();
    for node in &lab.nodes {
        for (i, nic) in node.nics.iter().enumerate() {
            let long = format!("{}-{}", node.name, nic.network);
            let mut names = Vec::new();
            if i == 0 {
                names.push(node.name.to_string());
            }
            if lab.node(&long).is_none() {
                names.push(long);
            }
            if !names.is_empty() {
                all.push(Host {
                    address: nic.address,
                    names,
                });
            }
        }
    }
    if let Some(runtime) = &lab.runtime {
        for end in runtime.cluster.iter().chain(&runtime.service) {
            all.push(Host {
                address: end.address,
                names: vec![end.name.to_string()],
            });
        }
    }
    all
}

/// What each name leads to in every machine; of several of one address the first.
pub fn names(lab: &Lab) -> BTreeMap<String, Ipv4Addr> {
    let hosts = hosts(lab).into_iter();
    hosts
        .filter_map(|h| Some((h.names.into_iter().next()?, h.address)))
        .collect()
}

/// The files as tmpfiles.d lines. Contents are Base64 (`~`): no specifier, quote or end of line of theirs can mean anything.
fn tmpfiles(node: impl fmt::Display, files: &[BootFile]) -> Result<String> {
    // The kernel's own idea of the name: the manager set it before these lines are read.
    let mut text = format!("w /proc/sys/kernel/hostname - - - - {node}\nd /root/.ssh 0700 root root\n");
    for file in files {
        let path = quoted_path(&file.path)?;
        let content = Base64::encode_string(&file.content);
        // An empty argument is none at all.
        let again = if file.once { "" } else { "+" };
        let coded = if content.is_empty() { "" } else { "~" };
        let (mode, (user, group)) = (file.mode, &file.owner);
        writeln!(text, "f{again}{coded} {path} {mode:04o} {user} {group} - {content}").expect("text takes text");
    }
    if text.len() as u64 > LIMIT.bytes() {
        return Err(Error::Operation(
            Problem::new("give the machine its files at boot")
                .on(node)
                .observed(format!("{} bytes, at most {LIMIT} are given", text.len()))
                .remedy("make `files` smaller, or copy large files with `failoverlab cp`"),
        ));
    }
    Ok(text)
}

/// A path as one word of a tmpfiles.d line, its `%` no specifiers.
fn quoted_path(path: &str) -> Result<String> {
    let refuse = |seen: &str| {
        Err(Error::Operation(
            Problem::new("write the file at boot")
                .on(path.escape_debug())
                .observed(seen.to_owned()),
        ))
    };
    if !path.starts_with('/') || path.ends_with('/') {
        return refuse("a path begins with `/` and ends with a file's name");
    }
    if path.split('/').skip(1).any(|part| matches!(part, "" | "." | "..")) {
        return refuse("a path has no empty, `.` or `..` part");
    }
    if path.chars().any(char::is_control) || path.len() > 4095 {
        return refuse("a path has no control characters and at most 4095 bytes");
    }
    let escaped = path.replace('%', "%%").replace('\\', r"\\").replace('"', "\\\"");
    Ok(format!("\"{escaped}\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::LabFiles;
    use crate::guest::sample;
    use proptest::prelude::*;
    use std::os::unix::fs::PermissionsExt;

    fn keys(lab: &Lab) -> (tempfile::TempDir, LabFiles, Keys) {
        let dir = tempfile::tempdir().unwrap();
        let files = Home::under(dir.path()).lab("ccr");
        let keys = Keys::ensure(&files, lab.nodes.iter().map(|n| n.name.as_str())).unwrap();
        (dir, files, keys)
    }

    fn text_of<'a>(files: &'a [BootFile], path: &str) -> &'a str {
        let file = files
            .iter()
            .find(|f| f.path == path)
            .unwrap_or_else(|| panic!("{path} in {files:?}"));
        std::str::from_utf8(&file.content).unwrap()
    }

    #[test]
    fn every_port_has_its_unit_by_mac() {
        let lab = sample::ccr();
        let (_dir, _, keys) = keys(&lab);
        let files = boot_files(&lab, lab.node("node1").unwrap(), &keys).unwrap();
        insta::assert_snapshot!(text_of(&files, "/etc/systemd/network/21-private.network"));
        insta::assert_snapshot!(text_of(&files, "/etc/systemd/network/10-mgmt.network"));
        assert!(!files.iter().any(|f| text_of(&files, &f.path).contains("Gateway")));
    }

    #[test]
    fn a_network_with_internet_has_a_gateway() {
        let mut lab = sample::ccr();
        lab.networks[0].internet = true;
        let (_dir, _, keys) = keys(&lab);
        let files = boot_files(&lab, &lab.nodes[0], &keys).unwrap();
        assert!(text_of(&files, "/etc/systemd/network/20-public.network").contains("Gateway=10.77.1.2\n"));
    }

    #[test]
    fn every_node_knows_every_name() {
        let lab = sample::ccr();
        let (_dir, _, keys) = keys(&lab);
        insta::assert_snapshot!(text_of(&boot_files(&lab, &lab.nodes[2], &keys).unwrap(), "/etc/hosts"));
    }

    #[test]
    fn credentials_are_closed_to_others_and_named_for_systemd() {
        let lab = sample::ccr();
        let (_dir, files, keys) = keys(&lab);
        let written = write(&lab, &lab.nodes[0], &keys, &files.node("node1")).unwrap();
        for c in &written {
            assert!(c.name.len() <= 55, "{}", c.name);
            assert_eq!(std::fs::metadata(&c.path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        let text = std::fs::read_to_string(&written[0].path).unwrap();
        assert!(text.contains("f+~ \"/etc/ssh/ssh_host_ed25519_key\" 0600 root root - "));
        assert!(!text.contains("PRIVATE"));
    }

    #[test]
    fn more_than_a_boot_can_bear_is_refused() {
        let mut lab = sample::ccr();
        let (_dir, files, keys) = keys(&lab);
        lab.nodes[0].files.insert("/big".into(), "x".repeat(100 << 10).into());
        write(&lab, &lab.nodes[0], &keys, &files.node("node1")).unwrap();
        lab.nodes[0].files.insert("/big".into(), "x".repeat(200 << 10).into());
        let e = write(&lab, &lab.nodes[0], &keys, &files.node("node1")).unwrap_err();
        assert!(e.to_string().contains("at most 256 KiB"), "{e}");
    }

    #[test]
    fn a_file_of_the_lab_files_has_its_mode_owner_and_text() {
        let mut lab = sample::ccr();
        let (_dir, _, keys) = keys(&lab);
        let template = "me {{ node.name }} {{ node.addresses.private }} {{ node.interfaces.private }}\n\
            {% for n in nodes if n.name != node.name %}\nother {{ n.name }} {{ n.addresses.public }}\n{% endfor %}\n\
            of {{ lab }} on {{ networks[0].subnet }}\n";
        let file = |text: &str, template, once| NodeFile {
            template,
            mode: 0o640,
            owner: ("redis".into(), "adm".into()),
            once,
            ..NodeFile::from(text.to_owned())
        };
        lab.nodes[0].files = BTreeMap::from([
            ("/etc/a.conf".to_owned(), file(template, true, false)),
            ("/etc/b.conf".to_owned(), file("{{ as it is }}", false, true)),
        ]);
        let files = boot_files(&lab, &lab.nodes[0], &keys).unwrap();
        assert_eq!(
            text_of(&files, "/etc/a.conf"),
            "me node1 10.77.2.11 eth2\nother node2 10.77.1.12\nother hub 10.77.1.10\nof ccr on 10.77.1.0/24\n"
        );
        assert_eq!(text_of(&files, "/etc/b.conf"), "{{ as it is }}");
        let lines = tmpfiles("node1", &files).unwrap();
        assert!(lines.contains("f+~ \"/etc/a.conf\" 0640 redis adm - "), "{lines}");
        assert!(lines.contains("f~ \"/etc/b.conf\" 0640 redis adm - "), "{lines}");
        // What a template cannot fill in is told with its place.
        lab.nodes[0].files = BTreeMap::from([("/etc/a".to_owned(), file("a\n{{ node.disks.date }}", true, false))]);
        let e = boot_files(&lab, &lab.nodes[0], &keys).unwrap_err().to_string();
        assert!(e.contains("/etc/a:2") && e.contains("undefined"), "{e}");
    }

    #[test]
    fn hostile_paths_are_refused() {
        for bad in [
            "",
            "etc/x",
            "/",
            "/etc/",
            "/etc/../x",
            "/a//b",
            "/a\nf+ /b",
            "/a\0",
            &format!("/{}", "a".repeat(5000)),
        ] {
            assert!(quoted_path(bad).is_err(), "{bad:?}");
        }
        assert_eq!(quoted_path(r#"/a b/%h/"\"#).unwrap(), r#""/a b/%%h/\"\\""#);
    }

    proptest! {
        #[test]
        fn one_file_is_always_one_line(path in "/\\PC{1,20}", content in prop::collection::vec(any::<u8>(), 0..50)) {
            let owner = (ROOT.to_owned(), ROOT.to_owned());
            if let Ok(text) = tmpfiles("n", &[BootFile { path, mode: 0o644, owner, once: false, content }]) {
                prop_assert_eq!(text.lines().count(), 3);
            }
        }
    }
}
