//! The daemon's end of the control socket.

use super::{Answer, MAX_REQUEST, Missing, Request};
use crate::core::Core;
use crate::events::Events;
use crate::mail::wire::{Line, Wire};
use crate::net::after_failed_accept;
use ccr_core::command::Command;
use ccr_core::io::Reply;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

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

async fn session(stream: UnixStream, core: &Core, events: &Events) -> Result<(), crate::mail::wire::Broken> {
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
        Ok(Request::Events { follow, from }) => {
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
        Ok(Request::Core(command)) => {
            let mut answer = ask(core, command).await;
            if let Answer::Status(status) = &mut answer {
                status.events = Some(events.mark());
            }
            answer
        }
        Err(why) => Answer::Denied(why),
    };
    wire.send(&line(&answer)).await?;
    wire.finish().await;
    Ok(())
}

async fn ask(core: &Core, command: Command) -> Answer {
    match core.operator(command).await {
        Ok(Reply::Status(s)) => Answer::Status(s),
        Ok(Reply::Dump(d)) => Answer::Dump(d),
        Ok(Reply::Done(text)) => Answer::Done(text),
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
