//! The journal's file: whole lines only, whatever ends in the middle of one.

use super::{Event, JournalHead};
use crate::error::{IoContext, Result};
use crate::{files, private};
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Where lines go: a file, or in tests something that fails like one.
pub(super) trait Sink: Write + Send {
    /// Cuts what was written to this length; what is written next stands there.
    fn cut(&mut self, len: u64) -> std::io::Result<()>;
}

impl Sink for fs_err::File {
    fn cut(&mut self, len: u64) -> std::io::Result<()> {
        self.set_len(len)
    }
}

/// A file that lines are added to.
pub(super) struct Lines {
    sink: Box<dyn Sink>,
    /// Length of its whole lines.
    whole: u64,
    /// Half a line may stand behind them.
    torn: bool,
}

impl Lines {
    pub(super) fn new(sink: impl Sink + 'static, whole: u64) -> Self {
        Self {
            sink: Box::new(sink),
            whole,
            torn: false,
        }
    }

    /// Adds a line, all of it or nothing: what a failure leaves of it is cut off before the next one is written.
    pub(super) fn add(&mut self, line: &[u8]) -> std::io::Result<()> {
        if self.torn {
            self.sink.cut(self.whole)?;
        }
        self.torn = true;
        self.sink.write_all(line)?;
        self.torn = false;
        self.whole += line.len() as u64;
        Ok(())
    }
}

/// What an earlier supervisor left.
#[derive(Debug, Default)]
pub(super) struct Left {
    /// Its head; none where there is no journal yet.
    pub(super) head: Option<JournalHead>,
    /// The number of the next event.
    pub(super) next: u64,
    /// Lines that were torn: they are cut out.
    pub(super) torn: u64,
}

/// Reads the journal at `path` and opens it for more lines. A torn line is cut out, wherever it stands. What is no journal at all is put
/// aside as it is.
pub(super) fn open(path: &Path) -> Result<(Left, Lines)> {
    let bytes = match fs_err::read(path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(e).tried("read the journal", path.display()),
    };
    let (mut left, mended) = read(&bytes);
    if left.head.is_none() && bytes.contains(&b'\n') {
        let aside = files::aside(path);
        fs_err::rename(path, aside).tried("put aside what is no journal", path.display())?;
        left = Left::default();
    } else if left.torn > 0 && mended.len() < whole(&bytes) {
        // One that cannot be written anew still takes more lines, and whoever reads it passes over what is torn.
        let _ = private::replace(path, &mended);
    }
    let mut file = fs_err::OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .tried("open the journal", path.display())?;
    let now = fs_err::read(path).tried("read the journal", path.display())?;
    let len = if left.head.is_some() { whole(&now) as u64 } else { 0 };
    file.cut(len).tried("mend the journal", path.display())?;
    Ok((left, Lines::new(file, len)))
}

/// Length of the whole lines.
fn whole(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1)
}

/// What the text says, and its whole lines.
fn read(bytes: &[u8]) -> (Left, Vec<u8>) {
    let mut left = Left::default();
    let mut good = Vec::with_capacity(bytes.len());
    let mut lines = bytes.split_inclusive(|&b| b == b'\n');
    if let Some(first) = lines.next().filter(|l| l.ends_with(b"\n")) {
        left.head = serde_json::from_slice(first).ok();
        good.extend_from_slice(first);
    }
    for line in lines {
        let event = line.ends_with(b"\n").then(|| event(line)).flatten();
        if event.as_ref().is_none_or(|(_, whole)| !whole) {
            left.torn += 1;
        }
        if let Some((e, _)) = event {
            left.next = left.next.max(e.seq + 1);
            good.extend(serde_json::to_vec(&e).expect("an event is plain data"));
            good.push(b'\n');
        }
    }
    (left, good)
}

/// The event in a line, and whether that is all of it: a whole one may stand behind half of another.
fn event(line: &[u8]) -> Option<(Event, bool)> {
    if let Ok(e) = serde_json::from_slice(line) {
        return Some((e, true));
    }
    let text = String::from_utf8_lossy(line);
    let at = text.rfind("{\"seq\":")?;
    Some((serde_json::from_str(&text[at..]).ok()?, false))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    /// A disk that takes this many bytes.
    #[derive(Clone, Default)]
    pub(in super::super) struct Disk(pub(in super::super) Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let (text, room) = &mut *self.0.lock().unwrap();
            let n = bytes.len().min(room.saturating_sub(text.len()));
            text.extend_from_slice(&bytes[..n]);
            if n == 0 {
                return Err(ErrorKind::StorageFull.into());
            }
            Ok(n)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl Sink for Disk {
        fn cut(&mut self, len: u64) -> std::io::Result<()> {
            self.0.lock().unwrap().0.truncate(len as usize);
            Ok(())
        }
    }

    #[test]
    fn half_a_line_is_cut_off_before_the_next() {
        let disk = Disk::default();
        let mut lines = Lines::new(disk.clone(), 0);
        disk.0.lock().unwrap().1 = 8;
        lines.add(b"one\n").unwrap();
        lines.add(b"second\n").unwrap_err();
        assert_eq!(disk.0.lock().unwrap().0, b"one\nseco");
        lines.add(b"third\n").unwrap_err();
        disk.0.lock().unwrap().1 = 100;
        lines.add(b"fourth\n").unwrap();
        assert_eq!(disk.0.lock().unwrap().0, b"one\nfourth\n");
    }

    #[test]
    fn what_is_no_journal_is_put_aside_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("events.jsonl");
        for (n, text) in [(1, "no journal\nat all\n"), (2, "\n")] {
            std::fs::write(&path, text).unwrap();
            let (left, _) = open(&path).unwrap();
            assert!(left.head.is_none() && left.next == 0);
            assert_eq!(std::fs::read(&path).unwrap(), b"");
            let kept: Vec<_> = std::fs::read_dir(dir.path())
                .unwrap()
                .map(|e| e.unwrap().path())
                .filter(|p| *p != path)
                .collect();
            assert_eq!(kept.len(), n, "{kept:?}");
            assert!(kept.iter().any(|p| std::fs::read_to_string(p).unwrap() == text));
        }
        // Whoever began it was killed in the middle of the head: there was nothing yet.
        std::fs::write(&path, "{\"schema\":1,\"wa").unwrap();
        let (left, _) = open(&path).unwrap();
        assert!(left.head.is_none());
        assert_eq!(std::fs::read(&path).unwrap(), b"");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 3);
    }
}
