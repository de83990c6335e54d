//! `down`: ends every machine that carries the lab's label, and only those. The supervisor removes the folders afterwards.

use super::Engine;
use crate::error::{Error, Problem, Result};
use crate::event::Step;

impl Engine {
    /// Ends machines and networks. Best effort in order: all failures are told, nothing is skipped because of one.
    pub(super) fn down(&self) -> Result<()> {
        self.end_machines()?;
        self.forget();
        // Another client may be waiting to bring it up anew: nothing of this one may be taken for its own.
        self.files.forget_lab()
    }

    /// Ends every machine that is there.
    pub(super) fn end_machines(&self) -> Result<()> {
        self.channels.stop();
        let mut failures = Vec::new();
        if self.files.root().is_dir() {
            let hypervisor = self.hypervisor()?;
            let domains = hypervisor.list()?;
            std::thread::scope(|scope| {
                let ended: Vec<_> = domains
                    .iter()
                    .map(|d| {
                        let hypervisor = &hypervisor;
                        scope.spawn(move || {
                            let step = Step::begin(self.journal(), "stop", Some(&d.name), "ending the machine");
                            hypervisor.destroy(&d.name)?;
                            step.done("ended");
                            Ok::<(), Error>(())
                        })
                    })
                    .collect();
                for (t, d) in ended.into_iter().zip(&domains) {
                    if let Err(e) = t.join().expect("ending a machine does not panic") {
                        failures.push(format!("{}: {e}", d.name));
                    }
                }
            });
        }
        if failures.is_empty() {
            return Ok(());
        }
        Err(Error::Operation(
            Problem::new("end all machines")
                .on(&self.instance)
                .observed(failures.join("; "))
                .remedy("run `failoverlab down` again"),
        ))
    }
}
