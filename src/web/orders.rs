//! What a page orders: faults, heals, orders of the runtime. Each is done once, whatever the network made of its answer.

use super::shows::{Live, Shows};
use crate::error::{Error, Problem, Result};
use crate::fault::Words;
use crate::files::Home;
use crate::lab::client::Client;
use crate::lab::protocol::{LabStatus, Look, Verb};
use crate::lock::lock;
use crate::scenario::resolve_fault;
use crate::verify::{FaultRecord, Observation};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::OnceCell;

/// Answers that are kept, for orders that are sent again.
const ANSWERS: usize = 1_000;
/// Orders that a page lists.
const LISTED: usize = 100;
/// The longest time that a fault may be set for.
const LONGEST: Duration = Duration::from_secs(3600);

/// What a page sends.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// Chosen by the page: the same order has the same.
    id: String,
    /// The lab.
    lab: String,
    /// What to do.
    order: What,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum What {
    Fault {
        kind: String,
        on: Option<String>,
        #[serde(default)]
        parameters: Vec<String>,
        /// How long it lasts, in milliseconds; until it is healed where absent.
        for_ms: Option<u64>,
    },
    Heal {
        /// Its number; all where absent.
        id: Option<u64>,
    },
    Operate {
        word: String,
        #[serde(default)]
        args: Vec<String>,
    },
}

/// An order that was carried out, for the list.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Ordered {
    /// When, in microseconds since the journal began.
    t_us: u64,
    /// The command line that does the same.
    line: String,
    /// What came of it, in words.
    answer: String,
    /// Whether it was done.
    ok: bool,
    /// The fault that it made: it can be healed.
    fault: Option<u64>,
}

/// All orders of this server.
#[derive(Debug, Default)]
pub(super) struct Orders {
    answers: Mutex<BTreeMap<String, Arc<OnceCell<Answer>>>>,
    /// Faults with a length, by lab and number.
    timed: Mutex<Vec<(String, u64)>>,
}

/// What is answered.
pub(super) type Answer = std::result::Result<Value, Arc<Error>>;

impl Orders {
    /// Carries out what `body` says; the same order again has the same answer, and is not done twice.
    ///
    /// # Errors
    /// [`Error::Usage`] where that is no order.
    pub async fn take(self: &Arc<Self>, shows: &Arc<Shows>, body: &[u8]) -> Result<Answer> {
        let order: Order =
            serde_json::from_slice(body).map_err(|e| Error::Usage(Problem::new("understand the order").observed(e)))?;
        if order.id.is_empty() || order.id.len() > 64 {
            let seen = "its id is not 1 to 64 characters long";
            return Err(Error::Usage(Problem::new("understand the order").observed(seen)));
        }
        let cell = {
            let mut answers = lock(&self.answers);
            if answers.len() >= ANSWERS {
                answers.retain(|_, a| !a.initialized());
            }
            answers.entry(order.id.clone()).or_default().clone()
        };
        let answer = cell.get_or_init(|| self.carry_out(shows.clone(), order));
        Ok(answer.await.clone())
    }

    async fn carry_out(self: &Arc<Self>, shows: Arc<Shows>, order: Order) -> Answer {
        let lab = order.lab.clone();
        let length = match &order.order {
            What::Fault { for_ms, .. } => for_ms.map(|ms| Duration::from_millis(ms).min(LONGEST)),
            _ => None,
        };
        let done = tokio::task::spawn_blocking({
            let shows = shows.clone();
            move || perform(&shows, &order)
        });
        let done = done
            .await
            .unwrap_or_else(|e| Err(Error::Bug(Problem::new("carry out the order").observed(e))));
        let answer = done.map_err(Arc::new)?;
        if let (Some(length), Some(id)) = (length, answer["id"].as_u64()) {
            lock(&self.timed).push((lab.clone(), id));
            let orders = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(length).await;
                // One that was healed already is not listed any more.
                let _ = tokio::task::spawn_blocking(move || orders.over(&shows, &lab, id)).await;
            });
        }
        Ok(answer)
    }

    /// The time of a fault is over: it is healed, unless that was done already.
    fn over(&self, shows: &Shows, lab: &str, id: u64) {
        let mut timed = lock(&self.timed);
        let before = timed.len();
        timed.retain(|t| (t.0.as_str(), t.1) != (lab, id));
        if timed.len() < before {
            drop(timed);
            // What cannot be healed stays in force, and every page shows it.
            let _ = act(shows, lab, &What::Heal { id: Some(id) }, " # its time is over");
        }
    }

    /// Heals what was set for a time: nobody else does when this process ends.
    pub fn end(&self, shows: &Shows) {
        let timed = lock(&self.timed).clone();
        for (lab, id) in timed {
            self.over(shows, &lab, id);
        }
    }
}

fn perform(shows: &Shows, order: &Order) -> Result<Value> {
    act(shows, &order.lab, &order.order, "")
}

