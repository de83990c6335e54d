//! From a running lab to a checkpoint; the lab goes on, in the same processes.

use super::hashing::{Checked, copy, digest, freeze, link, look, on_all_cores};
use super::layers::{Chain, local_disks};
use super::meta::{Meta, NodeMeta, NodeState, Part, PartKind, SCHEMA};
use super::store::{Checkpoint, Draft, Store};
use super::{HoldGuard, clock, each};
use crate::capacity;
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{monotonic_us, wall_seconds};
use crate::fabric;
use crate::files::{Home, LabFiles};
use crate::guest::agent::Agents;
use crate::hypervisor::{Described, DomainState, Hypervisor};
use crate::image::qemu_img::QemuImg;
use crate::lab::active_faults::ActiveFaults;
use crate::lab::record::LabRecord;
use crate::plan::Layer;
use crate::spec::{Lab, Node};
use crate::units::{Name, Size};
use crate::wait::{Deadline, Slowness};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a machine may take to say what time it is; one that does not answer does not stop a checkpoint.
const ASK: Duration = Duration::from_secs(5);

/// A disk with less room than this is full: writes of this length fail.
const FULL: Size = Size::mib(1);

/// A running lab.
pub struct Live<'a> {
    /// Its machines.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Its networks.
    pub fabric: &'a dyn fabric::Control,
    /// Speaks to their agents.
    pub agents: &'a Agents,
    /// What it is.
    pub lab: &'a Lab,
    /// Its files.
    pub files: &'a LabFiles,
    /// Makes layers.
    pub qemu_img: &'a QemuImg,
    /// The host's slowness.
    pub slowness: Slowness,
}

impl std::fmt::Debug for Live<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live")
            .field("lab", &self.lab.name)
            .finish_non_exhaustive()
    }
}

/// What is written down beside the machines.
#[derive(Debug, Clone)]
pub struct About {
    /// Name of the checkpoint.
    pub name: Name,
    /// See [`Meta`].
    pub layer: Option<Layer>,
    /// See [`Meta`].
    pub tool: String,
    /// See [`Meta`].
    pub record: LabRecord,
    /// See [`Meta`].
    pub active_faults: ActiveFaults,
}

/// One machine on its way.
struct Subject<'a> {
    node: &'a Node,
    meta: NodeMeta,
    chains: Vec<(String, Chain)>,
    /// Target → its new empty layer.
    fresh: Vec<(String, PathBuf)>,
}

/// Makes a checkpoint of a running lab.
///
/// All machines are suspended before the first is saved; the networks keep their frames meanwhile. Whatever fails, the lab goes on as
/// before and no checkpoint is there.
pub fn create(live: &Live<'_>, store: &Store, about: About) -> Result<Checkpoint> {
    let draft = store.begin(&about.name)?;
    let mut subjects = each(&live.lab.nodes, |node| survey(live, node))
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    let made = grow(live, &mut subjects).and_then(|()| pause(live, &draft, &mut subjects));
    let (skew_us, pause_us, rules, counters) = match made {
        Ok(m) => m,
        Err(e) => return Err(e.with_rollback(roll_back(live, &mut subjects))),
    };
    let parts = collect(live, &draft, &subjects)?;
    let checked = parts
        .iter()
        .map(|(p, seen)| (p.path.clone(), *seen))
        .collect::<Checked>();
    let meta = Meta {
        schema: SCHEMA,
        name: about.name,
        lab: live.lab.name.clone(),
        lab_digest: live.lab.digest.clone(),
        layer: about.layer,
        tool: about.tool,
        ccrd: about.record.desired.programs.get("ccrd").cloned(),
        seed: about.record.desired.seed,
        taken: wall_seconds(),
        parent: about.record.restored_from.as_ref().map(ToString::to_string),
        skew_us,
        pause_us,
        rules,
        counters,
        nodes: subjects.into_iter().map(|s| s.meta).collect(),
        parts: parts.into_iter().map(|(p, _)| p).collect(),
        record: about.record,
        active_faults: about.active_faults,
    };
    draft.finish(meta, &checked)
}

