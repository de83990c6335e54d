//! The witness share, as SMB locks were measured to behave: one exclusive handle; a dead or unreachable client's handle
//! stays for a few seconds; a closed connection frees it at once; all handles die with the server, the content does not.

use crate::io::WitnessAction;

/// How long the server keeps the handle of a client that it cannot reach, in microseconds: least and most.
pub const KEPT_US: (u64, u64) = (2_900_000, 3_500_000);

/// The share.
#[derive(Debug, Default)]
pub struct Share {
    /// Content of the witness file.
    pub content: Vec<u8>,
    /// Whether the server runs.
    pub down: bool,
    holder: Option<Holder>,
}

#[derive(Debug, Clone, Copy)]
struct Holder {
    node: usize,
    /// The connection; a new one after each failure at the client.
    session: u64,
    /// When the server lost contact, where it did, and when it gives up.
    gives_up: Option<u64>,
}

/// What the server says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// Opened; the content.
    Opened(Vec<u8>),
    /// Sharing violation.
    Held,
    /// Done.
    Done,
    /// No such handle.
    Bad,
}

impl Share {
    /// A request arrived at the server.
    pub fn request(&mut self, now: u64, node: usize, session: u64, action: &WitnessAction) -> Answer {
        self.expire(now);
        let mine = self.holder.is_some_and(|h| h.node == node && h.session == session);
        match action {
            WitnessAction::Open => {
                if self.holder.is_some() && !mine {
                    return Answer::Held;
                }
                self.holder = Some(Holder {
                    node,
                    session,
                    gives_up: None,
                });
                Answer::Opened(self.content.clone())
            }
            WitnessAction::Write { bytes } if mine => {
                self.content.clone_from(bytes);
                Answer::Done
            }
            WitnessAction::Write { .. } => Answer::Bad,
            WitnessAction::Close => {
                if mine {
                    self.holder = None;
                }
                Answer::Done
            }
            WitnessAction::Probe => Answer::Done,
        }
    }
    fn expire(&mut self, now: u64) {
        if self.holder.and_then(|h| h.gives_up).is_some_and(|at| now >= at) {
            self.holder = None;
        }
    }
    /// Who holds the file.
    pub fn holder(&self) -> Option<usize> {
        self.holder.map(|h| h.node)
    }
    /// The client closed its connection, and the server heard of it.
    pub fn hung_up(&mut self, node: usize) {
        if self.holder.is_some_and(|h| h.node == node) {
            self.holder = None;
        }
    }
    /// Whether the server can reach the holder now; it gives up `kept_us` after it could not any more.
    pub fn contact(&mut self, now: u64, reachable: bool, kept_us: u64) {
        self.expire(now);
        if let Some(h) = &mut self.holder {
            h.gives_up = if reachable {
                None
            } else {
                Some(h.gives_up.unwrap_or(now + kept_us))
            };
        }
    }
    /// The server was restarted: handles are gone, the content is not.
    pub fn restarted(&mut self) {
        self.holder = None;
        self.down = false;
    }
}
