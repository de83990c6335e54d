//! Base images: recipes, a store by content digest, the builder, and the `qemu-img` wrapper.
//!
//! An image is a folder `DIGEST/` with `image.json`, the root disk, and kernel and initramfs beside it for direct boot. Its
//! digest covers the recipe, the sorted union of all packages and the builder's version; it says what was asked for, not
//! which versions a mirror had on that day: those are in `image.json`.

pub(crate) mod agent;
mod build;
mod initramfs;
mod manifest;
pub mod qemu_img;
mod recipe;
pub mod run;
mod sources;
mod store;
mod tree;

pub use build::PROGRAMS;
pub use initramfs::{Early, PREPARED, early};
pub use manifest::{BUILDER, FileInfo, Image, ImageKey, Listed, Manifest, short};
pub use recipe::{Recipe, check_package};
pub use store::Store;

/// The root disk, in an image's folder.
const DISK: &str = "disk.qcow2";
/// The kernel, beside it.
const KERNEL: &str = "vmlinuz";
/// The initramfs, beside it.
const INITRD: &str = "initrd.img";
