//! The one stream of a window: the picture whole, then what changed of it. A window that reads slowly gets the newest one, never a
//! queue of old ones.

use super::shows::Live;
use crate::picture::Patch;
use hyper::body::{Body, Bytes, Frame, SizeHint};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc};

/// The least time between two messages.
const BATCH: Duration = Duration::from_millis(40);
/// The longest: a window must know that the stream lives.
const PULSE: Duration = Duration::from_secs(5);
/// How long a window may take nothing before it is let go.
const SLOW: Duration = Duration::from_secs(30);

/// What is answered: all at once, or as it comes.
#[derive(Debug)]
pub(super) enum Content {
    /// All of it; none once it was taken.
    Whole(Option<Bytes>),
    /// Messages, until either side has gone.
    Stream(mpsc::Receiver<Bytes>),
}

impl Body for Content {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = |bytes: Option<Bytes>| bytes.map(|b| Ok(Frame::data(b)));
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(frame(bytes.take())),
            Self::Stream(messages) => messages.poll_recv(cx).map(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, Bytes::len) as u64),
            Self::Stream(_) => SizeHint::default(),
        }
    }
}

/// The stream of a lab, for one window. It holds its `place` among all windows until it ends.
pub(super) fn of(live: Arc<Live>, place: OwnedSemaphorePermit) -> Content {
    // One message at a time: the next one is made when there is room for it.
    let (tell, messages) = mpsc::channel(1);
    tokio::spawn(async move {
        feed(&live, &tell, SLOW).await;
        drop(place);
    });
    Content::Stream(messages)
}

async fn feed(live: &Live, tell: &mpsc::Sender<Bytes>, slow: Duration) {
    let mut changes = live.changes();
    let mut sent: Option<Value> = None;
    loop {
        let Ok(Ok(room)) = tokio::time::timeout(slow, tell.reserve()).await else {
            return;
        };
        changes.borrow_and_update();
        let all = live.document();
        let now_us = live.now_us();
        room.send(match &sent {
            None => message("whole", &json!({"now_us": now_us, "all": all})),
            Some(before) => message(
                "patch",
                &json!({"now_us": now_us, "patch": Patch::between(before, &all)}),
            ),
        });
        sent = Some(all);
        let more = async {
            tokio::time::sleep(BATCH).await;
            // Its sender lives as long as the lab is looked at.
            let _ = changes.changed().await;
        };
        tokio::select! {
            () = more => {}
            () = tokio::time::sleep(PULSE) => {}
            () = tell.closed() => return,
        }
    }
}

fn message(event: &str, data: &Value) -> Bytes {
    Bytes::from(format!("event: {event}\ndata: {data}\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::view::fake::Fake;
    use crate::view::tests::look;
    use crate::web::shows::Shows;

    fn data(message: &Bytes) -> Value {
        let text = std::str::from_utf8(message).unwrap();
        serde_json::from_str(text.split_once("data: ").unwrap().1.trim()).unwrap()
    }

    #[tokio::test]
    async fn a_slow_window_gets_the_newest_picture_and_one_that_takes_nothing_is_let_go() {
        let fake = Fake::new(look(5_000_000, Vec::new()));
        let live = Shows::labs(fake.home.clone(), None).live("ccr").unwrap();
        let (tell, mut messages) = mpsc::channel(1);
        let fed = tokio::spawn({
            let live = live.clone();
            async move { feed(&live, &tell, Duration::from_millis(300)).await }
        });
        let mut page = data(&messages.recv().await.unwrap())["all"].take();
        // Much happens while it does not read.
        for i in 0..2_000 {
            live.take(crate::view::News::Gap { from: i, to: i });
        }
        while page["newest"] != 1_999 {
            let patch = data(&messages.recv().await.unwrap())["patch"].take();
            serde_json::from_value::<Patch>(patch).unwrap().apply_to(&mut page);
        }
        assert_eq!(page["newest"], live.document()["newest"]);
        // It takes nothing more, and there is always more.
        let tells = std::thread::spawn({
            let live = live.clone();
            move || {
                for i in 2_000..2_100 {
                    live.take(crate::view::News::Gap { from: i, to: i });
                    crate::wait::pause(Duration::from_millis(10));
                }
            }
        });
        fed.await.unwrap();
        tells.join().unwrap();
        let mut left = 0;
        while messages.recv().await.is_some() {
            left += 1;
        }
        assert!(left <= 1, "{left} messages waited for it");
    }

    #[tokio::test]
    async fn a_closed_window_leaves_nothing() {
        let fake = Fake::new(look(5_000_000, Vec::new()));
        let shows = Shows::labs(fake.home.clone(), None);
        let live = shows.live("ccr").unwrap();
        let held = Arc::downgrade(&live);
        let places = Arc::new(tokio::sync::Semaphore::new(1));
        let mut stream = of(live, places.clone().try_acquire_owned().unwrap());
        let Content::Stream(messages) = &mut stream else {
            panic!()
        };
        messages.recv().await.unwrap();
        assert_eq!((places.available_permits(), held.strong_count()), (0, 1));
        drop(stream);
        let _place = places.acquire().await.unwrap();
        assert_eq!(held.strong_count(), 0, "nobody follows the lab any more");
    }
}
