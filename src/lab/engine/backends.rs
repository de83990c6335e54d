//! What an engine uses and does not make itself.

use crate::deploy::Artifacts;
use crate::error::Result;
use crate::event::Journal;
use crate::files::Home;
use crate::hypervisor::{Embedded, Hypervisor};
use crate::image::qemu_img::QemuImg;
use crate::lab::ways::{Connector, Ways};
use std::path::PathBuf;
use std::sync::Arc;

/// All that an engine reaches beside the lab's own files and networks: machines, ways into them, programs of the host, the journal.
pub struct Backends {
    /// Opens the hypervisor of the lab's machines. Called once, when it is first needed; the root folder is there by then.
    pub hypervisor: Box<dyn Fn() -> Result<Arc<dyn Hypervisor>> + Send + Sync>,
    /// Opens sessions with the machines.
    pub connector: Arc<dyn Connector>,
    /// Makes disks.
    pub qemu_img: QemuImg,
    /// The folder of the programs that are deployed.
    pub programs: PathBuf,
    /// Where everything is told; its clock is the engine's.
    pub journal: Journal,
}

impl std::fmt::Debug for Backends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backends").finish_non_exhaustive()
    }
}

impl Backends {
    /// Those of this host: libvirt's embedded driver, the machines' agents and SSH, `qemu-img`, the programs beside the tool's own.
    ///
    /// # Errors
    /// The tool's own executable cannot be found.
    pub fn of_host(home: &Home, instance: &str, journal: Journal) -> Result<Self> {
        let files = home.lab(instance);
        let (root, capabilities) = (files.root(), home.capabilities());
        Ok(Self {
            hypervisor: Box::new(move || Ok(Arc::new(Embedded::open(&root, &capabilities)?))),
            connector: Arc::new(Ways::new(files)),
            qemu_img: QemuImg::default(),
            programs: Artifacts::folder()?,
            journal,
        })
    }
}
