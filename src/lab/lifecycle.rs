//! The life of labs and forks, from outside: bring one up, fork it, restore it from a checkpoint, take it down.
//!
//! Commands, scenarios and other processes call this; each function asks supervisors, and no other module decides in which order.

use super::checkpoint::{Restored, Store};
use super::client::{Client, wait_gone};
use super::protocol::{RestoreArgs, UpArgs, Verb};
use super::record::{DesiredState, LabRecord};
use super::{desired, observe};
use crate::error::{Cause, Error, IoContext, Problem, Result};
use crate::event::{Event, Journal};
use crate::files::Home;
use crate::hypervisor::Accel;
use crate::plan::Layer;
use crate::spec::{Lab, Loaded, Source};
use crate::units::Name;
use serde_json::Value;
use std::os::unix::fs::DirBuilderExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Seed of a lab where no other one is named.
pub const SEED: u64 = 1;

/// The longest that a supervisor may take to end after its lab is gone.
const END: Duration = Duration::from_secs(20);

/// Most forks of one lab at once.
const MOST: u16 = 999;

/// How a lab is brought up.
#[derive(Debug, Clone)]
pub struct UpOptions {
    /// Forced acceleration.
    pub accel: Option<Accel>,
    /// Seed of every random choice.
    pub seed: u64,
    /// Leave what was made when it fails.
    pub keep: bool,
    /// Boot in any case.
    pub cold: bool,
}

/// Whoever asks for something that takes long.
pub struct Caller {
    /// Raised where the caller does not want it any more: what was begun is undone.
    pub interrupted: Arc<AtomicBool>,
    /// Gets each event of the work, from any thread.
    pub on_event: Arc<dyn Fn(&Event) + Send + Sync>,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller")
            .field("interrupted", &self.interrupted)
            .finish_non_exhaustive()
    }
}

/// The lab's file. The lab must fit this host unless it is up.
pub fn read(home: &Home, source: &Source) -> Result<Loaded> {
    let loaded = desired::read(source)?;
    if home.lab(&loaded.lab.name).record().is_file() {
        Ok(loaded)
    } else {
        desired::load(source)
    }
}

/// Brings a lab up; what its supervisor answers.
pub fn up(home: &Home, source: &Source, lab: Lab, options: &UpOptions, caller: &Caller) -> Result<Value> {
    let desired = decide(home, source, lab, options, caller)?;
    bring_up(home, desired, options, caller)
}

/// Decides all that is decided on the workstation; builds the image where it is missing.
fn decide(home: &Home, source: &Source, lab: Lab, options: &UpOptions, caller: &Caller) -> Result<DesiredState> {
    observe::same_lab(home, &lab)?;
    let journal = Journal::in_memory();
    let on_event = caller.on_event.clone();
    journal.listen(move |e| {
        on_event(e);
        true
    });
    desired::decide(
        home,
        source,
        lab,
        options.accel,
        options.seed,
        &journal,
        &caller.interrupted,
    )
}

fn bring_up(home: &Home, desired: DesiredState, options: &UpOptions, caller: &Caller) -> Result<Value> {
    let mut client = Client::find_or_start(home, &desired.lab.name)?;
    let _watch = FlagWatch::over(caller.interrupted.clone(), client.hang_up()?)?;
    let args = UpArgs {
        desired,
        keep: options.keep,
        cold: options.cold,
    };
    client.ask(Verb::Up(Box::new(args)), |e| (caller.on_event)(e))
}

/// A checkpoint of the healthy lab: the one that is kept, or a new one. A lab that is up only for this is taken down again.
///
/// # Errors
/// `Usage` where the lab is up and has no checkpoint of what it is made of; all that bringing up a lab can end with.
pub fn healthy(home: &Home, source: &Source, lab: Lab, accel: Option<Accel>, caller: &Caller) -> Result<RestoreArgs> {
    let name = lab.name.clone();
    let was_up = LabRecord::load(&home.lab(&name).record())?.is_some();
    let options = UpOptions {
        accel,
        // The lab's own: scenarios with another seed begin with the same lab.
        seed: SEED,
        keep: false,
        cold: false,
    };
    let desired = decide(home, source, lab, &options, caller)?;
    let checkpoint = Layer::Healthy.name(&desired.inputs);
    let store = Store::of(home, &name);
    let fit = || store.get(&checkpoint).and_then(|c| c.verify());
    if fit().is_err() {
        if was_up {
            return Err(Error::Usage(
                Problem::new("fork the lab")
                    .on(&name)
                    .observed(
                        "it is up, but what went into it has changed since, or nothing was kept when it was healthy",
                    )
                    .remedy(format!("failoverlab down {name}, then verify again")),
            ));
        }
        bring_up(home, desired, &options, caller)?;
        take_down(home, &name, |e| (caller.on_event)(e))?;
        fit()?;
    }
    Ok(RestoreArgs { lab: name, checkpoint })
}

