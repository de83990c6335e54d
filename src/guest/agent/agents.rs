//! The lines to the agents of all machines of a lab: one for each, begun when it is first needed.

use super::line::{Line, Owner, Progress};
use crate::error::{Error, IoContext, Problem, Result};
use crate::lock::lock;
use crate::wait::Deadline;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long an agent that did not answer is not asked again: meanwhile there is the other way in.
const AGAIN: Duration = Duration::from_secs(5);

/// The lines of one lab.
#[derive(Debug)]
pub struct Agents {
    owner: Owner,
    /// Machines are being brought back: nobody but who does it speaks to them.
    closed: AtomicBool,
    nodes: Mutex<BTreeMap<String, Arc<Mutex<Slot>>>>,
}

#[derive(Debug, Default)]
struct Slot {
    line: Option<Arc<Line>>,
    progress: Progress,
    /// When it did not answer, and what was seen.
    silent: Option<(Instant, String)>,
}

impl Agents {
    /// No line yet. Followers that an earlier session of the same owner began are followed on.
    pub fn new(owner: Owner) -> Self {
        Self {
            owner,
            closed: AtomicBool::new(false),
            nodes: Mutex::default(),
        }
    }

    fn slot(&self, node: &str) -> Arc<Mutex<Slot>> {
        lock(&self.nodes).entry(node.to_owned()).or_default().clone()
    }

    /// The line to the agent of `node` behind `socket`; a new one where there is none that works.
    ///
    /// # Errors
    /// It does not answer, or did not a moment ago; or the machines are being brought back.
    pub fn line(&self, node: &str, socket: &Path, deadline: Deadline) -> Result<Arc<Line>> {
        let slot = self.slot(node);
        let mut slot = lock(&slot);
        // Looked at with the lock: who closes waits for those who have it.
        self.check_open(node)?;
        if let Some(line) = slot.line.as_ref().filter(|l| l.is_usable()) {
            return Ok(line.clone());
        }
        if let Some((when, seen)) = &slot.silent
            && when.elapsed() < AGAIN
        {
            return Err(Error::Operation(
                Problem::new("reach the machine's agent").on(node).observed(seen),
            ));
        }
        self.begin(&mut slot, node, socket, deadline)
    }

    /// A new line to a machine that was just brought back: what earlier lines to it brought is of another past.
    ///
    /// # Errors
    /// It does not answer.
    pub fn renew(&self, node: &str, socket: &Path, deadline: Deadline) -> Result<Arc<Line>> {
        let slot = self.slot(node);
        let mut slot = lock(&slot);
        slot.forget();
        self.begin(&mut slot, node, socket, deadline)
    }

    fn begin(&self, slot: &mut Slot, node: &str, socket: &Path, deadline: Deadline) -> Result<Arc<Line>> {
        // The one before has to hang up first: the hypervisor hears one at a time.
        slot.line = None;
        let line = UnixStream::connect(socket)
            .tried("reach the machine's agent", node)
            .and_then(|stream| Line::over(node, stream, self.owner, slot.progress.clone(), deadline));
        match &line {
            Ok(line) => (slot.line, slot.silent) = (Some(line.clone()), None),
            Err(e) => {
                let seen = e
                    .problem()
                    .and_then(|p| p.observed.clone())
                    .unwrap_or_else(|| e.to_string());
                slot.silent = Some((Instant::now(), seen));
            }
        }
        line
    }

    /// The line to `node`, where there is one that works.
    pub fn standing(&self, node: &str) -> Option<Arc<Line>> {
        let slot = self.slot(node);
        let slot = lock(&slot);
        slot.line.clone().filter(|l| l.is_usable())
    }

    /// An error while the machines are being brought back.
    ///
    /// # Errors
    /// That they are.
    pub fn check_open(&self, node: &str) -> Result<()> {
        if !self.closed.load(Ordering::SeqCst) {
            return Ok(());
        }
        let seen = "it is being brought back: nothing begins in it before its state is known";
        Err(Error::Operation(
            Problem::new("reach the machine").on(node).observed(seen),
        ))
    }

    /// Ends all lines. When this returns nobody begins another one but by [`Agents::renew`], until [`Agents::open`].
    pub fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        self.forget();
    }

    /// Lets everybody speak to the machines again.
    pub fn open(&self) {
        self.closed.store(false, Ordering::SeqCst);
    }

    /// Ends all lines, and forgets what they brought.
    pub fn forget(&self) {
        let slots: Vec<_> = lock(&self.nodes).values().cloned().collect();
        for slot in slots {
            lock(&slot).forget();
        }
    }
}

impl Slot {
    fn forget(&mut self) {
        if let Some(line) = &self.line {
            line.close();
        }
        *self = Self::default();
    }
}
