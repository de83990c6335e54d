//! The witness share, as SMB locks were measured to behave: one exclusive handle; a dead or unreachable client's handle
//! stays for a few seconds; a closed connection frees it at once; all handles die with the server, the content does not.

use crate::io::WitnessAction;

/// How long the server keeps the handle of a client that it cannot reach, in microseconds: least and most.
pub const KEPT_US: (u64, u64) = (2_900_000, 3_500_000);

/// Names of the server's two shares: the one of the configuration, and one to change to.
pub const SHARES: [&str; 2] = ["witness", "witness2"];

/// The server.
#[derive(Debug, Default)]
pub struct Share {
    /// Whether the server runs.
    pub down: bool,
    /// Whether its disk has no room: files open, nothing can be written.
    pub full: bool,
    /// How long it takes over what opens a file, in microseconds: a host whose processors are busy.
    pub slow_us: u64,
    /// How often a witness file was opened.
    pub opened: u64,
    files: [File; 2],
    /// Which share each member uses.
    uses: [usize; 2],
}

/// The witness file of one share.
#[derive(Debug, Default)]
struct File {
    content: Vec<u8>,
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
    /// No room on the server's disk.
    Full,
}

impl File {
    fn expire(&mut self, now: u64) {
        if self.holder.and_then(|h| h.gives_up).is_some_and(|at| now >= at) {
            self.holder = None;
        }
    }
}

impl Share {
    /// A request arrived at the server.
    pub fn request(&mut self, now: u64, node: usize, session: u64, action: &WitnessAction) -> Answer {
        let file = &mut self.files[self.uses[node]];
        file.expire(now);
        let mine = file.holder.is_some_and(|h| h.node == node && h.session == session);
        match action {
            WitnessAction::Open => {
                if file.holder.is_some() && !mine {
                    return Answer::Held;
                }
                file.holder = Some(Holder {
                    node,
                    session,
                    gives_up: None,
                });
                self.opened += 1;
                Answer::Opened(file.content.clone())
            }
            WitnessAction::Write { .. } if mine && self.full => Answer::Full,
            WitnessAction::Probe if self.full => Answer::Full,
            WitnessAction::Write { bytes } if mine => {
                file.content.clone_from(bytes);
                Answer::Done
            }
            WitnessAction::Write { .. } => Answer::Bad,
            WitnessAction::Close => {
                if mine {
                    file.holder = None;
                }
                Answer::Done
            }
            WitnessAction::Probe => Answer::Done,
        }
    }
    /// A member uses another share from now on; its connection to the old one ends.
    pub fn change(&mut self, node: usize, share: &str) {
        self.hung_up(node);
        self.uses[node] = SHARES.iter().position(|s| *s == share).unwrap_or(0);
    }
    /// A daemon starts with the share of its configuration.
    pub fn started(&mut self, node: usize) {
        if let Some(uses) = self.uses.get_mut(node) {
            *uses = 0;
        }
    }
    /// What the witness files say.
    pub fn contents(&self) -> impl Iterator<Item = &[u8]> {
        self.files.iter().map(|f| f.content.as_slice())
    }
    /// Changes what the witness file of the first share says, behind everybody's back; what it said.
    #[cfg(test)]
    pub fn put(&mut self, content: Vec<u8>) -> Vec<u8> {
        std::mem::replace(&mut self.files[0].content, content)
    }
    /// Who holds a file, by which connection.
    pub fn holders(&self) -> impl Iterator<Item = (usize, u64)> {
        self.files.iter().filter_map(|f| f.holder.map(|h| (h.node, h.session)))
    }
    /// The client closed its connection, and the server heard of it.
    pub fn hung_up(&mut self, node: usize) {
        for file in &mut self.files {
            file.holder.take_if(|h| h.node == node);
        }
    }
    /// Whether the server can reach a holder now; it gives up `kept_us` after it could not any more.
    pub fn contact(&mut self, now: u64, node: usize, reachable: bool, kept_us: u64) {
        for file in &mut self.files {
            file.expire(now);
            if let Some(h) = file.holder.as_mut().filter(|h| h.node == node) {
                h.gives_up = if reachable {
                    None
                } else {
                    Some(h.gives_up.unwrap_or(now + kept_us))
                };
            }
        }
    }
    /// The server was restarted: handles are gone, the content is not.
    pub fn restarted(&mut self) {
        for file in &mut self.files {
            file.holder = None;
        }
        self.down = false;
    }
}
