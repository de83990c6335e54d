//! The timeline in words: each stretch of each lane with its times, for whoever does not see it.

use super::lanes::{copy_text, fault_text, service_text, witness_text};
use crate::picture::{Track, Tracks};
use crate::verify::{History, takeovers};
use serde::Serialize;

/// What was so, from when until when, in seconds since the scenario began.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Spoken {
    pub lane: String,
    pub what: String,
    pub from: f64,
    pub to: f64,
}

/// Every lane, in the order of the drawing.
pub(super) fn spoken(history: &History, tracks: &Tracks) -> Vec<Spoken> {
    let begin = tracks.extent.from_us;
    let at = |t_us: u64| (t_us as f64 - begin as f64) / 1e6;
    let one = |lane: &str, what: String, from_us: u64, to_us: u64| Spoken {
        lane: lane.to_owned(),
        what,
        from: at(from_us),
        to: at(to_us),
    };
    let mut all: Vec<Spoken> = takeovers(history)
        .iter()
        .map(|t| {
            one(
                "takeover",
                format!("{} serves", t.node),
                t.detected_us.unwrap_or(t.t_us),
                t.t_us,
            )
        })
        .collect();
    let end = tracks.extent.to_us;
    let fault = |f: &crate::verify::FaultRecord| one("fault", fault_text(f), f.begin_us, f.end_us.unwrap_or(end));
    all.extend(history.faults.iter().map(fault));
    all.extend(
        tracks
            .dark
            .iter()
            .map(|(from, to)| one("networks", "dark".into(), *from, *to)),
    );
    let order = |(t_us, text): &(u64, String)| one("order", text.clone(), *t_us, *t_us);
    all.extend(tracks.orders.iter().map(order));
    let mut lane = |name: &str, words: Vec<(String, u64, u64)>| {
        all.extend(words.into_iter().map(|(what, from, to)| one(name, what, from, to)));
    };
    for (path, track) in &tracks.paths {
        let heard = |up: &Option<bool>| match up {
            Some(true) => "heard".to_owned(),
            Some(false) => "not heard".to_owned(),
            None => "not known".to_owned(),
        };
        lane(&format!("heartbeats {path}"), words(track, heard));
    }
    for (node, track) in &tracks.roles {
        lane(node, words(track, |r| r.word().to_owned()));
    }
    for (node, track) in &tracks.votes {
        lane(&format!("votes {node}"), words(track, crate::picture::VotesSeen::text));
    }
    lane("service", words(&tracks.service, service_text));
    let epoch = |e: &Option<u64>| e.map_or_else(|| "not known".to_owned(), |e| e.to_string());
    lane("epoch", words(&tracks.epoch, epoch));
    lane("witness", words(&tracks.witness, witness_text));
    lane("clients", words(&tracks.clients, |c| c.word().to_owned()));
    for (copy, track) in &tracks.copies {
        lane(&format!("copy {copy}"), words(track, copy_text));
    }
    if let Some((from, to)) = tracks.outage {
        lane("clients", vec![("longest time without an answer".to_owned(), from, to)]);
    }
    all
}

fn words<T>(track: &Track<T>, word: impl Fn(&T) -> String) -> Vec<(String, u64, u64)> {
    let said = track.0.iter().map(|s| (word(&s.what), s.from_us, s.to_us));
    said.filter(|(word, ..)| !word.is_empty()).collect()
}
