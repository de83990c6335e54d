//! Orders: given once, and waited for where the runtime only takes note of them.

use super::Engine;
use crate::deploy::{Answer, Done};
use crate::error::{Error, Problem, Result};
use crate::lab::channel;
use crate::lab::protocol::{Look, active, any_member, looks};
use crate::lab::record::LabRecord;
use crate::probe;
use crate::verify::Merged;
use crate::wait::{Deadline, Probe, wait_until};
use serde_json::{Value, json};

impl Engine {
    pub(super) fn operate(&self, word: &str, args: &[String], node: Option<&str>) -> Result<Answer> {
        let record = self.record()?;
        let status;
        let node = match node {
            Some(n) => n,
            None => {
                status = self.status(Look::now())?;
                active(&status.machines)
                    .or_else(|| any_member(&status.machines))
                    .ok_or_else(|| {
                        Error::Operation(Problem::new("give the order").on(word).observed("no member answers"))
                    })?
            }
        };
        let spec = channel::pack(&record)?.and_then(|p| p.runtime.contract.orders.get(word).cloned());
        let Some(done) = spec.and_then(|s| s.done) else {
            return self.channels.operate(&record, node, word, args);
        };
        let before = self.state_of_service()?;
        let answer = self.channels.operate(&record, node, word, args)?;
        if answer.done {
            self.wait_done(&record, &done, &before)?;
        }
        Ok(answer)
    }

    /// What the members say of the service together, as the expressions of orders see it.
    fn state_of_service(&self) -> Result<Value> {
        let status = self.status(Look::now())?;
        let looks = looks(&status.machines);
        let merged = Merged::of(&looks);
        let service = merged.service();
        let said = merged.by.map(|by| service.and_then(|s| s.epoch).unwrap_or(by.epoch));
        Ok(json!({
            "state": service.map(|s| s.state),
            "active": service.and_then(|s| s.active.as_deref()),
            "epoch": said,
            "agreed": merged.doubts.is_empty(),
        }))
    }

    /// Waits until an order that was only asked for is done.
    fn wait_done(&self, record: &LabRecord, done: &Done, before: &Value) -> Result<()> {
        let deadline = Deadline::scaled(done.within.duration(), record.desired.slowness);
        wait_until("see the order done", deadline, || {
            let now = self.state_of_service()?;
            let names = json!({"service": now, "before": before});
            Ok(match probe::holds(&done.expression, &names) {
                Ok(true) => Probe::Ready(()),
                Ok(false) => Probe::NotYet(format!("`{}` does not hold: {now}", done.expression)),
                Err(why) => Probe::NotYet(format!("`{}`: {why}", done.expression)),
            })
        })
    }
}
