//! Questions to machines that may hang: each runs on a thread of its own, whoever asks waits for a bounded time, and for a machine that
//! was silent before only for a moment. Its question goes on; the next look hears whether it answers again.

use crate::error::{Error, Problem, Result};
use crate::lock::lock;
use std::collections::BTreeMap;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How long a machine that was silent is waited for.
const GRACE: Duration = Duration::from_millis(300);

/// What is known of each node's answering.
#[derive(Debug, Default)]
pub(super) struct Queries(Mutex<BTreeMap<String, Arc<Mutex<Node>>>>);

#[derive(Debug, Default)]
struct Node {
    /// Questions under way: several look at once, and each is answered.
    busy: u32,
    /// Since when there is no answer.
    silent: Option<Instant>,
}

/// A question that was asked, or one that was not: the machine is silent, and an earlier one is still under way.
#[derive(Debug)]
pub(super) struct Query<T> {
    name: String,
    node: Arc<Mutex<Node>>,
    begun: Instant,
    answer: Option<Receiver<Result<T>>>,
}

impl Queries {
    /// Asks `name` on a thread of its own, unless it is silent and an earlier question is still under way.
    pub fn ask<T: Send + 'static>(
        &self,
        name: &str,
        question: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Query<T> {
        let node = lock(&self.0).entry(name.to_owned()).or_default().clone();
        let begun = Instant::now();
        let mut query = Query {
            name: name.to_owned(),
            node: node.clone(),
            begun,
            answer: None,
        };
        {
            let mut node = lock(&node);
            if node.silent.is_some() && node.busy > 0 {
                return query;
            }
            node.busy += 1;
        }
        let (tell, told) = channel();
        query.answer = Some(told);
        let work = {
            let node = node.clone();
            move || {
                let answer = question();
                let mut node = lock(&node);
                node.busy -= 1;
                match &answer {
                    Ok(_) => node.silent = None,
                    Err(_) => drop(node.silent.get_or_insert(begun)),
                }
                drop(node);
                // Whoever asked may have gone.
                let _ = tell.send(answer);
            }
        };
        if std::thread::Builder::new()
            .name(format!("ask {name}"))
            .spawn(work)
            .is_err()
        {
            lock(&node).busy -= 1;
        }
        query
    }

    /// Forgets everything: the machines are others now.
    pub fn forget(&self) {
        lock(&self.0).clear();
    }
}

impl<T> Query<T> {
    /// The answer, where it comes before `until`; from a machine that was silent before, where it comes at once.
    pub fn wait(self, until: Instant) -> Result<T> {
        let silent = lock(&self.node).silent;
        let until = match silent {
            Some(_) => until.min(self.begun + GRACE),
            None => until,
        };
        let left = until.saturating_duration_since(Instant::now());
        if let Some(answer) = self.answer.and_then(|a| a.recv_timeout(left).ok()) {
            return answer;
        }
        let since = *lock(&self.node).silent.get_or_insert(self.begun);
        Err(Error::Operation(
            Problem::new("ask the runtime")
                .on(self.name)
                .observed(format!("no answer for {:.1} s", since.elapsed().as_secs_f64())),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::Sender;

    const LONG: Duration = Duration::from_secs(600);

    /// A question that is answered when it is told to.
    fn held(queries: &Queries) -> (Query<u32>, Sender<Result<u32>>) {
        let (answer, answers) = channel();
        let query = queries.ask("node1", move || answers.recv().unwrap_or(Err(Error::Interrupted)));
        (query, answer)
    }

    #[test]
    fn an_answer_is_waited_for() {
        let queries = Queries::default();
        assert_eq!(queries.ask("node1", || Ok(7)).wait(Instant::now() + LONG).unwrap(), 7);
        let (query, answer) = held(&queries);
        answer.send(Ok(8)).unwrap();
        assert_eq!(query.wait(Instant::now() + LONG).unwrap(), 8);
    }

    #[test]
    fn those_who_look_at_once_are_both_answered() {
        let queries = Queries::default();
        let ((first, answer), (second, other)) = (held(&queries), held(&queries));
        other.send(Ok(2)).unwrap();
        assert_eq!(second.wait(Instant::now() + LONG).unwrap(), 2);
        answer.send(Ok(1)).unwrap();
        assert_eq!(first.wait(Instant::now() + LONG).unwrap(), 1);
    }

    #[test]
    fn a_machine_that_hangs_is_named_and_not_waited_for_again() {
        let queries = Queries::default();
        let (first, answer) = held(&queries);
        let e = first.wait(Instant::now()).unwrap_err();
        assert!(e.to_string().contains("no answer for"), "{e}");
        // The question is still under way: no second one is asked, and no caller waits until the long deadline.
        let second = queries.ask("node1", || -> Result<u32> { unreachable!("it is not asked twice") });
        second.wait(Instant::now() + LONG).unwrap_err();
        // Others are asked all the same.
        assert_eq!(queries.ask("node2", || Ok(1)).wait(Instant::now() + LONG).unwrap(), 1);
        // It answers again: the next question is waited for like any other.
        answer.send(Ok(9)).unwrap();
        let node = lock(&queries.0)["node1"].clone();
        while lock(&node).busy > 0 {
            std::thread::yield_now();
        }
        let (third, answer) = held(&queries);
        answer.send(Ok(10)).unwrap();
        assert_eq!(third.wait(Instant::now() + LONG).unwrap(), 10);
    }

    #[test]
    fn a_machine_that_failed_is_waited_for_only_for_a_moment() {
        let queries = Queries::default();
        let fails = queries.ask("node1", || Err::<u32, _>(Error::Interrupted));
        fails.wait(Instant::now() + LONG).unwrap_err();
        let (query, _answer) = held(&queries);
        // It would be ten minutes.
        query.wait(Instant::now() + LONG).unwrap_err();
        queries.forget();
        assert!(lock(&queries.0).is_empty());
    }
}
