//! Labs and forks as wholes, from outside: their names (`ccr@1`, `ccr@2`, …), bringing one back from a checkpoint, taking one down.

use super::checkpoint::Restored;
use super::client::{Client, wait_gone};
use super::protocol::{RestoreArgs, Verb};
use crate::error::{Error, IoContext, Problem, Result};
use crate::event::Event;
use crate::files::Home;
use crate::units::Name;
use std::os::unix::fs::DirBuilderExt;
use std::time::Duration;

/// The longest that a supervisor may take to end after its lab is gone.
const END: Duration = Duration::from_secs(20);

/// Most forks of one lab at once.
const MOST: u16 = 999;

/// Takes the lowest name that is free: its state folder is made, so that nobody else gets it.
pub fn claim(home: &Home, lab: &Name) -> Result<String> {
    for dir in [&home.state, &home.labs()] {
        Home::private_dir(dir)?;
    }
    for n in 1..=MOST {
        let instance = format!("{lab}@{n}");
        let state = home.lab(&instance).state;
        match std::fs::DirBuilder::new().mode(0o700).create(&state) {
            Ok(()) => return Ok(instance),
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).tried("make the fork's folder", state.display()),
        }
    }
    Err(Error::Usage(
        Problem::new("name the fork")
            .on(lab)
            .observed(format!("{MOST} forks are there")),
    ))
}

/// Brings `instance`, a lab or a fork whose name was claimed, back from a checkpoint; returns when it is healthy.
pub fn restore(home: &Home, instance: &str, from: &RestoreArgs, on_event: impl FnMut(&Event)) -> Result<Restored> {
    let mut client = Client::find_or_start(home, instance)?;
    client.get_hearing(Verb::Restore(from.clone()), on_event)
}

/// Takes `instance` down; whether there was anything.
pub fn take_down(home: &Home, instance: &str, on_event: impl FnMut(&Event)) -> Result<bool> {
    let files = home.lab(instance);
    if !files.state.is_dir() && Client::find(&files)?.is_none() {
        return Ok(false);
    }
    let mut client = Client::find_or_start(home, instance)?;
    let pid = client.greeting().pid;
    client.ask(Verb::Down, on_event)?;
    wait_gone(pid, END)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn nobody_gets_a_name_twice() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        let lab: Name = "ccr".parse().unwrap();
        let names: BTreeSet<String> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| claim(&home, &lab).unwrap())).collect();
            threads.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(names.len(), 8);
        assert!(names.contains("ccr@1") && names.contains("ccr@8"));
        std::fs::remove_dir(home.lab("ccr@3").state).unwrap();
        assert_eq!(claim(&home, &lab).unwrap(), "ccr@3");
    }
}
