//! From a lab's file to a [`DesiredState`]: everything that is decided on the workstation before the supervisor is asked.

use super::record::DesiredState;
use crate::deploy::{self, Artifacts, Pack};
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Journal, Step};
use crate::files::Home;
use crate::guest::template;
use crate::hypervisor::{Accel, CableKind, UNIX_PORTS, accel};
use crate::image::{ImageKey, Recipe, Store};
use crate::plan::{Inputs, Layer};
use crate::spec::{self, Context, Lab, Loaded, Source};
use crate::wait::Slowness;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

/// What lab files are checked against on this host.
pub fn context() -> Result<Context> {
    Ok(Context {
        images: Recipe::known().iter().filter_map(|n| n.parse().ok()).collect(),
        packs: deploy::names()
            .iter()
            .map(|kind| Pack::load(kind).map(|p| p.settings))
            .collect::<Result<_>>()?,
        host_memory: crate::capacity::memory().map(|m| m.free),
        checks: crate::preflight::ids(),
    })
}

/// Reads and checks a lab's file, to make it: it must fit.
pub fn load(source: &Source) -> Result<Loaded> {
    spec::load(source, &context()?)
}

/// Reads and checks a lab's file, to know what it is: one that is up has taken its memory already.
pub fn read(source: &Source) -> Result<Loaded> {
    spec::load(
        source,
        &Context {
            host_memory: None,
            ..context()?
        },
    )
}

/// The store and the key of the image that the lab's machines boot; it may not be built yet.
pub fn image_key(home: &Home, lab: &Lab) -> Result<(Store, ImageKey)> {
    let Some(first) = lab.nodes.first() else {
        return Err(Error::Usage(
            Problem::new("choose the image")
                .on(&lab.name)
                .observed("the lab has no machines"),
        ));
    };
    let pack = lab.runtime.as_ref().map(|r| Pack::load(&r.kind)).transpose()?;
    let packages = lab
        .nodes
        .iter()
        .flat_map(|n| &n.packages)
        .chain(pack.iter().flat_map(Pack::packages));
    let key = ImageKey::new(&Recipe::load(&first.image)?, packages.map(String::as_str))?;
    Ok((Store::new(home.images()), key))
}

/// Decides everything: builds the image where it is missing, finds out how machines run on this host.
pub fn decide(
    home: &Home,
    source: &Source,
    lab: Lab,
    force: Option<Accel>,
    seed: u64,
    journal: &Journal,
    cancel: &AtomicBool,
) -> Result<DesiredState> {
    // Before anything is made: the supervisor will look for them in the same place.
    let programs = programs(home, &lab)?;
    for dir in [&home.cache, &home.state, &home.runtime] {
        Home::private_dir(dir)?;
    }
    let (store, key) = image_key(home, &lab)?;
    let image = store.ensure(&key, journal, cancel)?;
    let step = Step::begin(journal, "accel", None, "find out how machines run on this host");
    let verdict = accel::probe(&image, &home.accel(), force)?;
    step.done(&verdict.detail);
    let disk = store.disk_digest(&key)?;
    let runs = (verdict.accel, cables(&lab, verdict.cables), verdict.slowness);
    let inputs = inputs(home, &lab, (&key, disk), &programs, runs, seed)?;
    Ok(DesiredState {
        inputs,
        programs,
        lab,
        source: source.file_name(),
        accel: verdict.accel,
        cables: runs.1,
        slowness: verdict.slowness,
        image: (&image).into(),
        seed,
    })
}

/// What the cables of `lab` are made of where QEMU has those of `kind`.
fn cables(lab: &Lab, kind: CableKind) -> CableKind {
    if lab.nodes.iter().all(|n| n.nics.len() <= UNIX_PORTS) {
        kind
    } else {
        CableKind::Udp
    }
}

/// Name of the tool itself among the [`programs`].
pub const TOOL: &str = "failoverlab";

