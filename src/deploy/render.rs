//! What templates see, and what becomes of them on one node.

use super::pack::{Pack, Part, Places};
use super::secrets::Secrets;
use crate::error::{Error, Problem, Result};
use crate::guest::template;
use crate::spec::{Lab, NetworkRole, Node, NodeRole, Runtime, Share};
use crate::units::Name;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;

/// TCP port of SMB shares.
const SMB: u16 = 445;

/// A file as it goes into a machine.
#[derive(Clone, PartialEq, Eq)]
pub struct RenderedFile {
    /// Absolute path in the machine.
    pub path: String,
    /// Permissions.
    pub mode: u32,
    /// User, and group of the same name; root where absent.
    pub owner: Option<Name>,
    /// Content.
    pub content: String,
}

impl fmt::Debug for RenderedFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The content may be a secret.
        write!(f, "{} ({:o}, {} bytes)", self.path, self.mode, self.content.len())
    }
}

/// A command as it is run in a machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenderedStep {
    /// The argument vector.
    pub run: Vec<String>,
    /// A file in the machine that it reads.
    pub stdin: Option<String>,
    /// What tells why it failed; empty where nothing does.
    pub explain: Vec<String>,
    /// Only where something was deployed before.
    pub again: bool,
}

impl RenderedStep {
    /// A command of the lab file.
    pub(super) fn once(run: &[String]) -> Self {
        Self {
            run: run.to_owned(),
            stdin: None,
            explain: Vec::new(),
            again: false,
        }
    }
}

/// What every template and every `when` sees. Of what is absent no name is there: not in the early part, and no secret in a step.
#[derive(Debug, Serialize)]
pub(super) struct View<'a> {
    lab: &'a str,
    node: NodeView<'a>,
    networks: Vec<NetworkView<'a>>,
    members: Vec<PeerView<'a>>,
    hubs: Vec<PeerView<'a>>,
    arbiters: Vec<PeerView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<EndView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<EndView<'a>>,
    shares: BTreeMap<&'a str, ShareView<'a>>,
    hosted: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    settings: Option<BTreeMap<&'a str, serde_json::Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slowness: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secrets: Option<&'a BTreeMap<String, String>>,
}

#[derive(Debug, Serialize)]
struct NodeView<'a> {
    name: &'a str,
    role: Option<NodeRole>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<Ipv4Addr>,
    addresses: BTreeMap<&'a str, Ipv4Addr>,
    disks: BTreeMap<&'a str, DiskView>,
}

#[derive(Debug, Serialize)]
struct DiskView {
    device: String,
    mount: String,
}

#[derive(Debug, Serialize)]
struct NetworkView<'a> {
    name: &'a str,
    role: NetworkRole,
    subnet: String,
    prefix: u8,
    interface: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct PeerView<'a> {
    name: &'a str,
    addresses: BTreeMap<&'a str, Ipv4Addr>,
}

#[derive(Debug, Serialize)]
struct EndView<'a> {
    name: &'a str,
    address: Ipv4Addr,
    network: &'a str,
}

#[derive(Debug, Serialize)]
struct ShareView<'a> {
    host: &'a str,
    address: Ipv4Addr,
    port: u16,
}

impl Pack {
    /// The files of `node` in a part. The same lab and secrets give the same bytes.
    ///
    /// # Errors
    /// `Operation` for a template that does not hold, or that wants to know what its part does not.
    pub fn files(&self, part: Part, lab: &Lab, node: &Node, secrets: &Secrets) -> Result<Vec<RenderedFile>> {
        let view = self.view(part, lab, node, Some(secrets))?;
        let mut files = Vec::new();
        for file in self.runtime.files.iter().filter(|f| Part::of(f.early) == part) {
            if self.holds(file.when.as_deref(), &view)? {
                let text = self.templates.get(&file.template).map_or("", String::as_str);
                let content = template::render_text(&format!("{}/{}", self.name, file.template), text, &view)?;
                files.push(RenderedFile {
                    path: file.path.clone(),
                    mode: file.mode,
                    owner: file.owner.clone(),
                    content,
                });
            }
        }
        Ok(files)
    }

    /// The symbolic links of `node` in a part: path → what it leads to.
    ///
    /// # Errors
    /// As [`Pack::files`].
    pub fn links(&self, part: Part, lab: &Lab, node: &Node) -> Result<Vec<(String, String)>> {
        let view = self.view(part, lab, node, None)?;
        let mut links = Vec::new();
        for link in self.runtime.links.iter().filter(|l| Part::of(l.early) == part) {
            if self.holds(link.when.as_deref(), &view)? {
                links.push((link.path.clone(), link.to.clone()));
            }
        }
        Ok(links)
    }

    /// The commands of `node` in a part. They see no secret: an argument vector is open to every process in the machine.
    ///
    /// # Errors
    /// As [`Pack::files`].
    pub fn steps(&self, part: Part, lab: &Lab, node: &Node) -> Result<Vec<RenderedStep>> {
        let view = self.view(part, lab, node, None)?;
        let mut steps = Vec::new();
        for step in self.runtime.steps.iter().filter(|s| Part::of(s.early) == part) {
            if self.holds(step.when.as_deref(), &view)? {
                let place = format!("{}/runtime.toml, a step's argument", self.name);
                let run = step.run.iter().map(|a| template::render_text(&place, a, &view));
                steps.push(RenderedStep {
                    run: run.collect::<Result<_>>()?,
                    stdin: step.stdin.clone(),
                    explain: step.explain.clone(),
                    again: step.again,
                });
            }
        }
        Ok(steps)
    }

