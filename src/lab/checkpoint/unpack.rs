//! A checkpoint's files to where a lab or fork runs.

use super::hashing::{copy, link};
use super::layers::Chain;
use super::meta::{NodeMeta, PartKind};
use super::store::Checkpoint;
use crate::error::{IoContext, Result};
use crate::files::{Home, LabFiles};
use crate::image::qemu_img::QemuImg;
use std::path::Path;

/// Checks the checkpoint, then puts its disks and keys into `files`, in place of what is there. No machine of `files` may be running.
///
/// Doing it again after it was cut short gives the same result. Frozen layers are linked, not copied: a fork at rest takes an empty layer
/// for each disk and a copy of the shared disks.
pub fn unpack(checkpoint: &Checkpoint, files: &LabFiles, qemu_img: &QemuImg) -> Result<()> {
    checkpoint.verify()?;
    super::each(&checkpoint.meta.nodes, |node| disks(checkpoint, files, qemu_img, node))
        .into_iter()
        .collect::<Result<Vec<()>>>()?;
    for part in &checkpoint.meta.parts {
        let from = checkpoint.files.dir.join(&part.path);
        let Some(name) = from.file_name() else { continue };
        let to = match part.kind {
            PartKind::Shared => {
                let disk = from.file_stem().unwrap_or(name).to_string_lossy();
                files.shared_disk(&disk)
            }
            PartKind::Credential => files.keys().join(name),
            PartKind::Memory | PartKind::Disk => continue,
        };
        if let Some(dir) = to.parent() {
            Home::private_dir(dir)?;
        }
        remove(&to)?;
        copy(&from, &to)?;
    }
    Ok(())
}

fn disks(checkpoint: &Checkpoint, files: &LabFiles, qemu_img: &QemuImg, node: &NodeMeta) -> Result<()> {
    let there = files.node(&node.name).dir;
    Home::private_dir(&there)?;
    for (disk, &top) in &node.layers {
        let chain = |dir: &Path, top| Chain {
            dir: dir.to_owned(),
            disk: disk.clone(),
            top,
        };
        if let Some(old) = Chain::find(&there, disk) {
            // From the top, so that what is left after an interruption is a chain.
            for file in old.files().collect::<Vec<_>>().iter().rev() {
                remove(file)?;
            }
        }
        let mut new = chain(&there, top);
        for (from, to) in chain(&checkpoint.files.disks(&node.name), top).files().zip(new.files()) {
            // One that hung in the air after an interruption.
            remove(&to)?;
            link(&from, &to)?;
        }
        remove(&new.file(top + 1))?;
        new.grow(qemu_img)?;
    }
    Ok(())
}

fn remove(path: &Path) -> Result<()> {
    match fs_err::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e).tried("remove the file", path.display()),
        _ => Ok(()),
    }
}
