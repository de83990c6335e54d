//! A whole lab that is suspended, and runs again.

use super::Engine;
use crate::error::Result;
use crate::hypervisor::DomainState;

impl Engine {
    /// Suspends every machine that runs, and names them. Where one cannot be, those that were run again.
    pub(super) fn pause(&self) -> Result<Vec<String>> {
        let running = self.in_state(DomainState::Running)?;
        let hypervisor = self.hypervisor()?;
        for (done, name) in running.iter().enumerate() {
            if let Err(e) = hypervisor.suspend(name) {
                let stuck = running[..done].iter().filter_map(|n| self.run_again(n).err());
                return Err(e.with_rollback(stuck.map(|e| e.to_string())));
            }
        }
        Ok(running)
    }

    /// Lets every suspended machine run again, and names them. One that cannot keeps none of the others from it.
    pub(super) fn resume(&self) -> Result<Vec<String>> {
        let paused = self.in_state(DomainState::Paused)?;
        let tried: Vec<Result<()>> = paused.iter().map(|n| self.run_again(n)).collect();
        tried.into_iter().collect::<Result<()>>()?;
        Ok(paused)
    }

    fn run_again(&self, name: &str) -> Result<()> {
        self.hypervisor()?.resume(name)?;
        self.channels.clock_jumped(name);
        Ok(())
    }

    /// The lab's machines in this state.
    fn in_state(&self, state: DomainState) -> Result<Vec<String>> {
        self.record()?;
        let machines = self.hypervisor()?.list()?;
        Ok(machines
            .into_iter()
            .filter(|d| d.state == state)
            .map(|d| d.name)
            .collect())
    }
}