    /// Where the runtime has what on `node`.
    ///
    /// # Errors
    /// `Operation` for a folder that does not hold.
    pub fn places(&self, lab: &Lab, node: &Node) -> Result<Places> {
        let spec = &self.runtime.places;
        let view = self.view(Part::Early, lab, node, None)?;
        let folder = template::render_text(&format!("{}/runtime.toml, places", self.name), &spec.folder, &view)?;
        let under = |(kind, name): (&String, &String)| (kind.clone(), format!("{folder}/{name}"));
        Ok(Places {
            files: spec.files.iter().map(under).collect(),
            shares: spec.shares.clone(),
            units: spec.units.clone(),
            folder,
        })
    }

    pub(super) fn view<'a>(
        &self,
        part: Part,
        lab: &'a Lab,
        node: &'a Node,
        secrets: Option<&'a Secrets>,
    ) -> Result<View<'a>> {
        let slowness = (part == Part::Late).then(|| self.factor());
        view(lab, node, secrets.filter(|_| part == Part::Late), slowness)
    }

    pub(super) fn holds(&self, when: Option<&str>, view: &View<'_>) -> Result<bool> {
        when.map_or(Ok(true), |w| {
            template::holds(&format!("{}/runtime.toml", self.name), w, view)
        })
    }
}

/// Without `slowness`, and then without what a lab sets, for the early part.
fn view<'a>(lab: &'a Lab, node: &'a Node, secrets: Option<&'a Secrets>, slowness: Option<f64>) -> Result<View<'a>> {
    let runtime = lab.runtime.as_ref().ok_or_else(|| {
        Error::Bug(
            Problem::new("render a runtime pack")
                .on(&lab.name)
                .observed("the lab has no runtime"),
        )
    })?;
    let end = |e: &'a crate::spec::Endpoint| {
        let network = lab
            .networks
            .iter()
            .find(|n| n.subnet.has_host(e.address))
            .ok_or_else(|| {
                Error::Operation(Problem::new("find the network of").on(format!("{} ({})", e.name, e.address)))
            })?;
        Ok::<_, Error>(EndView {
            name: &e.name,
            address: e.address,
            network: &network.name,
        })
    };
    let peers = |role| lab.with_role(role).map(peer).collect();
    Ok(View {
        lab: &lab.name,
        node: NodeView {
            name: &node.name,
            role: node.role,
            address: node.nics.first().map(|n| n.address),
            addresses: peer(node).addresses,
            disks: node.disks.iter().map(|d| (d.name.as_str(), disk(d))).collect(),
        },
        networks: lab.networks.iter().map(|n| network(n, node)).collect(),
        members: peers(NodeRole::Member),
        hubs: peers(NodeRole::Hub),
        arbiters: peers(NodeRole::Arbiter),
        cluster: runtime.cluster.as_ref().map(end).transpose()?,
        service: runtime.service.as_ref().map(end).transpose()?,
        shares: lab
            .shares
            .iter()
            .map(|s| Ok((s.name.as_str(), share(lab, node, s)?)))
            .collect::<Result<_>>()?,
        hosted: lab
            .shares
            .iter()
            .filter(|s| s.host == node.name)
            .map(|s| s.name.as_str())
            .collect(),
        settings: slowness.map(|slowness| {
            let settings = runtime.settings.iter();
            settings
                .map(|(name, value)| (name.as_str(), scaled(runtime, name, value, slowness)))
                .collect()
        }),
        slowness,
        secrets: secrets.map(|s| &s.0),
    })
}

/// A setting on a host of that slowness.
fn scaled(runtime: &Runtime, name: &str, value: &serde_json::Value, slowness: f64) -> serde_json::Value {
    match value.as_u64() {
        Some(ms) if runtime.scaled.iter().any(|s| s == name) => ((ms as f64 * slowness).round() as u64).into(),
        _ => value.clone(),
    }
}

fn disk(disk: &crate::spec::LocalDisk) -> DiskView {
    DiskView {
        device: format!("/dev/disk/by-id/virtio-{}", disk.serial),
        mount: format!("/{}", disk.name),
    }
}

fn network<'a>(network: &'a crate::spec::Network, node: &'a Node) -> NetworkView<'a> {
    let nic = node.nics.iter().find(|n| n.network == network.name);
    NetworkView {
        name: &network.name,
        role: network.role,
        subnet: network.subnet.to_string(),
        prefix: network.subnet.prefix,
        interface: nic.map(|n| n.interface.as_str()),
    }
}

fn peer(node: &Node) -> PeerView<'_> {
    PeerView {
        name: &node.name,
        addresses: node.nics.iter().map(|n| (n.network.as_str(), n.address)).collect(),
    }
}

/// The share as `node` reaches it: on the first network that both are on. An address, because a resolver has timeouts of its own.
fn share<'a>(lab: &'a Lab, node: &Node, share: &'a Share) -> Result<ShareView<'a>> {
    let host = lab.node(&share.host);
    let address = lab
        .networks
        .iter()
        .find_map(|n| node.address(&n.name).and(host?.address(&n.name)));
    let address = address.ok_or_else(|| {
        Error::Operation(
            Problem::new("find a way to the share")
                .on(format!("{} on {} from {}", share.name, share.host, node.name))
                .observed("no network joins the two")
                .remedy("put both on one network in the lab file"),
        )
    })?;
    Ok(ShareView {
        host: &share.host,
        address,
        port: SMB,
    })
}
