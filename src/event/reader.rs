//! Reads a journal's file from a number on, and goes on as it grows. What is missing is told, never left out silently.

use super::Event;
use crate::error::{IoContext, Result};
use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Read at once, in bytes; a longer line is read whole.
const CHUNK: usize = 64 << 10;

/// What a reader finds.
#[derive(Debug, Clone, PartialEq)]
pub enum Read {
    /// The next event.
    Event(Box<Event>),
    /// Events that the file does not have, or not so that they can be understood: the first and the last number.
    Gap {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
}

/// A place in a journal's file.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: std::fs::File,
    /// Where the next line begins. Half a line is read again when it is whole: its writer may have to begin it anew.
    offset: u64,
    /// The number of the next event.
    next: u64,
    ready: VecDeque<Read>,
}

impl Reader {
    /// Reads the file at `path` from the event `from` on.
    pub fn open(path: &Path, from: u64) -> Result<Self> {
        Ok(Self {
            path: path.to_owned(),
            file: std::fs::File::open(path).tried("read the journal", path.display())?,
            offset: 0,
            next: from,
            ready: VecDeque::new(),
        })
    }

    /// The next event or gap; none where there is nothing more yet.
    pub fn read(&mut self) -> Result<Option<Read>> {
        loop {
            if let Some(found) = self.ready.pop_front() {
                return Ok(Some(found));
            }
            if !self.fill().tried("read the journal", self.path.display())? {
                return Ok(None);
            }
        }
    }

    /// Takes more whole lines in; whether there were any.
    fn fill(&mut self) -> std::io::Result<bool> {
        let mut size = CHUNK;
        loop {
            let mut chunk = vec![0; size];
            let got = read_at_most(&self.file, &mut chunk, self.offset)?;
            if let Some(end) = chunk[..got].iter().rposition(|b| *b == b'\n') {
                self.offset += end as u64 + 1;
                for line in chunk[..end].split(|b| *b == b'\n') {
                    self.take(line);
                }
                return Ok(true);
            }
            if got < size {
                return Ok(false);
            }
            size *= 2;
        }
    }

    /// The head is no event; a line that is damaged is none either, and is missed by its number.
    fn take(&mut self, line: &[u8]) {
        let Ok(event) = serde_json::from_slice::<Event>(line) else {
            return;
        };
        if event.seq < self.next {
            return;
        }
        if event.seq > self.next {
            self.ready.push_back(Read::Gap {
                from: self.next,
                to: event.seq - 1,
            });
        }
        self.next = event.seq + 1;
        self.ready.push_back(Read::Event(Box::new(event)));
    }
}

fn read_at_most(file: &std::fs::File, into: &mut [u8], offset: u64) -> std::io::Result<usize> {
    let mut got = 0;
    while got < into.len() {
        match file.read_at(&mut into[got..], offset + got as u64) {
            Ok(0) => break,
            Ok(n) => got += n,
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(got)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Draft, Journal, Source};
    use std::io::Write;

    fn numbers(reader: &mut Reader) -> Vec<String> {
        let mut seen = Vec::new();
        while let Some(found) = reader.read().unwrap() {
            seen.push(match found {
                Read::Event(e) => e.seq.to_string(),
                Read::Gap { from, to } => format!("{from}-{to} missing"),
            });
        }
        seen
    }

    #[test]
    fn a_journal_is_read_from_any_number_and_then_as_it_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let journal = Journal::open(&path, 7).unwrap();
        let tell = |n: usize| {
            for _ in 0..n {
                journal.emit(Draft::new(Source::Tool, "x"));
            }
        };
        // More than a queue of any length would have held.
        tell(5000);
        let mut all = journal.reader(Some(0)).unwrap();
        let mut some = journal.reader(Some(4998)).unwrap();
        let mut new = journal.reader(None).unwrap();
        assert_eq!(numbers(&mut all).len(), 5000);
        assert_eq!(numbers(&mut some), ["4998", "4999"]);
        assert!(numbers(&mut new).is_empty());
        tell(2);
        for reader in [&mut all, &mut some, &mut new] {
            assert_eq!(numbers(reader), ["5000", "5001"]);
        }
    }

    #[test]
    fn what_is_missing_or_damaged_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let journal = Journal::open(&path, 7).unwrap();
        for n in 0..8 {
            journal.emit(Draft::new(Source::Tool, format!("e{n}")));
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let kept: Vec<String> = text
            .lines()
            .filter(|l| !l.contains("\"e2\"") && !l.contains("\"e3\""))
            .map(|l| l.replace("\"kind\":\"e6\"", "\"kind\":\"e6"))
            .collect();
        std::fs::write(&path, kept.join("\n") + "\n").unwrap();
        let mut reader = Reader::open(&path, 0).unwrap();
        assert_eq!(
            numbers(&mut reader),
            ["0", "1", "2-3 missing", "4", "5", "6-6 missing", "7"]
        );
        // Who begins behind the gap misses nothing; who begins in it misses the rest.
        assert_eq!(numbers(&mut Reader::open(&path, 4).unwrap())[0], "4");
        assert_eq!(numbers(&mut Reader::open(&path, 3).unwrap())[0], "3-3 missing");
    }

    #[test]
    fn half_a_line_is_read_when_it_is_whole_or_was_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        let journal = Journal::open(&path, 7).unwrap();
        journal.emit(Draft::new(Source::Tool, "a"));
        let mut reader = journal.reader(Some(0)).unwrap();
        assert_eq!(numbers(&mut reader), ["0"]);
        let whole = path.metadata().unwrap().len();
        let mut file = std::fs::OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"seq\":1,\"t_").unwrap();
        assert!(numbers(&mut reader).is_empty());
        file.set_len(whole).unwrap();
        journal.emit(Draft::new(Source::Tool, "b"));
        assert_eq!(numbers(&mut reader), ["1"]);
    }
}
