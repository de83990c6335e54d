//! Local disks as chains of layers: `root.qcow2`, `root.1.qcow2`, …
//!
//! The machine writes to the highest layer that there is. An empty layer on top changes nothing, so this rule holds at every instant of
//! making a checkpoint: nothing else has to be remembered.

use crate::error::{Error, IoContext, Problem, Result};
use crate::files::{NodeFiles, ROOT_DISK, layer};
use crate::image::qemu_img::QemuImg;
use crate::spec::Node;
use std::path::{Path, PathBuf};

/// Most layers of a chain: reading gets slower with each. A restore does not begin a new chain, a cold `up` does.
pub const MAX_LAYERS: u32 = 64;

/// Target in the guest and name of each local disk of `node`, in order: `("vda", "root")`, `("vdb", "data")`.
pub fn local_disks(node: &Node) -> Vec<(String, String)> {
    std::iter::once(ROOT_DISK)
        .chain(node.disks.iter().map(|d| d.name.as_str()))
        .zip('a'..='z')
        .map(|(name, letter)| (format!("vd{letter}"), name.to_owned()))
        .collect()
}

/// The file that a machine writes `disk` to.
pub fn top_layer(node: &NodeFiles, disk: &str) -> PathBuf {
    layer(&node.dir, disk, Chain::find(&node.dir, disk).map_or(0, |c| c.top))
}

/// A disk's layers in one folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Chain {
    pub(super) dir: PathBuf,
    pub(super) disk: String,
    /// Number of the highest layer.
    pub(super) top: u32,
}

impl Chain {
    /// The layers that are in `dir`; none where there is not even the first.
    pub(super) fn find(dir: &Path, disk: &str) -> Option<Self> {
        let count = (0..=MAX_LAYERS).take_while(|&n| layer(dir, disk, n).exists()).count();
        let top = u32::try_from(count.checked_sub(1)?).ok()?;
        Some(Self {
            dir: dir.to_owned(),
            disk: disk.to_owned(),
            top,
        })
    }

    pub(super) fn file(&self, n: u32) -> PathBuf {
        layer(&self.dir, &self.disk, n)
    }

    /// Every layer, the lowest first.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        (0..=self.top).map(|n| self.file(n))
    }

    /// Takes away empty layers above the one that the running machine uses: a checkpoint that failed left them.
    pub(super) fn roll_back(&mut self, in_use: &Path) -> Result<()> {
        let used = (0..=self.top).find(|&n| self.file(n) == in_use).ok_or_else(|| {
            Error::Operation(
                Problem::new("find the layer that the machine writes to")
                    .on(in_use.display())
                    .observed(format!("the highest layer is {}", self.file(self.top).display())),
            )
        })?;
        for n in (used + 1..=self.top).rev() {
            let file = self.file(n);
            fs_err::remove_file(&file).tried("remove an empty layer", file.display())?;
        }
        self.top = used;
        Ok(())
    }

    /// Makes an empty layer on top.
    pub(super) fn grow(&mut self, qemu_img: &QemuImg) -> Result<PathBuf> {
        if self.top >= MAX_LAYERS {
            return Err(Error::Operation(
                Problem::new("freeze the disk")
                    .on(self.file(0).display())
                    .observed(format!("it has {} layers already", self.top + 1))
                    .remedy("take the lab down and up again with --cold"),
            ));
        }
        let below = self.file(self.top);
        let below = below.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let next = self.file(self.top + 1);
        qemu_img.create_layer(&next, below)?;
        self.top += 1;
        Ok(next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(dir: &Path, names: &[&str]) -> Option<Chain> {
        for n in names {
            std::fs::write(dir.join(n), "").unwrap();
        }
        Chain::find(dir, "data")
    }

    #[test]
    fn the_highest_layer_is_written_to() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(chain(dir.path(), &[]), None);
        assert_eq!(chain(dir.path(), &["data.qcow2"]).unwrap().top, 0);
        assert_eq!(
            chain(dir.path(), &["data.1.qcow2", "data.3.qcow2"]).unwrap().top,
            1,
            "3 hangs in the air"
        );
    }

    #[test]
    fn empty_layers_above_the_used_one_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut c = chain(dir.path(), &["data.qcow2", "data.1.qcow2", "data.2.qcow2"]).unwrap();
        assert!(c.roll_back(&dir.path().join("other.qcow2")).is_err());
        assert_eq!(c.top, 2);
        c.roll_back(&dir.path().join("data.1.qcow2")).unwrap();
        assert_eq!(Chain::find(dir.path(), "data").unwrap().top, 1);
    }
}
