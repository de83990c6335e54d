//! What a start finds of the queue and the dumpster, one file after the other.

use super::{BAD, Head, Hub, MAX_HEAD, Pending, path};
use crate::io::DiskAction;
use ccr_contract::event::EventKind;

impl Hub {
    pub(super) fn read_next(&mut self) {
        match self.unread.pop() {
            None => {
                self.queue.restored();
                self.queue.forgive(self.clock_ms(), self.config.settings.queue_age_ms);
                self.found.clear();
                self.ready = true;
                // Before anything is accepted: a ccrd that knows no schema does not start here, and would see no message.
                self.save(Pending::Quiet);
            }
            Some((name, dumpster)) => {
                let file = path(&name, dumpster);
                let what = Pending::Head { name, dumpster };
                let len = MAX_HEAD;
                self.ctx.disk(what, DiskAction::Read { file, offset: 0, len });
            }
        }
    }

    /// A file of the queue or the dumpster, as a start finds it; one that was set aside is looked at again.
    pub(super) fn on_head(&mut self, name: &str, dumpster: bool, bytes: &[u8]) {
        let id = name.strip_suffix(BAD).unwrap_or(name);
        let twice = id != name && self.found.contains(&(id.to_owned(), dumpster));
        match Head::decode(bytes) {
            Ok(_) if twice => self.keep_aside(name, dumpster, "there is another file of this name"),
            Ok(head) if head.id == id => {
                if id != name {
                    let (from, to) = (path(name, dumpster), path(id, dumpster));
                    self.ctx.disk(Pending::Quiet, DiskAction::Rename { from, to });
                    self.ctx.event(EventKind::HubTakenAgain { id: id.to_owned() });
                }
                self.queue.restore(head, dumpster);
            }
            Ok(head) => {
                let why = format!("it holds the message {}", head.id.escape_debug());
                self.keep_aside(name, dumpster, &why);
            }
            Err(why) => self.keep_aside(name, dumpster, &why.to_string()),
        }
    }

    /// A file that is not understood stays, under a name that says so.
    pub(super) fn keep_aside(&mut self, name: &str, dumpster: bool, why: &str) {
        self.set_aside += 1;
        self.report_bad(name, why);
        let bad = format!("{name}{BAD}");
        if !name.ends_with(BAD) && !self.found.contains(&(bad.clone(), dumpster)) {
            let (from, to) = (path(name, dumpster), path(&bad, dumpster));
            self.ctx.disk(Pending::Quiet, DiskAction::Rename { from, to });
        }
    }

    pub(super) fn report_bad(&mut self, name: &str, why: &str) {
        let (id, why) = (name.to_owned(), why.to_owned());
        self.ctx.event(EventKind::HubSetAside { id, why });
    }
}
