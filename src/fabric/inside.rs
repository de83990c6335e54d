//! A port whose machine is in this process: two bounded queues, each with a descriptor that tells when it has frames.

use super::transport::{BATCH, Batch, PortTransport};
use crate::lock::lock;
use rustix::event::{EventfdFlags, eventfd};
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex};

/// Most bytes that wait in one direction.
const BOUND: usize = 4 << 20;

#[derive(Debug)]
struct Pipe {
    state: Mutex<State>,
    ready: OwnedFd,
}

#[derive(Debug, Default)]
struct State {
    frames: VecDeque<Box<[u8]>>,
    bytes: usize,
}

impl Pipe {
    fn new() -> io::Result<Arc<Self>> {
        let ready = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Arc::new(Self {
            state: Mutex::default(),
            ready,
        }))
    }

    fn push<'a>(&self, frames: impl Iterator<Item = &'a [u8]>) -> io::Result<usize> {
        let mut state = lock(&self.state);
        let mut taken = 0;
        for f in frames {
            if state.bytes + f.len() > BOUND {
                break;
            }
            state.bytes += f.len();
            state.frames.push_back(f.into());
            taken += 1;
        }
        if taken > 0 {
            rustix::io::write(&self.ready, &1u64.to_ne_bytes())?;
        }
        Ok(taken)
    }

    /// At most `most` frames. The descriptor stays ready while some are left.
    fn pop(&self, most: usize, mut each: impl FnMut(&[u8])) {
        let mut state = lock(&self.state);
        for _ in 0..most {
            let Some(f) = state.frames.pop_front() else { break };
            state.bytes -= f.len();
            each(&f);
        }
        if state.frames.is_empty() {
            let _ = rustix::io::read(&self.ready, &mut [0; 8]);
        }
    }
}

/// One end of the cable.
#[derive(Debug)]
pub struct Inside {
    rx: Arc<Pipe>,
    tx: Arc<Pipe>,
}

impl Inside {
    /// Both ends of a cable.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = (Pipe::new()?, Pipe::new()?);
        Ok((
            Self {
                rx: a.clone(),
                tx: b.clone(),
            },
            Self { rx: b, tx: a },
        ))
    }

    /// Hands over one frame; false where the queue is full.
    pub fn push(&self, frame: &[u8]) -> bool {
        self.tx.push(std::iter::once(frame)).is_ok_and(|n| n == 1)
    }

    /// Takes at most `most` frames.
    pub fn pop(&self, most: usize, each: impl FnMut(&[u8])) {
        self.rx.pop(most, each);
    }
}

impl PortTransport for Inside {
    fn fd(&self) -> BorrowedFd<'_> {
        self.rx.ready.as_fd()
    }
    fn receive(&mut self, batch: &mut Batch) -> io::Result<()> {
        batch.clear();
        self.rx.pop(BATCH, |f| batch.push(f));
        Ok(())
    }
    fn send(&mut self, frames: &[IoSlice<'_>]) -> io::Result<usize> {
        self.tx.push(frames.iter().map(|f| &**f))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_pass_in_order_and_the_queue_is_bounded() {
        let (mut a, b) = Inside::pair().unwrap();
        for n in 0..100u8 {
            assert!(b.push(&[n; 60]));
        }
        let mut batch = Batch::new(100);
        let mut got = Vec::new();
        loop {
            a.receive(&mut batch).unwrap();
            if batch.is_empty() {
                break;
            }
            got.extend((0..batch.len()).map(|i| batch.frame(i).unwrap()[0]));
        }
        assert_eq!(got, (0..100).collect::<Vec<u8>>());
        let frame = [0; 1500];
        let n = (0..10_000).take_while(|_| b.push(&frame)).count();
        assert_eq!(n, BOUND / frame.len());
    }
}
