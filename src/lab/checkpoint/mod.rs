//! A whole lab as one value: memory, local disks, shared disks, the networks' rules and each node's clock, as one consistent cut.
//!
//! [`create()`] makes one of a running lab, [`unpack()`] puts its files where a lab or fork runs, [`restore()`] makes the machines go on
//! from exactly that instant. [`Store`] keeps them. None of this knows the supervisor: machines, networks and folders are handed in.
//!
//! Local disks are chains of layers (`layers`): a checkpoint freezes the top layer and puts an empty one on it. Frozen layers are hard
//! links wherever they are used, so that no lab, fork or checkpoint needs another's folder.

mod clock;
mod create;
mod hashing;
mod layers;
mod meta;
mod restore;
mod store;
mod unpack;

pub use create::{About, Live, create};
pub use layers::{MAX_LAYERS, local_disks, top_layer};
pub use meta::{Meta, NodeMeta, NodeState, Part, PartKind};
pub use restore::{RestoreRequest, Restored, RestoredNode, restore};
pub use store::{Checkpoint, Store};
pub use unpack::unpack;

/// Does `f` for all items at once, each on a thread of its own.
fn each<'i, T: Sync, R: Send>(items: &'i [T], f: impl Fn(&'i T) -> R + Sync) -> Vec<R> {
    std::thread::scope(|scope| {
        let f = &f;
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || f(item))).collect();
        threads
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Frames are kept while this lives, and forwarded in order when it goes: whatever happens, the networks do not stay held.
struct HoldGuard<'a>(&'a dyn crate::fabric::Control);

impl<'a> HoldGuard<'a> {
    fn hold(fabric: &'a dyn crate::fabric::Control) -> Self {
        fabric.hold();
        Self(fabric)
    }
}

impl Drop for HoldGuard<'_> {
    fn drop(&mut self) {
        self.0.release();
    }
}

#[cfg(test)]
mod tests;