/// Makes `count` forks of a checkpoint, all or none; their names.
pub fn fork(home: &Home, from: &RestoreArgs, count: u16, mut on_event: impl FnMut(&Event)) -> Result<Vec<String>> {
    let checkpoint = Store::of(home, &from.lab).get(&from.checkpoint)?;
    super::admission::forks(home, &checkpoint, count)?;
    let mut made = Vec::new();
    for _ in 0..count {
        let instance = claim(home, &from.lab)?;
        made.push(instance.clone());
        if let Err(e) = restore(home, &instance, from, &mut on_event) {
            let failures: Vec<String> = made
                .iter()
                .filter_map(|i| take_down(home, i, &mut on_event).err().map(|e| e.to_string()))
                .collect();
            return Err(e.with_rollback(failures));
        }
    }
    Ok(made)
}

/// Makes `count` forks of `instance` as it is at this instant, all or none; their names. `lab` is the lab that it belongs to.
pub fn fork_running(
    home: &Home,
    lab: &Name,
    instance: &str,
    count: u16,
    mut on_event: impl FnMut(&Event),
) -> Result<Vec<String>> {
    let checkpoint: Name = format!("fork-{}", std::process::id())
        .parse()
        .expect("a prefix and digits");
    let name = checkpoint.clone();
    Client::find_or_start(home, instance)?.ask(Verb::Checkpoint { name }, &mut on_event)?;
    let from = RestoreArgs {
        lab: lab.clone(),
        checkpoint,
    };
    let made = fork(home, &from, count, on_event);
    // Only the way from there to here: frozen layers live on in whoever links to them.
    Store::of(home, lab).rm(&from.checkpoint, |_| None)?;
    made
}

/// Takes the lowest name that is free: its state folder is made, so that no other process gets it.
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
    client.get_with_events(Verb::Restore(from.clone()), on_event)
}

/// Takes `instance` down; whether there was anything. Where its supervisor ends on the way, another one finishes it, once.
pub fn take_down(home: &Home, instance: &str, mut on_event: impl FnMut(&Event)) -> Result<bool> {
    match ask_down(home, instance, &mut on_event) {
        Err(e) if e.problem().is_some_and(|p| p.cause == Some(Cause::SupervisorEnded)) => {
            ask_down(home, instance, &mut on_event)?;
            Ok(true)
        }
        asked => asked,
    }
}

fn ask_down(home: &Home, instance: &str, on_event: impl FnMut(&Event)) -> Result<bool> {
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

/// Does something once when a flag is raised; ends when dropped.
struct FlagWatch(Arc<AtomicBool>);

impl FlagWatch {
    fn over(flag: Arc<AtomicBool>, act: impl Fn() + Send + 'static) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let watched = ended.clone();
        let work = move || {
            while !watched.load(Ordering::Relaxed) {
                if flag.load(Ordering::Relaxed) {
                    return act();
                }
                crate::wait::pause(Duration::from_millis(50));
            }
        };
        std::thread::Builder::new()
            .name("watch".into())
            .spawn(work)
            .tried("watch for an interruption", "")?;
        Ok(Self(ended))
    }
}

impl Drop for FlagWatch {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::super::protocol::{Greeting, PROTO, Reply, Request, build};
    use super::*;
    use std::collections::BTreeSet;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    /// Greets as a supervisor whose process has ended by now, and hears one request.
    fn conversation(listener: &UnixListener) -> (UnixStream, Request) {
        let mut ended = std::process::Command::new("true").spawn().unwrap();
        ended.wait().unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let greeting = Greeting {
            failoverlab: build(),
            proto: PROTO,
            lab: "x".into(),
            pid: ended.id(),
        };
        writeln!(stream, "{}", serde_json::to_string(&greeting).unwrap()).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).unwrap();
        (stream, serde_json::from_str(&line).unwrap())
    }

    /// Supervisors of which so many end in the middle of `down`; the next one takes the lab down.
    fn taken_down_after(deaths: usize) -> Result<bool> {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::under(dir.path());
        let files = home.lab("x");
        for folder in [&files.state, &files.run] {
            Home::private_dir(folder).unwrap();
        }
        let listener = UnixListener::bind(files.socket()).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for _ in 0..deaths.min(2) {
                    drop(conversation(&listener));
                }
                if deaths < 2 {
                    let (mut stream, request) = conversation(&listener);
                    assert!(matches!(request.verb, Verb::Down));
                    let done = Reply::Ok {
                        id: request.id,
                        result: Value::Null,
                    };
                    writeln!(stream, "{}", serde_json::to_string(&done).unwrap()).unwrap();
                }
            });
            take_down(&home, "x", |_| {})
        })
    }

    #[test]
    fn a_supervisor_that_ends_during_down_is_followed_by_another_one() {
        assert!(taken_down_after(0).unwrap());
        assert!(taken_down_after(1).unwrap());
        // Not for ever: what ends two of them may end every one.
        let gave_up = taken_down_after(2).unwrap_err();
        assert_eq!(gave_up.problem().unwrap().cause, Some(Cause::SupervisorEnded));
        assert!(gave_up.to_string().contains("closed the connection"), "{gave_up}");
    }

    #[test]
    fn no_name_is_claimed_twice() {
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
