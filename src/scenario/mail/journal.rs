//! `ops.jsonl` on disk: an operation is in it before its first byte leaves.

use super::conversation::Ended;
use crate::error::{IoContext, Result};
use crate::event::Journal;
use crate::lock::lock;
use crate::private;
use crate::runs;
use crate::verify::{OpKind, OpLine};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// The client's journal of one run. Cheap to clone; safe from any thread.
#[derive(Debug, Clone)]
pub struct OpJournal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    clock: Journal,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    file: fs_err::File,
    lines: Vec<OpLine>,
    next: u64,
}

impl OpJournal {
    /// Begins the file, readable by its owner only. Its times are those of `clock`.
    pub fn create(path: &Path, clock: Journal) -> Result<Self> {
        let mut file = private::create_new(path).tried("begin the client's journal", path.display())?;
        writeln!(file, "{}", runs::head("ops")).tried("begin the client's journal", path.display())?;
        Ok(Self(Arc::new(Inner {
            clock,
            state: Mutex::new(State {
                file: fs_err::File::from_parts(file, path),
                lines: Vec::new(),
                next: 0,
            }),
        })))
    }

    /// Writes that an operation begins, synced to the disk, and returns its number. `key` makes its key of the number.
    pub fn invoke(
        &self,
        client: &str,
        kind: OpKind,
        mailbox: &str,
        key: impl FnOnce(u64) -> String,
    ) -> Result<(u64, String)> {
        let mut state = lock(&self.0.state);
        let op = state.next;
        let key = key(op);
        let line = OpLine::Invoke {
            op,
            client: client.to_owned(),
            kind,
            key: key.clone(),
            mailbox: mailbox.to_owned(),
            t_us: self.0.clock.now_us(),
        };
        state.write(line)?;
        state
            .file
            .sync_data()
            .tried("sync the client's journal", state.file.path().display())?;
        state.next += 1;
        Ok((op, key))
    }

    /// Writes how an operation ended.
    pub fn complete(&self, op: u64, ended: &Ended) -> Result<()> {
        let mut state = lock(&self.0.state);
        let line = OpLine::Complete {
            op,
            outcome: ended.outcome,
            by: ended.by.clone(),
            seen: ended.seen.clone(),
            keys: ended.keys.clone(),
            damaged: ended.damaged.clone(),
            t_us: self.0.clock.now_us(),
        };
        state.write(line)
    }

    /// Everything written so far.
    pub fn lines(&self) -> Vec<OpLine> {
        lock(&self.0.state).lines.clone()
    }
}

impl State {
    fn write(&mut self, line: OpLine) -> Result<()> {
        let mut text = serde_json::to_vec(&line).expect("a line is plain data");
        text.push(b'\n');
        self.file
            .write_all(&text)
            .tried("write the client's journal", self.file.path().display())?;
        self.lines.push(line);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::Outcome;

    #[test]
    fn what_is_on_disk_is_what_is_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ops.jsonl");
        let journal = OpJournal::create(&path, Journal::in_memory()).unwrap();
        let (op, key) = journal
            .invoke("m1", OpKind::Submit, "m1", |op| super::super::key("r", "m1", op))
            .unwrap();
        assert_eq!(key, "0.m1.r@fl.test");
        journal.complete(op, &Ended::plain(Outcome::Ok, "250 queued")).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let lines: Vec<OpLine> = text.lines().skip(1).map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(text.lines().next(), Some(runs::head("ops").to_string().as_str()));
        assert_eq!(lines, journal.lines());
        assert_eq!(lines.len(), 2);
        assert!(
            OpJournal::create(&path, Journal::in_memory()).is_err(),
            "a journal is never overwritten"
        );
    }
}
