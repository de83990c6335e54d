//! From a lab's file to a [`DesiredState`]: everything that is decided on the workstation before the supervisor is asked.

use super::record::{DesiredState, ImageRef};
use crate::deploy::{self, Artifacts, Pack};
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::{Journal, Step};
use crate::files::Home;
use crate::guest::template;
use crate::hypervisor::{Accel, CableKind, UNIX_PORTS, accel};
use crate::image::{Image, ImageKey, Recipe, Store};
use crate::spec::{self, Context, Lab, Loaded, Source};
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
        host_memory: crate::capacity::memory(),
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
    let input_key = input_key(home, &lab, &image.digest, &programs, verdict.accel, seed)?;
    let few = lab.nodes.iter().all(|n| n.nics.len() <= UNIX_PORTS);
    Ok(DesiredState {
        input_key,
        programs,
        lab,
        source: source.file_name(),
        accel: verdict.accel,
        cables: if few { verdict.cables } else { CableKind::Udp },
        slowness: verdict.slowness,
        image: image_ref(&image),
        seed,
    })
}

/// Name of the tool itself among the [`programs`].
pub const TOOL: &str = "failoverlab";

/// Digests of the tool and of each program that its pack brings into the lab.
pub fn programs(home: &Home, lab: &Lab) -> Result<BTreeMap<String, String>> {
    let pack = lab.runtime.as_ref().map(|r| Pack::load(&r.kind)).transpose()?;
    let mut all = Artifacts::beside_executable(pack.as_ref(), home.lab(&lab.name).keys())?.programs;
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

/// Digest of everything that goes into a lab: its file, the image, the tool with its templates, the runtime's programs, QEMU and
/// how it runs machines, the seed. A healthy lab with the same key is as good as a new one.
pub fn input_key(
    home: &Home,
    lab: &Lab,
    image: &str,
    programs: &BTreeMap<String, String>,
    accel: Accel,
    seed: u64,
) -> Result<String> {
    let templates = template::overrides_digest()?.to_hex().to_string();
    let qemu = accel::remembered(&home.accel()).map(|r| r.qemu().to_owned());
    let all = serde_json::to_vec(&(lab, image, programs, templates, accel, seed, qemu)).expect("a lab is plain data");
    Ok(blake3::hash(&all).to_hex().to_string())
}

fn image_ref(image: &Image) -> ImageRef {
    ImageRef {
        digest: image.digest.clone(),
        disk: image.disk.clone(),
        format: image.format,
        kernel: image.kernel.clone(),
        initrd: image.initrd.clone(),
        cmdline: image.cmdline.clone(),
    }
}