/// Digests of the tool and of each program that its pack brings into the lab.
pub fn programs(home: &Home, lab: &Lab) -> Result<BTreeMap<String, String>> {
    let pack = lab.runtime.as_ref().map(|r| Pack::load(&r.kind)).transpose()?;
    let mut all = Artifacts::of(pack.as_ref(), &Artifacts::folder()?, home.lab(&lab.name).keys())?.programs;
    let tool = std::env::current_exe().tried("find the tool's own executable", "")?;
    all.insert(TOOL.to_owned(), tool);
    let digest = |(name, path): (String, PathBuf)| {
        let mut hash = blake3::Hasher::new();
        fs_err::File::open(&path)
            .and_then(|file| hash.update_reader(file).map(drop))
            .tried("read the program", path.display())?;
        Ok((name, hash.finalize().to_hex().to_string()))
    };
    all.into_iter().map(digest).collect()
}

/// What `up` would put into `lab` on this host, without making anything; `None` where it is not known yet how machines run here.
pub fn known_inputs(home: &Home, lab: &Lab, seed: u64) -> Result<Option<Inputs>> {
    let Some((accel, kind, slowness)) = accel::remembered(&home.accel()).and_then(|r| r.runs()) else {
        return Ok(None);
    };
    let (store, key) = image_key(home, lab)?;
    let disk = store.disk_digest(&key)?;
    inputs(
        home,
        lab,
        (&key, disk),
        &programs(home, lab)?,
        (accel, cables(lab, kind), slowness),
        seed,
    )
    .map(Some)
}

/// Everything that goes into a lab. What a machine has in memory and on its disks when it has booted comes of the lab file, the image
/// as it was built here, the tool (which makes boot credentials and machines) with the templates that win over its own, QEMU and how it
/// runs machines, and of the runtime's pack what is there before the system starts. After that: the runtime's programs, its pack's
/// templates, by how much times are stretched, the seed.
fn inputs(
    home: &Home,
    lab: &Lab,
    (image, disk): (&ImageKey, Option<String>),
    programs: &BTreeMap<String, String>,
    (accel, cables, slowness): (Accel, CableKind, Slowness),
    seed: u64,
) -> Result<Inputs> {
    let mut inputs = Inputs::of(lab);
    let mut booted = |name: &str, value: String| inputs.add(Layer::Booted, name, value);
    booted("image", image.digest.clone());
    booted("the image's disk", disk.unwrap_or_else(|| "not built".into()));
    booted("acceleration", word(&accel));
    booted("cables", word(&cables));
    let qemu = accel::remembered(&home.accel()).map(|r| r.qemu().to_owned());
    booted("QEMU", qemu.unwrap_or_else(|| "unknown".into()));
    let pack = lab.runtime.as_ref().map(|r| Pack::load(&r.kind)).transpose()?;
    for (path, digest) in template::overrides()? {
        let of_pack = pack.as_ref().is_some_and(|p| path.starts_with(p.name.as_str()));
        let layer = if of_pack { Layer::Healthy } else { Layer::Booted };
        inputs.add(
            layer,
            format!("templates/{}", path.display()),
            digest.to_hex().to_string(),
        );
    }
    for (name, digest) in programs {
        let layer = if name == TOOL { Layer::Booted } else { Layer::Healthy };
        inputs.add(layer, name, digest);
    }
    if let Some(pack) = pack {
        for node in lab.nodes.iter().filter(|n| n.role.is_some()) {
            if let Some(digest) = deploy::early_digest(lab, node, &pack)? {
                inputs.add(
                    Layer::Booted,
                    format!("what {} brings into {}", pack.name, node.name),
                    digest,
                );
            }
        }
        inputs.add(Layer::Healthy, "slowness", pack.on_host(slowness).factor().to_string());
    }
    inputs.add(Layer::Healthy, "seed", seed.to_string());
    Ok(inputs)
}

/// An enum's word in files.
fn word(of: &impl serde::Serialize) -> String {
    let word = serde_json::to_value(of).expect("a word is plain data");
    word.as_str().unwrap_or_default().to_owned()
}
