//! The mail protocols: SMTP and LMTP in, LMTP out, POP3. They know nothing of clusters: what they are told to say
//! comes through [`smtp::Inbox`] and [`pop3::Maildrop`].

pub mod deliver;
pub mod path;
pub mod pop3;
pub mod smtp;
pub mod wire;

use ccr_contract::config::Settings;
use ccr_core::transport::MAX_RECIPIENTS;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// What a peer may ask of this process. Guests have 256 to 384 MiB.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Longest command line, its end included (RFC 5321 4.5.3.1.4 asks for 512; extensions add to it).
    pub line: usize,
    /// Largest message, in bytes.
    pub message: usize,
    /// Longest piece of a message that is read at once, in bytes.
    pub piece: usize,
    /// Recipients of one message (RFC 5321 4.5.3.1.8 asks for 100 at least).
    pub recipients: usize,
    /// Commands after which a session that hands over no message is ended.
    pub commands: u32,
    /// Sessions of one server at the same time.
    pub sessions: usize,
    /// Longest silence, and longest wait for a peer that does not read.
    pub idle: Duration,
    /// Bad commands after which a session is ended.
    pub mistakes: u32,
    /// Bytes of messages in the memory of all sessions together.
    pub memory: Memory,
}

/// Largest message that can be configured: sessions share [`Limits::memory`].
pub const MAX_MESSAGE: usize = 32 << 20;

impl Limits {
    /// Of a store with these settings, or of a hub in front of it: what it does not take is announced as too large, and refused before
    /// it is read.
    pub fn of_store(settings: &Settings) -> Self {
        let bytes = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self {
            message: bytes(settings.message_bytes).min(MAX_MESSAGE),
            piece: bytes(settings.generation_bytes),
            ..Self::default()
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            line: 2048,
            message: MAX_MESSAGE,
            piece: 1 << 20,
            recipients: MAX_RECIPIENTS,
            commands: 1000,
            sessions: 64,
            idle: Duration::from_secs(60),
            mistakes: 20,
            memory: Memory::new(48 << 20),
        }
    }
}

/// A budget of bytes that sessions share, counted in KiB.
#[derive(Debug, Clone)]
pub struct Memory(Arc<Semaphore>);

impl Memory {
    /// Of `bytes`.
    pub fn new(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes >> 10)))
    }

    /// Takes what `bytes` need, rounded up; nothing if they are not there now.
    pub fn take(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes.div_ceil(1 << 10)).ok()?;
        self.0.clone().try_acquire_many_owned(kib).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_at_most_what_is_configured_and_fits_into_memory() {
        let limits = |message_bytes| {
            let settings = Settings {
                message_bytes,
                ..Settings::default()
            };
            Limits::of_store(&settings)
        };
        assert_eq!(limits(5_000_000).message, 5_000_000);
        assert_eq!(limits(1 << 40).message, MAX_MESSAGE);
        assert_eq!(Limits::of_store(&Settings::default()).message, 12_000_000);
        // A dumpster holds one and a half of the longest messages.
        let settings = Settings::default();
        assert!(settings.dumpster_bytes * 2 >= settings.message_bytes * 3);
    }
}
