//! TCP between the daemons: frames in order, tried again while the network is cut, lost with their stream when that lasts.

use super::world::{PUBLIC, SimEvent, World};
use crate::io::{ConnId, Input};
use crate::wire;
use std::collections::VecDeque;

/// How long a stream that gets nothing through lives, in microseconds.
pub(super) const STREAM_DIES_US: u64 = 12_000_000;

/// One stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub ends: [(usize, u64, ConnId); 2],
    pub network: usize,
    pub open: bool,
    /// Frames under way in each direction, and since when.
    under_way: [VecDeque<(Vec<u8>, u64)>; 2],
}

impl Stream {
    pub fn new(ends: [(usize, u64, ConnId); 2], network: usize) -> Self {
        Self {
            ends,
            network,
            open: true,
            under_way: Default::default(),
        }
    }
}

/// A store's answer on its way to the hub.
#[derive(Debug)]
pub struct Answered {
    /// The hub.
    pub hub: usize,
    /// Its life.
    pub life: u64,
    /// The member.
    pub from: usize,
    /// When that one was switched on.
    pub on_since: u64,
    /// When the answer left.
    pub since: u64,
    /// What the hub gets.
    pub input: Input,
}

impl World {
    pub(super) fn close_stream(&mut self, s: usize, error: &str) {
        if !std::mem::replace(&mut self.streams[s].open, false) {
            return;
        }
        for (i, life, conn) in self.streams[s].ends {
            let error = error.to_owned();
            self.at(200, SimEvent::Input(i, life, Input::Closed { conn, error }));
        }
    }

    pub(super) fn send_frame(&mut self, s: usize, forth: bool, bytes: Vec<u8>) {
        let us = self.packet_us();
        let now = self.now;
        self.streams[s].under_way[usize::from(!forth)].push_back((bytes, now));
        self.at(us, SimEvent::Frame(s, forth));
    }

    /// The frame at the head arrives; none overtakes another.
    pub(super) fn frame_arrives(&mut self, s: usize, forth: bool) {
        let stream = &self.streams[s];
        let (from, to) = if forth { (0, 1) } else { (1, 0) };
        let Some((_, since)) = stream.under_way[from].front().filter(|_| stream.open) else {
            return;
        };
        let since = *since;
        let (a, (b, life, conn)) = (stream.ends[from].0, stream.ends[to]);
        let through = self.passes(stream.network, a, b) && self.passes(stream.network, b, a) && self.kernel_runs(b);
        let through = through && !(self.throttled && a < 2 && b < 2);
        if through {
            let bytes = self.streams[s].under_way[from]
                .pop_front()
                .map(|(b, _)| b)
                .unwrap_or_default();
            self.note(|| {
                let what = wire::decode_frame(&bytes).map_or_else(|e| e.to_string(), |(msg, _)| format!("{msg:?}"));
                format!("FRAME {a} to {b}: {}", what.chars().take(120).collect::<String>())
            });
            self.input(b, life, Input::Frame { conn, bytes });
        } else if self.now - since > STREAM_DIES_US {
            self.close_stream(s, "timed out");
        } else {
            // TCP tries again.
            self.at(200_000, SimEvent::Frame(s, forth));
        }
    }

    pub(super) fn answer_arrives(&mut self, answer: Answered) {
        let Answered { hub, from, since, .. } = answer;
        if self.machines[from].on_since != answer.on_since || !self.machines[from].powered {
            return;
        }
        if self.passes(PUBLIC, from, hub) && self.kernel_runs(from) {
            let us = self.packet_us();
            self.at(us, SimEvent::Input(hub, answer.life, answer.input));
        } else if self.now - since < STREAM_DIES_US {
            // TCP tries again.
            self.at(200_000, SimEvent::Answer(answer));
        }
    }
}
