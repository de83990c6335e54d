//! From a lab's file to a [`Wish`]: everything that is decided on the workstation before the supervisor is asked.

use super::files::Home;
use super::record::{ImageRef, Wish};
use crate::deploy::{self, Artifacts, Pack};
use crate::error::{Error, Problem, Result};
use crate::event::{Journal, Step};
use crate::hypervisor::{Accel, accel};
use crate::image::{Image, ImageKey, Recipe, Store};
use crate::spec::{self, Context, Lab, Loaded, Source};
use crate::units::Size;
use std::sync::atomic::AtomicBool;

/// What lab files are checked against on this host.
pub fn context() -> Result<Context> {
    Ok(Context {
        images: Recipe::known().iter().filter_map(|n| n.parse().ok()).collect(),
        packs: deploy::names()
            .iter()
            .map(|kind| Pack::load(kind).map(|p| p.settings))
            .collect::<Result<_>>()?,
        host_memory: host_memory(),
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

/// What this host can give to machines, where the kernel says.
fn host_memory() -> Option<Size> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(Size(kib << 10))
}

/// The store and the key of the image that the lab's machines boot; it may not be built yet.
pub fn image_key(home: &Home, lab: &Lab) -> Result<(Store, ImageKey)> {
    let Some(first) = lab.nodes.first() else {
        return Err(Error::Usage(
            Problem::new("choose the image")
                .on(&lab.name)
                .seen("the lab has no machines"),
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
) -> Result<Wish> {
    let pack = lab.runtime.as_ref().map(|r| Pack::load(&r.kind)).transpose()?;
    // Before anything is made: the supervisor will look in the same place.
    Artifacts::beside_executable(pack.as_ref(), home.lab(&lab.name).keys())?;
    for dir in [&home.cache, &home.state, &home.runtime] {
        Home::private_dir(dir)?;
    }
    let (store, key) = image_key(home, &lab)?;
    let image = store.ensure(&key, journal, cancel)?;
    let step = Step::begin(journal, "accel", None, "find out how machines run on this host");
    let verdict = accel::probe(&image, &home.accel(), force)?;
    step.done(&verdict.detail);
    Ok(Wish {
        lab,
        source: source.file_name(),
        accel: verdict.accel,
        slowness: verdict.slowness,
        image: image_ref(&image),
        seed,
    })
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
