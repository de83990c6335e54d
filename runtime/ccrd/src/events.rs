//! The last events of the core, for whoever reads them. A reader that is slow misses some (it sees the gap in `seq`);
//! it never holds the daemon up.

use ccr_contract::event::{NodeEvent, Severity};
use ccr_contract::status::EventsMark;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

/// Events kept.
const KEPT: usize = 8192;

/// The ring of events. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Events(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    ring: Mutex<Ring>,
    /// There is one more, or there will be none, or a reader has gone.
    more: Notify,
}

#[derive(Debug, Default)]
struct Ring {
    events: VecDeque<Arc<NodeEvent>>,
    /// How many have left the front.
    gone: u64,
    readers: usize,
    /// Nothing more comes.
    over: bool,
}

impl Events {
    /// Adds one.
    pub fn push(&self, event: NodeEvent) {
        let mut ring = self.ring();
        if ring.events.len() == KEPT {
            ring.events.pop_front();
            ring.gone += 1;
        }
        ring.events.push_back(Arc::new(event));
        drop(ring);
        self.0.more.notify_waiters();
    }

    /// A reader that begins with the oldest event kept.
    pub fn reader(&self) -> Reader {
        let mut ring = self.ring();
        ring.readers += 1;
        Reader {
            events: self.clone(),
            next: ring.gone,
        }
    }

    /// Nothing more comes: returns when every reader has had all of it, and has gone.
    pub async fn drained(&self) {
        self.ring().over = true;
        self.0.more.notify_waiters();
        loop {
            let more = self.0.more.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            if self.ring().readers == 0 {
                return;
            }
            more.await;
        }
    }

    /// How far the stream has come.
    pub fn mark(&self) -> EventsMark {
        let ring = self.ring();
        let last = ring.events.back();
        EventsMark {
            next: last.map_or(0, |e| e.seq + 1),
            last_us: last.map(|e| e.node_t_us),
        }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing in here can be left half done by a panic.
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the ring.
#[derive(Debug)]
pub struct Reader {
    events: Events,
    /// Position of the next event, counted since the daemon's start.
    next: u64,
}

impl Reader {
    /// The next event, if there is one already.
    pub fn ready(&mut self) -> Option<Arc<NodeEvent>> {
        let ring = self.events.ring();
        self.next = self.next.max(ring.gone);
        let event = ring.events.get((self.next - ring.gone) as usize).cloned()?;
        self.next += 1;
        Some(event)
    }

    /// The next event, as soon as there is one; nothing where none will come.
    pub async fn next(&mut self) -> Option<Arc<NodeEvent>> {
        let events = self.events.clone();
        loop {
            let more = events.0.more.notified();
            tokio::pin!(more);
            // Before the look: an event between the look and the wait must wake us.
            more.as_mut().enable();
            // Asked before: one that came in between is ready.
            let over = events.ring().over;
            let event = self.ready();
            if event.is_some() || over {
                return event;
            }
            more.await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.events.ring().readers -= 1;
        self.events.0.more.notify_waiters();
    }
}

/// Writes what an administrator wants in the system's journal to stderr. A journal that is stuck holds nobody up.
pub async fn journal(mut reader: Reader) {
    let mut stderr = tokio::io::stderr();
    while let Some(event) = reader.next().await {
        let Some(line) = worth_a_line(&event) else { continue };
        // What is not flushed is still on its way when the process ends.
        let written = async {
            stderr.write_all(line.as_bytes()).await?;
            stderr.flush().await
        };
        if written.await.is_err() {
            return;
        }
    }
}

/// Warnings and errors, and what happens to the cluster and the service; the rest comes with every message or log.
fn worth_a_line(event: &NodeEvent) -> Option<String> {
    let rare = event.kind.starts_with("cluster.") || event.kind.starts_with("service.");
    let least = if rare { Severity::Info } else { Severity::Warning };
    (event.severity >= least).then(|| serde_json::to_string(event).ok().map(|line| line + "\n"))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn event(seq: u64) -> NodeEvent {
        NodeEvent {
            seq,
            node_t_us: 0,
            kind: "test".into(),
            id: None,
            severity: Severity::Info,
            data: Default::default(),
        }
    }

    #[tokio::test]
    async fn a_reader_gets_old_and_new_ones() {
        let e = Events::default();
        e.push(event(1));
        let mut r = e.reader();
        assert_eq!(r.next().await.unwrap().seq, 1);
        assert!(r.ready().is_none());
        let later = e.clone();
        let (got, ()) = tokio::join!(r.next(), async { later.push(event(2)) });
        assert_eq!(got.unwrap().seq, 2);
        assert!(tokio::time::timeout(Duration::from_millis(10), r.next()).await.is_err());
    }

    #[tokio::test]
    async fn the_end_waits_until_every_reader_has_everything() {
        let e = Events::default();
        let (mut slow, gone) = (e.reader(), e.reader());
        drop(gone);
        e.push(event(1));
        let reads = async {
            tokio::task::yield_now().await;
            let first = slow.next().await.map(|e| e.seq);
            let end = slow.next().await;
            drop(slow);
            (first, end)
        };
        let ((first, end), ()) = tokio::join!(reads, e.drained());
        assert_eq!((first, end), (Some(1), None));
        let stuck = e.reader();
        let left = tokio::time::timeout(Duration::from_millis(10), e.drained()).await;
        assert!(left.is_err());
        drop(stuck);
        e.drained().await;
    }

    #[test]
    fn what_stands_in_the_journal() {
        let of = |kind: &str, severity| {
            worth_a_line(&NodeEvent {
                kind: kind.into(),
                severity,
                ..event(1)
            })
        };
        assert!(
            of("service.online", Severity::Info)
                .unwrap()
                .contains("\"service.online\"")
        );
        assert!(of("log.full", Severity::Error).is_some());
        assert!(of("hub.queued", Severity::Info).is_none());
        assert!(of("cluster.path", Severity::Debug).is_none());
    }

    #[test]
    fn a_slow_reader_sees_a_gap_and_memory_is_bounded() {
        let e = Events::default();
        let mut r = e.reader();
        for n in 0..KEPT as u64 + 10 {
            e.push(event(n));
        }
        assert_eq!(r.ready().unwrap().seq, 10);
        assert_eq!(e.ring().events.len(), KEPT);
        assert_eq!(e.reader().ready().unwrap().seq, 10);
    }

    #[test]
    fn the_mark_is_what_a_reader_must_have_come_to() {
        let e = Events::default();
        assert_eq!(e.mark(), EventsMark { next: 0, last_us: None });
        e.push(event(0));
        e.push(NodeEvent {
            node_t_us: 7,
            ..event(1)
        });
        assert_eq!(
            e.mark(),
            EventsMark {
                next: 2,
                last_us: Some(7)
            }
        );
    }
}
