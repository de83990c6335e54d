//! Whether what is asked for fits this host: memory, disk and cores are known before anything is made.

use super::checkpoint::{Checkpoint, PartKind};
use crate::capacity;
use crate::error::{Error, Problem, Result};
use crate::files::Home;
use crate::spec::Lab;
use crate::units::Size;

/// Refuses forks that do not fit beside what runs.
pub fn forks(home: &Home, checkpoint: &Checkpoint, count: u16) -> Result<()> {
    let lab = &checkpoint.meta.record.desired.lab;
    let what = || format!("{count} forks of {}", lab.name);
    if let Some(memory) = capacity::memory() {
        let wanted = Size(lab.host_memory().bytes() * u64::from(count));
        fits("memory", &what(), wanted, memory.free)?;
    }
    // Frozen layers are links; what a fork has of its own is an empty layer for each disk and the shared disks.
    let shared = checkpoint.meta.parts.iter().filter(|p| p.kind == PartKind::Shared);
    let each = FORK_AT_REST.bytes() * lab.nodes.len() as u64 + shared.map(|p| p.bytes).sum::<u64>();
    fits(
        "disk space",
        &what(),
        Size(each * u64::from(count)),
        capacity::disk(&home.state)?,
    )
}

/// What a fork's machine writes at rest at most.
const FORK_AT_REST: Size = Size::mib(5);

/// Refuses a checkpoint for which there is no room: all memory at most, and a copy of each shared disk.
pub fn checkpoint(home: &Home, lab: &Lab) -> Result<()> {
    let memory: u64 = lab.nodes.iter().map(|n| n.memory.bytes()).sum();
    let shared: u64 = lab.shared_disks.iter().map(|d| d.size.bytes()).sum();
    fits(
        "disk space",
        &format!("a checkpoint of {}", lab.name),
        Size(memory + shared),
        capacity::disk(&home.cache)?,
    )
}

/// How many of `wanted` scenarios may run side by side, each on a fork of its own: as many as memory and cores carry, at least one.
pub fn jobs(lab: &Lab, wanted: Option<usize>) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let by_memory = capacity::memory().map_or(usize::MAX, |m| {
        (m.free.bytes() / lab.host_memory().bytes().max(1)) as usize
    });
    wanted.unwrap_or(cores / CORES_PER_LAB).min(by_memory).max(1)
}

/// Cores that a lab under load wants where machines are emulated: with fewer it answers later than its bounds allow as soon as the host
/// does anything else (docs/checkpoints.md, "What fits").
const CORES_PER_LAB: usize = 2;

fn fits(what: &'static str, whose: &str, wanted: Size, free: Size) -> Result<()> {
    if wanted <= free {
        return Ok(());
    }
    let mib = |size: Size| size.bytes().div_ceil(1 << 20);
    Err(Error::Host(
        Problem::new(format!("find the {what}"))
            .on(whose)
            .observed(format!(
                "{} MiB are needed, this host can give {} MiB",
                mib(wanted),
                mib(free)
            ))
            .remedy("take other labs down (`failoverlab ls`), or ask for less"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::example;

    #[test]
    fn what_does_not_fit_is_refused_with_the_numbers() {
        assert!(fits("memory", "x", Size::mib(5), Size::mib(5)).is_ok());
        let e = fits("memory", "3 forks of ccr", Size::mib(2001), Size::mib(2000)).unwrap_err();
        assert_eq!(e.exit_code(), 4);
        let text = e.to_string();
        assert!(
            text.contains("3 forks of ccr") && text.contains("2001 MiB") && text.contains("2000 MiB"),
            "{text}"
        );
    }

    #[test]
    fn one_scenario_always_runs() {
        let mut lab = example("ccr");
        assert_eq!(jobs(&lab, Some(0)), 1);
        for node in &mut lab.nodes {
            node.memory = Size(u64::MAX / 8);
        }
        assert_eq!(jobs(&lab, Some(64)), 1, "memory for less than one");
    }
}