/// What a machine is doing, which files it writes to, and what its clock says.
fn survey<'a>(live: &Live<'_>, node: &'a Node) -> Result<Subject<'a>> {
    let name = node.name.as_str();
    let state = match live.hypervisor.lookup(name)?.map(|d| d.state) {
        Some(DomainState::Running) => NodeState::Running,
        Some(DomainState::Paused) => NodeState::Paused,
        None | Some(DomainState::Off) => NodeState::Off,
        Some(DomainState::Other) => {
            let seen = "the machine is in a state that cannot be saved";
            return Err(Error::Operation(
                Problem::new("make the checkpoint").on(name).observed(seen),
            ));
        }
    };
    let described = match state {
        NodeState::Off => None,
        _ => Some(Described::parse(&live.hypervisor.xml(name)?)?),
    };
    let files = live.files.node(name);
    let mut chains = Vec::new();
    for (target, disk) in local_disks(node) {
        let missing = || Problem::new("find the machine's disk").on(format!("{name} {disk}"));
        let mut chain =
            Chain::find(&files.dir, &disk).ok_or_else(|| Error::Operation(missing().observed("it has no file")))?;
        if let Some(d) = &described {
            let in_use = d.disk(&target);
            let in_use = in_use.ok_or_else(|| Error::Operation(missing().observed("the machine has no such disk")))?;
            chain.roll_back(in_use)?;
        }
        chains.push((target, chain));
    }
    let links = described.iter().flat_map(Described::carriers);
    let clock = match state {
        NodeState::Running => ask(live, name).ok(),
        _ => None,
    };
    Ok(Subject {
        node,
        meta: NodeMeta {
            name: name.to_owned(),
            state,
            suspended_us: None,
            clock_offset_us: clock.as_ref().map(|c| c.offset_us),
            boot_id: clock.map(|c| c.boot_id),
            links: links.collect(),
            layers: chains.iter().map(|(_, c)| (c.disk.clone(), c.top)).collect(),
        },
        chains,
        fresh: Vec::new(),
    })
}

/// What a machine's clock says, where it answers.
fn ask(live: &Live<'_>, node: &str) -> Result<clock::ClockSample> {
    let deadline = Deadline::scaled(ASK, live.slowness);
    let line = live.agents.line(node, &live.files.node(node).agent(), deadline)?;
    clock::look_well(&line, deadline)
}

/// Puts an empty layer on every disk. Until a machine is told to use it, it changes nothing.
fn grow(live: &Live<'_>, subjects: &mut [Subject<'_>]) -> Result<()> {
    for subject in subjects {
        for (target, chain) in &mut subject.chains {
            let layer = chain.grow(live.qemu_img)?;
            subject.fresh.push((target.clone(), layer));
        }
    }
    Ok(())
}

type Cut = (u64, u64, Vec<fabric::Rule>, fabric::Counters);

/// The cut: everything stands still from the first suspension until all is saved.
fn pause(live: &Live<'_>, draft: &Draft, subjects: &mut [Subject<'_>]) -> Result<Cut> {
    let running: Vec<String> = subjects
        .iter()
        .filter(|s| s.meta.state == NodeState::Running)
        .map(|s| s.meta.name.clone())
        .collect();
    // No order is on its way into a machine that is saved: whoever restores it would not know what begins there.
    // An agent that does not answer is not at rest, and its line is given up: nothing more is said to it either.
    let lines: Vec<_> = running.iter().filter_map(|n| live.agents.standing(n)).collect();
    let quiet: Vec<_> = lines
        .iter()
        .map(|line| line.hold(Deadline::scaled(ASK, live.slowness)))
        .collect();
    let held = HoldGuard::hold(live.fabric);
    let begin = monotonic_us();
    let suspended = each(&running, |name| {
        live.hypervisor.suspend(name).map(|()| monotonic_us() - begin)
    });
    let rules = live.fabric.rules().1.all();
    let counters = live.fabric.counters();
    let saved = suspended
        .iter()
        .all(Result::is_ok)
        .then(|| save(live, draft, subjects).map_err(|e| make_room(live, draft, e)))
        .transpose();
    let resumed = each(&running, |name| live.hypervisor.resume(name));
    let pause_us = monotonic_us() - begin;
    drop(quiet);
    drop(held);

    // The first cause counts; what went wrong in going on is said beside it.
    let stuck: Vec<String> = resumed
        .iter()
        .filter_map(|r| r.as_ref().err().map(ToString::to_string))
        .collect();
    let mut skew_us = 0;
    for (name, at) in running.iter().zip(suspended) {
        let at = at.map_err(|e| e.with_rollback(stuck.clone()))?;
        skew_us = skew_us.max(at);
        if let Some(s) = subjects.iter_mut().find(|s| s.meta.name == *name) {
            s.meta.suspended_us = Some(at);
        }
    }
    saved.map_err(|e| e.with_rollback(stuck.clone()))?;
    match resumed.into_iter().find_map(Result::err) {
        Some(e) => Err(e),
        None => Ok((skew_us, pause_us, rules, counters)),
    }
}

/// What has to be done while nothing runs: memory of all machines and copies of the shared disks, all at once.
fn save(live: &Live<'_>, draft: &Draft, subjects: &[Subject<'_>]) -> Result<()> {
    let in_memory: Vec<&Subject<'_>> = subjects.iter().filter(|s| s.meta.state != NodeState::Off).collect();
    let (disks, machines) = std::thread::scope(|scope| {
        let disks = scope.spawn(|| {
            live.lab
                .shared_disks
                .iter()
                .try_for_each(|disk| copy(&live.files.shared_disk(&disk.name), &draft.files.shared(&disk.name)))
        });
        let machines = each(&in_memory, |s| {
            let memory = draft.files.memory(&s.meta.name);
            live.hypervisor.snapshot(&s.meta.name, &memory, &s.fresh)
        });
        let disks = disks.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        (disks, machines)
    });
    machines.into_iter().collect::<Result<Vec<()>>>()?;
    disks
}

