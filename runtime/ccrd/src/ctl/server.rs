//! The daemon's end of the control socket.

use super::{Answer, MAX_REQUEST, Missing, Request, WATCH_LEAST, WATCH_MOST};
use crate::core::Core;
use crate::events::Events;
use crate::mail::wire::{Broken, Line, Wire};
use crate::net::after_failed_accept;
use ccr_contract::status::Status;
use ccr_core::command::Command;
use ccr_core::io::Reply;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep_until};

/// Operators at the same time; followers of events are among them.
const MAX_SESSIONS: usize = 32;
/// How long an operator may take for a request, or to take an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Makes the socket. What an earlier daemon left under its name goes away.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until the process ends.
pub async fn serve(listener: UnixListener, core: Core, events: Events) {
    let room = Arc::new(Semaphore::new(MAX_SESSIONS));
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            after_failed_accept().await;
            continue;
        };
        let Ok(permit) = room.clone().try_acquire_owned() else {
            continue;
        };
        let (core, events) = (core.clone(), events.clone());
        tokio::spawn(async move {
            // An operator who hangs up has no one to tell it to.
            let _ = session(stream, &core, &events).await;
            drop(permit);
        });
    }
}

async fn session(stream: UnixStream, core: &Core, events: &Events) -> Result<(), Broken> {
    let mut wire = Wire::new(stream, PATIENCE);
    let request = match wire.line(MAX_REQUEST).await? {
        Line::Whole(line) => serde_json::from_slice(&line).map_err(|e| format!("no request: {e}")),
        Line::TooLong => Err(format!("a request has at most {MAX_REQUEST} bytes")),
    };
    let answer = match request {
        Ok(Request::Events { from: Some(from), .. }) if from > events.mark().next => {
            let next = events.mark().next;
            Answer::Denied(format!(
                "there is no event {from} yet: this life of the daemon goes on with {next}"
            ))
        }
        Ok(Request::Events { follow, from }) => return tell_events(wire, events, follow, from).await,
        Ok(Request::Watch) => match watch(&mut wire, core, events).await? {
            Some(answer) => answer,
            None => return Ok(()),
        },
        Ok(Request::Core(Command::Status)) => status(core, events).await,
        Ok(Request::Core(command)) => ask(core, command).await,
        Err(why) => Answer::Denied(why),
    };
    wire.send(&line(&answer)).await?;
    wire.finish().await;
    Ok(())
}

async fn tell_events(
    mut wire: Wire<UnixStream>,
    events: &Events,
    follow: bool,
    from: Option<u64>,
) -> Result<(), Broken> {
    let mut reader = events.reader();
    let mut wanted = from;
    loop {
        let event = match reader.ready() {
            Some(event) => event,
            None if follow => tokio::select! {
                event = reader.next() => match event {
                    Some(event) => event,
                    None => return Ok(()),
                },
                // A follower that hung up must not keep its place until the next event.
                () = wire.gone() => return Ok(()),
            },
            None => return Ok(()),
        };
        if let Some(from) = wanted {
            if event.seq < from {
                continue;
            }
            if event.seq > from {
                let to = event.seq - 1;
                wire.send(&line(&Missing::Gap { from, to })).await?;
            }
            wanted = Some(event.seq + 1);
        }
        wire.send(&line(&*event)).await?;
    }
}

/// Tells what the node says of itself, led by the core's steps (at each change, and while it works), until the asker hangs up; why it cannot go on otherwise.
async fn watch(wire: &mut Wire<UnixStream>, core: &Core, events: &Events) -> Result<Option<Answer>, Broken> {
    let mut steps = core.steps();
    let mut told: Option<(Instant, u64, Status)> = None;
    loop {
        // Before the look: a step between the look and the wait must wake us.
        let work = steps.borrow_and_update().work;
        let answer = tokio::select! {
            answer = status(core, events) => answer,
            () = wire.gone() => return Ok(None),
        };
        let Answer::Status(status) = answer else {
            return Ok(Some(answer));
        };
        let looked = Instant::now();
        // A node that serves says that it still is as it was, too.
        let due = |(at, worked, before): &(Instant, u64, Status)| {
            *worked != work || looked >= *at + WATCH_MOST || lasting(before) != lasting(&status)
        };
        if told.as_ref().is_none_or(due) {
            wire.send(&line(&status)).await?;
            told = Some((looked, work, *status));
        }
        let latest = told.as_ref().map_or(looked, |(at, ..)| *at) + WATCH_MOST;
        let rested = async {
            sleep_until(looked + WATCH_LEAST).await;
            tokio::select! {
                changed = steps.changed() => changed.is_ok(),
                () = sleep_until(latest) => true,
            }
        };
        tokio::select! {
            goes_on = rested => if !goes_on { return Ok(None) },
            // Who hung up must not keep its place until the next line.
            () = wire.gone() => return Ok(None),
        }
    }
}

/// What a status says without what changes by itself: ages, and when it was looked.
fn lasting(status: &Status) -> Status {
    let mut lasting = status.clone();
    lasting.node_t_us = None;
    let witness = lasting.cluster.as_mut().and_then(|c| c.witness.as_mut());
    for probe in witness.into_iter().flat_map(|w| w.probed_by.values_mut()) {
        probe.age_ms = 0;
    }
    lasting
}

/// What the node says of itself, with the end of its events and the time.
async fn status(core: &Core, events: &Events) -> Answer {
    // Before the look: it is never told as newer than it is.
    let node_t_us = crate::clock::boot_us();
    let mut answer = ask(core, Command::Status).await;
    if let Answer::Status(status) = &mut answer {
        status.events = Some(events.mark());
        status.node_t_us = Some(node_t_us);
    }
    answer
}

async fn ask(core: &Core, command: Command) -> Answer {
    match core.operator(command).await {
        Ok(Reply::Status(s)) => Answer::Status(s),
        Ok(Reply::Dump(d)) => Answer::Dump(d),
        Ok(Reply::Done(text) | Reply::Unchanged(text)) => Answer::Done(text),
        Ok(Reply::Denied(why)) => Answer::Denied(why),
        Ok(other) => Answer::Failed(format!("the daemon answered something else: {other:?}")),
        Err(why) => Answer::Failed(why),
    }
}

fn line<T: serde::Serialize>(value: &T) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(value).unwrap_or_else(|e| format!("{{\"denied\":\"{e}\"}}").into_bytes());
    bytes.push(b'\n');
    bytes
}
