//! The lines of a followed command: numbered, and kept until they are acknowledged.

use crate::core::JobId;
use crate::message::{End, MAX_LINE};
use std::collections::VecDeque;

/// Lines and bytes that are kept before the command has to wait.
const KEPT_LINES: usize = 1024;
const KEPT_BYTES: usize = 256 << 10;
/// How much of what it complained about is kept.
const COMPLAINT: usize = 4 << 10;

/// A line that the host may have to get: its number, and its text.
pub type Line = (u64, Vec<u8>);

#[derive(Debug, Default)]
pub struct Follower {
    pub key: String,
    open: Vec<u8>,
    kept: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Number of the first line that is kept.
    first: u64,
    /// Number of the first line that [`Follower::fresh`] has not handed out.
    told: u64,
    stderr: Vec<u8>,
    how: Option<End>,
}

/// A line is longer than any may be.
#[derive(Debug)]
pub struct TooLong;

impl Follower {
    pub fn new(key: String) -> Self {
        Self { key, ..Self::default() }
    }

    /// Whether the command has to wait for the host.
    pub fn is_full(&self) -> bool {
        self.kept.len() >= KEPT_LINES || self.bytes >= KEPT_BYTES
    }

    /// Takes in what the command printed.
    pub fn print(&mut self, bytes: &[u8]) -> Result<(), TooLong> {
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, whole) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            if self.open.len() + text.len() > MAX_LINE {
                self.open = Vec::new();
                return Err(TooLong);
            }
            self.open.extend_from_slice(text);
            if whole {
                self.close();
            }
        }
        Ok(())
    }

    fn close(&mut self) {
        let line = std::mem::take(&mut self.open);
        self.bytes += line.len();
        self.kept.push_back(line);
    }

    /// Takes in what it complained about.
    pub fn complain(&mut self, bytes: &[u8]) {
        self.stderr.extend_from_slice(bytes);
        let surplus = self.stderr.len().saturating_sub(COMPLAINT);
        self.stderr.drain(..surplus);
    }

    /// The command has ended. A last line without an end is none, as over SSH.
    pub fn finish(&mut self, how: End) {
        self.open = Vec::new();
        self.how.get_or_insert(how);
    }

    pub fn ended(&self) -> bool {
        self.how.is_some()
    }

    /// How it ended, and with which complaint.
    pub fn end(&self) -> Option<(End, Vec<u8>)> {
        Some((self.how?, self.stderr.clone()))
    }

    /// Whether it has ended and the host has all of it.
    pub fn is_done(&self) -> bool {
        self.ended() && self.kept.is_empty()
    }

    /// Number of the first line that is not acknowledged.
    pub fn first(&self) -> u64 {
        self.first
    }

    fn next(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    /// All lines that are not acknowledged; they count as handed out.
    pub fn kept(&self) -> Vec<Line> {
        (self.first..).zip(self.kept.iter().cloned()).collect()
    }

    /// Lines that were not handed out yet.
    pub fn fresh(&mut self) -> Vec<Line> {
        let known = self.told.saturating_sub(self.first) as usize;
        let fresh = (self.first..).zip(self.kept.iter().cloned()).skip(known).collect();
        self.told = self.next();
        fresh
    }

    /// The host has all lines below `next`.
    pub fn acknowledge(&mut self, next: u64) -> Result<(), &'static str> {
        if next > self.next() {
            return Err("a line was acknowledged that there is not");
        }
        while self.first < next {
            self.bytes -= self.kept.pop_front().map_or(0, |l| l.len());
            self.first += 1;
        }
        Ok(())
    }

    /// Whether a host that wants this can go on here without losing or doubling a line; what it has is then forgotten.
    pub fn goes_on_from(&mut self, id: JobId, from: Option<(u64, u64)>) -> bool {
        self.told = self.next();
        match from {
            None => true,
            Some((whose, next)) => whose == id && next >= self.first && self.acknowledge(next).is_ok(),
        }
    }
}