/// After a failure: gives back what was written, before the machines go on. On a full disk QEMU would suspend one at its first write
/// that needs room, and libvirt could not note what it uses.
fn make_room(live: &Live<'_>, draft: &Draft, cause: Error) -> Error {
    let dir = &draft.files.dir;
    let full = capacity::disk(dir).is_ok_and(|free| free < FULL);
    let memory = live.lab.nodes.iter().map(|n| draft.files.memory(n.name.as_str()));
    let shared = live.lab.shared_disks.iter().map(|d| draft.files.shared(&d.name));
    for part in memory.chain(shared) {
        // Emptied, not removed: QEMU may not have closed it yet, and would keep the room of a removed one. Some do not exist yet.
        let _ = std::fs::OpenOptions::new().write(true).truncate(true).open(part);
    }
    if full {
        let folder = dir.parent().unwrap_or(dir).display();
        return cause.with_remedy(format!("the disk of {folder} is full: make room there and try again"));
    }
    cause
}

/// After a failure: takes away the empty layers that no machine uses. What cannot be taken away is harmless, and said.
fn roll_back(live: &Live<'_>, subjects: &mut [Subject<'_>]) -> Vec<String> {
    let mut failures = Vec::new();
    for s in subjects {
        let described = match s.meta.state {
            NodeState::Off => None,
            _ => match live.hypervisor.xml(&s.meta.name).and_then(|x| Described::parse(&x)) {
                Ok(d) => Some(d),
                Err(e) => {
                    failures.push(e.to_string());
                    continue;
                }
            },
        };
        for (target, chain) in &mut s.chains {
            let in_use = match &described {
                Some(d) => d.disk(target).map(Path::to_owned),
                None => s.meta.layers.get(&chain.disk).map(|&n| chain.file(n)),
            };
            failures.extend(
                in_use
                    .and_then(|file: PathBuf| chain.roll_back(&file).err())
                    .map(|e| e.to_string()),
            );
        }
    }
    failures
}

/// Puts the frozen files into the checkpoint and takes their digests.
fn collect(live: &Live<'_>, draft: &Draft, subjects: &[Subject<'_>]) -> Result<Vec<(Part, super::hashing::FileStamp)>> {
    let mut files: Vec<(PathBuf, PartKind, Option<String>)> = Vec::new();
    for s in subjects {
        let name = &s.meta.name;
        if s.meta.state != NodeState::Off {
            files.push((draft.files.memory(name), PartKind::Memory, Some(name.clone())));
        }
        let dir = draft.files.disks(name);
        Home::private_dir(&dir)?;
        for (_, chain) in &s.chains {
            let frozen = Chain {
                top: s.meta.layers.get(&chain.disk).copied().unwrap_or_default(),
                ..chain.clone()
            };
            let here = Chain {
                dir: dir.clone(),
                ..frozen.clone()
            };
            for (from, to) in frozen.files().zip(here.files()) {
                link(&from, &to)?;
                files.push((to, PartKind::Disk, Some(s.node.name.to_string())));
            }
        }
    }
    for disk in &live.lab.shared_disks {
        files.push((draft.files.shared(&disk.name), PartKind::Shared, None));
    }
    for key in keys(&live.files.keys())? {
        let to = draft.files.keys().join(key.file_name().unwrap_or_default());
        copy(&key, &to)?;
        files.push((to, PartKind::Credential, None));
    }
    on_all_cores(&files, |(path, kind, node)| {
        freeze(path)?;
        let seen = look(path)?;
        let relative = path.strip_prefix(&draft.files.dir).unwrap_or(path);
        let part = Part {
            path: relative.to_str().unwrap_or_default().to_owned(),
            bytes: fs_err::metadata(path).tried("look at the part", path.display())?.len(),
            blake3: digest(path)?,
            kind: *kind,
            node: node.clone(),
        };
        Ok((part, seen))
    })
    .into_iter()
    .collect()
}

/// The files of the lab's keys, in order; none where the lab has none.
fn keys(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut keys = match fs_err::read_dir(dir) {
        Ok(entries) => entries
            .map(|e| Ok(e.tried("list the lab's keys", dir.display())?.path()))
            .collect::<Result<Vec<_>>>()?,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e).tried("list the lab's keys", dir.display()),
    };
    keys.retain(|k| k.is_file());
    keys.sort();
    Ok(keys)
}
