//! What a supervisor tells of its lab, as news: whoever watches is a client of it and keeps nothing alive.

use super::{News, Tell};
use crate::error::Result;
use crate::event::{Read, Reader};
use crate::files::{Home, LabFiles};
use crate::lab::client::{Client, StreamItem};
use crate::lab::protocol::{LabStatus, Networks, Verb};
use crate::lab::record::LabRecord;
use crate::wait::{Deadline, Probe, wait_until};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// The longest time between two looks where nothing is heard.
const LOOK: Duration = Duration::from_secs(1);
/// How long one wait for another supervisor lasts.
const RETURN: Duration = Duration::from_secs(5);

/// Tells `tell` all that comes of the lab `instance` until it is down or `tell` says no more (`false`): first what its journal has,
/// then looks, networks and events as they come. Two threads, that end by themselves.
///
/// # Errors
/// No thread can be had.
pub fn follow(home: &Home, instance: &str, tell: Tell) -> std::io::Result<()> {
    let files = home.lab(instance);
    let listened = Arc::new(AtomicBool::new(true));
    let tell: Tell = {
        let listened = listened.clone();
        Arc::new(move |news| {
            let more = tell(news);
            listened.fetch_and(more, Relaxed);
            more
        })
    };
    let events = std::thread::Builder::new().name(format!("events {instance}"));
    events.stack_size(512 << 10).spawn(move || {
        let next = past(&files, &*tell);
        let Some(next) = next else { return };
        let looks = std::thread::Builder::new()
            .name("looks".to_owned())
            .stack_size(512 << 10);
        let begun = looks.spawn({
            let (files, tell, listened) = (files.clone(), tell.clone(), listened.clone());
            move || through(&files, &listened, &*tell, |client| look(client, &*tell))
        });
        if begun.is_err() {
            tell(News::Silent("no thread can be had for its looks".to_owned()));
            return;
        }
        let mut from = next;
        // What the looks tell of the supervisor is told once.
        through(&files, &listened, &|_| true, |client| {
            client.follow(Some(from), |item| match item {
                StreamItem::Event(e) => {
                    from = e.seq + 1;
                    tell(News::Event(Box::new(e.clone())))
                }
                StreamItem::Gap { from: first, to } => {
                    from = to + 1;
                    tell(News::Gap { from: first, to })
                }
            })
        });
    })?;
    Ok(())
}

/// Tells what the journal has; the number of the event behind it. None where nobody listens.
fn past(files: &LabFiles, tell: &dyn Fn(News) -> bool) -> Option<u64> {
    let mut next = 0;
    // A journal that cannot be read is told by whoever has it.
    let Ok(mut reader) = Reader::open(&files.events(), 0) else {
        return Some(0);
    };
    while let Ok(Some(read)) = reader.read() {
        let news = match read {
            Read::Event(e) => {
                next = e.seq + 1;
                News::Event(e)
            }
            Read::Gap { from, to } => {
                next = to + 1;
                News::Gap { from, to }
            }
        };
        if !tell(news) {
            return None;
        }
    }
    Some(next)
}

/// Looks once, and again when something was heard, until that fails or nobody listens.
fn look(mut client: Client, tell: &dyn Fn(News) -> bool) -> Result<()> {
    loop {
        let status: LabStatus = client.get(Verb::Status(None))?;
        let beyond = status.heard;
        if !tell(News::Look(Box::new(status))) {
            return Ok(());
        }
        let networks: Networks = client.get(Verb::Counters)?;
        if !tell(News::Networks(Box::new(networks))) {
            return Ok(());
        }
        let within_ms = LOOK.as_millis() as u64;
        client.get::<u64>(Verb::News { beyond, within_ms })?;
    }
}

/// Hears one supervisor after another, until the lab is down or nobody listens.
fn through(
    files: &LabFiles,
    listened: &AtomicBool,
    tell: &dyn Fn(News) -> bool,
    mut hear: impl FnMut(Client) -> Result<()>,
) {
    let mut said = String::new();
    while listened.load(Relaxed) {
        let seen = match Client::find(files) {
            Ok(Some(client)) => {
                let ended = hear(client);
                said.clear();
                match ended {
                    Ok(()) if !is_up(files) => String::new(),
                    Ok(()) => "the supervisor ended".to_owned(),
                    Err(e) => e.to_string(),
                }
            }
            Ok(None) => "no supervisor runs".to_owned(),
            Err(e) => e.to_string(),
        };
        if !is_up(files) {
            tell(News::Down);
            return;
        }
        if seen != said {
            tell(News::Silent(seen.clone()));
            said = seen;
        }
        let back = || {
            let found = !is_up(files) || matches!(Client::find(files), Ok(Some(_)));
            Ok(match found {
                true => Probe::Ready(()),
                false => Probe::NotYet("no supervisor runs".to_owned()),
            })
        };
        // One that does not come back is told already.
        let _ = wait_until("find the lab's supervisor", Deadline::after(RETURN), back);
    }
}

/// Whether the lab is up, as far as its record says: one that cannot be read is not absent.
fn is_up(files: &LabFiles) -> bool {
    !matches!(LabRecord::load(&files.record()), Ok(None))
}