/// Does it, and lists it with what came of it.
fn act(shows: &Shows, lab: &str, what: &What, why: &str) -> Result<Value> {
    let live = shows.live(lab)?;
    let Shows::Labs { home, .. } = shows else {
        let seen = "this page shows a run";
        return Err(Error::Usage(Problem::new("carry out the order").observed(seen)));
    };
    let t_us = live.now_us();
    let done = ask(home, &live, what);
    let refused = |value: &Value| matches!(what, What::Operate { .. }) && value["done"] == false;
    let (ok, answer) = match &done {
        Ok(value) => (!refused(value), told(what, value)),
        Err(e) => (false, e.to_string()),
    };
    let fault = done.as_ref().ok().filter(|_| matches!(what, What::Fault { .. }));
    let mut ordered = lock(&live.ordered);
    if ordered.len() >= LISTED {
        ordered.remove(0);
    }
    ordered.push(Ordered {
        t_us,
        line: line(lab, what) + why,
        answer,
        ok,
        fault: fault.and_then(|f| f["id"].as_u64()),
    });
    drop(ordered);
    live.tell();
    done
}

fn ask(home: &Home, live: &Live, what: &What) -> Result<Value> {
    let client = || -> Result<Client> {
        Client::find(&home.lab(&live.name))?.ok_or_else(|| {
            Error::Operation(
                Problem::new("reach the lab's supervisor")
                    .on(&live.name)
                    .observed("none runs: the networks are dark")
                    .remedy(format!(
                        "`failoverlab status {}` starts one that adopts the machines",
                        live.name
                    )),
            )
        })
    };
    let verb = match what {
        What::Fault {
            kind, on, parameters, ..
        } => {
            let words = Words::from_arguments(kind, on.clone(), parameters)?;
            let spec = lock(&live.view).lab.clone();
            let look = || {
                Ok(Observation::from(
                    client()?.get::<LabStatus>(Verb::Status(Some(Look::now())))?,
                ))
            };
            Verb::Fault(Box::new(resolve_fault(&words, &spec, look)?))
        }
        What::Heal { id } => Verb::Heal { id: *id },
        What::Operate { word, args } => Verb::Operate {
            word: word.clone(),
            args: args.clone(),
            node: None,
        },
    };
    client()?.ask(verb, |_| {})
}

/// What came of it, in words.
fn told(what: &What, value: &Value) -> String {
    match what {
        What::Fault { .. } => match serde_json::from_value::<FaultRecord>(value.clone()) {
            Ok(f) => format!("fault {} is in force", f.id),
            Err(_) => "done".to_owned(),
        },
        What::Heal { .. } => match value.as_array().map(Vec::len) {
            Some(0) => "nothing was in force".to_owned(),
            Some(n) => format!("{n} healed"),
            None => "done".to_owned(),
        },
        What::Operate { .. } => {
            let word = if value["done"] == false { "refused" } else { "done" };
            let seen = value["seen"].as_str().filter(|s| !s.is_empty());
            seen.map_or(word.to_owned(), |s| format!("{word}: {s}"))
        }
    }
}

/// The command line that does the same.
fn line(lab: &str, what: &What) -> String {
    let mut words: Vec<&str> = vec!["failoverlab"];
    let number;
    match what {
        What::Fault {
            kind, on, parameters, ..
        } => {
            words.extend(["fault", lab, kind]);
            if let Some(on) = on {
                words.extend(["--on", on]);
            }
            words.extend(parameters.iter().map(String::as_str));
        }
        What::Heal { id } => {
            words.extend(["heal", lab]);
            if let Some(id) = id {
                number = id.to_string();
                words.extend(["--id", &number]);
            }
        }
        What::Operate { word, args } => {
            words.extend(["operate", lab, word]);
            words.extend(args.iter().map(String::as_str));
        }
    }
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

/// A word as a shell takes it: for a person to copy, nothing runs it here.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,:/@%".contains(c);
    match !word.is_empty() && word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}

/// An error as a page shows it.
pub(super) fn error(e: &Error) -> Value {
    let problem = e
        .problem()
        .map(|p| serde_json::to_value(p).expect("a problem is plain data"));
    json!({"error": problem.unwrap_or_else(|| json!({"what": e.to_string()}))})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_told_as_the_command_that_does_it() {
        let fault = What::Fault {
            kind: "delay".into(),
            on: Some("node1".into()),
            parameters: vec!["network=private".into(), "delay=200 ms".into(), "x=';rm -rf '".into()],
            for_ms: None,
        };
        let line = |what: &What| super::line("ccr@1", what);
        assert_eq!(
            line(&fault),
            r"failoverlab fault ccr@1 delay --on node1 network=private 'delay=200 ms' 'x='\'';rm -rf '\'''"
        );
        assert_eq!(line(&What::Heal { id: Some(3) }), "failoverlab heal ccr@1 --id 3");
    }
}
