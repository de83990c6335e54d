//! What an image is: what it is made from, its digest, its files.

use super::agent;
use super::initramfs::INIT;
use super::qemu_img::DiskFormat;
use super::recipe::{Recipe, check_package};
use super::{DISK, INITRD, KERNEL};
use crate::error::{Error, Problem, Result};
use crate::units::Name;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Version of the builder: an image that another version would make differently has another digest.
pub const BUILDER: u32 = 1;

/// What an image is made from. Its digest names the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageKey {
    /// Hexadecimal BLAKE3 of recipe, packages, builder and what it brings itself.
    pub digest: String,
    /// The recipe.
    pub recipe: Recipe,
    /// The recipe's packages and those of all packs, sorted.
    pub packages: BTreeSet<String>,
}

impl ImageKey {
    /// The key for `recipe` and the packages that packs and nodes want.
    ///
    /// # Errors
    /// [`Error::Usage`] for something that is no name of a package.
    pub fn new<'a>(recipe: &Recipe, packages: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        let mut all = recipe.debian.packages.clone();
        for package in packages {
            check_package(package).map_err(|e| {
                Error::Usage(
                    Problem::new("install the package")
                        .on(package.escape_debug())
                        .observed(e),
                )
            })?;
            all.insert(package.to_owned());
        }
        let program = blake3::hash(agent::PROGRAM).to_hex();
        let whole = serde_json::to_vec(&(BUILDER, INIT, program.as_str(), agent::UNIT, recipe, &all))
            .expect("a recipe is plain data");
        Ok(Self {
            digest: blake3::hash(&whole).to_hex().to_string(),
            recipe: recipe.clone(),
            packages: all,
        })
    }
}

impl std::fmt::Display for ImageKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.recipe.name, short(&self.digest))
    }
}

/// The first 12 digits: enough for people.
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// A base image that machines can boot from. Its files are never written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// See [`ImageKey`].
    pub digest: String,
    /// The recipe's name.
    pub name: Name,
    /// The root disk: overlays are made on it.
    pub disk: PathBuf,
    /// Its format.
    pub format: DiskFormat,
    /// For direct boot.
    pub kernel: PathBuf,
    /// For direct boot.
    pub initrd: PathBuf,
    /// Kernel command line with `root=`; a lab adds `systemd.hostname=`.
    pub cmdline: String,
}

/// `image.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of the shape.
    pub schema: u32,
    /// The image's digest and folder.
    pub digest: String,
    /// Version of the builder.
    pub builder: u32,
    /// Tool and version.
    pub tool: String,
    /// When, in seconds since 1970.
    pub created: u64,
    /// How long the build took.
    pub seconds: f64,
    /// The whole recipe.
    pub recipe: Recipe,
    /// The packages that were asked for.
    pub requested: BTreeSet<String>,
    /// Lines of `sources.list`.
    pub sources: Vec<String>,
    /// The kernel's release.
    pub kernel: String,
    /// All installed packages and their versions.
    pub packages: BTreeMap<String, String>,
    /// The files beside this one.
    pub files: BTreeMap<String, FileInfo>,
}

/// Size and digest of one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileInfo {
    /// Length.
    pub bytes: u64,
    /// Hexadecimal BLAKE3.
    pub blake3: String,
}

/// One line of `image ls`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Listed {
    /// Digest.
    pub digest: String,
    /// The recipe's name.
    pub name: Name,
    /// When it was built, in seconds since 1970.
    pub created: u64,
    /// How long the build took.
    pub seconds: f64,
    /// Space on the disk, in bytes.
    pub bytes: u64,
    /// How many packages are installed.
    pub packages: usize,
    /// The packages beyond the recipe's own.
    pub extra: Vec<String>,
    /// The kernel's release.
    pub kernel: String,
}

impl Manifest {
    /// Version of the shape that this tool writes and reads.
    pub const SCHEMA: u32 = 1;

    /// The image whose folder is `dir`.
    pub fn image(&self, dir: &Path) -> Image {
        Image {
            digest: self.digest.clone(),
            name: self.recipe.name.clone(),
            disk: dir.join(DISK),
            format: DiskFormat::Qcow2,
            kernel: dir.join(KERNEL),
            initrd: dir.join(INITRD),
            cmdline: format!("root=/dev/vda rw {}", self.recipe.kernel.cmdline),
        }
    }

    /// As `image ls` shows it.
    pub(super) fn listed(self) -> Listed {
        Listed {
            bytes: self.files.values().map(|f| f.bytes).sum(),
            packages: self.packages.len(),
            extra: self
                .requested
                .difference(&self.recipe.debian.packages)
                .cloned()
                .collect(),
            digest: self.digest,
            name: self.recipe.name,
            created: self.created,
            seconds: self.seconds,
            kernel: self.kernel,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(extra: &[&str]) -> ImageKey {
        let recipe = Recipe::load_from(Path::new("/nonexistent"), &"debian-12".parse().unwrap()).unwrap();
        ImageKey::new(&recipe, extra.iter().copied()).unwrap()
    }

    #[test]
    fn the_digest_covers_what_is_asked_for_in_any_order() {
        assert_eq!(key(&["samba", "tcpdump"]), key(&["tcpdump", "samba", "samba"]));
        assert_ne!(key(&["samba"]).digest, key(&[]).digest);
        let mut other = key(&[]).recipe;
        other.files.insert("/etc/x".into(), "y".into());
        assert_ne!(ImageKey::new(&other, []).unwrap().digest, key(&[]).digest);
        for bad in ["-o=x", "a b", "a,b", "", "A", "../x", "x\n"] {
            assert_eq!(ImageKey::new(&other, [bad]).unwrap_err().exit_code(), 2, "{bad:?}");
        }
    }
}
