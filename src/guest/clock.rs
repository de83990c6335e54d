//! A machine's clock: told and set by a program in it (`runtime/clock`) at the other end of a virtio-serial port.

use crate::error::{Error, IoContext, Problem, Result};
use crate::wait::Deadline;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// A longer line is no answer.
const LONGEST: usize = 256;

/// What a machine's clock says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reading {
    /// Time since 1970.
    pub time: Duration,
    /// The identifier that the kernel made at boot.
    pub boot_id: String,
}

/// The clock of one machine.
#[derive(Debug)]
pub struct Clock {
    node: String,
    stream: UnixStream,
    /// What came behind the last line.
    rest: Vec<u8>,
    asked: u32,
}

impl Clock {
    /// The clock of machine `node` behind the socket that its hypervisor listens on. The machine need not run yet.
    ///
    /// # Errors
    /// [`Error::Operation`] where no program listens.
    pub fn connect(node: &str, socket: &Path) -> Result<Self> {
        Ok(Self {
            node: node.to_owned(),
            stream: UnixStream::connect(socket).tried("reach the machine's clock", node)?,
            rest: Vec::new(),
            asked: 0,
        })
    }

    /// What it says.
    pub fn look(&mut self, deadline: Deadline) -> Result<Reading> {
        self.ask("look", "", deadline)
    }

    /// Sets it; what it says then.
    pub fn set(&mut self, since_1970: Duration, deadline: Deadline) -> Result<Reading> {
        let time = format!(" {} {}", since_1970.as_secs(), since_1970.subsec_nanos());
        self.ask("set", &time, deadline)
    }

    fn ask(&mut self, verb: &str, arguments: &str, deadline: Deadline) -> Result<Reading> {
        self.asked += 1;
        // Whoever asked before us may have left half a line, and may still be answered.
        let token = format!("{}-{}", std::process::id(), self.asked);
        self.stream
            .write_all(format!("\n{verb} {token}{arguments}\n").as_bytes())
            .tried("ask the machine's clock", &self.node)?;
        loop {
            let line = self.line(deadline)?;
            if let Some((_, told)) = line.split_once(' ').filter(|(t, _)| *t == token) {
                return parse(told).ok_or_else(|| self.failed(format!("no time: {}", line.escape_debug())));
            }
        }
    }

    fn line(&mut self, deadline: Deadline) -> Result<String> {
        loop {
            if let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let behind = self.rest.split_off(end + 1);
                let line = std::mem::replace(&mut self.rest, behind);
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if self.rest.len() > LONGEST {
                return Err(self.failed(format!("{} bytes and no end of the line", self.rest.len())));
            }
            let left = deadline.left();
            if left.is_zero() {
                return Err(self.failed("no answer".to_owned()));
            }
            let what = "hear the machine's clock";
            self.stream.set_read_timeout(Some(left)).tried(what, &self.node)?;
            let mut part = [0; LONGEST];
            match self.stream.read(&mut part) {
                Ok(0) => return Err(self.failed("the machine is gone".to_owned())),
                Ok(n) => self.rest.extend_from_slice(&part[..n]),
                Err(e)
                    if matches!(
                        e.kind(),
                        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::Interrupted
                    ) => {}
                Err(e) => return Err(e).tried(what, &self.node),
            }
        }
    }

    fn failed(&self, seen: String) -> Error {
        let problem = Problem::new("ask the machine's clock").on(&self.node).observed(seen);
        Error::Operation(problem.remedy("see whether it runs in the machine: systemctl status failoverlab-clock"))
    }
}

fn parse(told: &str) -> Option<Reading> {
    let words: Vec<&str> = told.split(' ').collect();
    let [seconds, nanos, boot_id] = words[..] else {
        return None;
    };
    let nanos: u32 = nanos.parse().ok().filter(|n| *n < 1_000_000_000)?;
    let id = boot_id.len() == 36 && boot_id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    id.then_some(Reading {
        time: Duration::new(seconds.parse().ok()?, nanos),
        boot_id: boot_id.to_owned(),
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;

    pub(crate) const BOOT_ID: &str = "01234567-89ab-cdef-0123-456789abcdef";

    /// A machine's clock at `socket`, as long as the test runs: `answer` gets each request's words and says what is sent back.
    pub(crate) fn serve(socket: &Path, mut answer: impl FnMut(&[&str]) -> String + Send + 'static) {
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            // One asker at a time, as in the machine.
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let lines = std::io::BufReader::new(&stream).lines().map_while(Result::ok);
                for line in lines.filter(|l| !l.is_empty()) {
                    let words: Vec<&str> = line.split(' ').collect();
                    let _ = (&stream).write_all(answer(&words).as_bytes());
                }
            }
        });
    }

    fn asked(answer: impl FnMut(&[&str]) -> String + Send + 'static) -> Result<Reading> {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("a.t");
        serve(&socket, answer);
        Clock::connect("a", &socket)?.look(Deadline::after(Duration::from_millis(300)))
    }

    #[test]
    fn it_is_told_and_set() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("a.t");
        serve(&socket, |words| match words {
            ["look", token] => format!("{token} 17 000000005 {BOOT_ID}\n"),
            ["set", token, s, n] => format!("{token} {s} {n} {BOOT_ID}\n"),
            other => panic!("{other:?}"),
        });
        let soon = Deadline::after(Duration::from_secs(10));
        let mut clock = Clock::connect("a", &socket).unwrap();
        let then = clock.look(soon).unwrap();
        assert_eq!((then.time, then.boot_id.as_str()), (Duration::new(17, 5), BOOT_ID));
        assert_eq!(
            clock.set(Duration::new(18, 7), soon).unwrap().time,
            Duration::new(18, 7)
        );
    }

    #[test]
    fn an_answer_to_an_earlier_asker_is_left_aside() {
        let answer = |words: &[&str]| format!("9-9 1 1 {BOOT_ID}\nnoise\n{} 17 5 {BOOT_ID}\n", words[1]);
        assert_eq!(asked(answer).unwrap().time, Duration::new(17, 5));
    }

    #[test]
    fn garbage_silence_and_a_machine_that_is_gone_are_errors() {
        let bad = |told: &'static str| asked(move |w| told.replace('T', w[1])).unwrap_err().to_string();
        for told in [
            "T 1\n",
            "T 1 x b\n",
            "T 1 1000000000 b\n",
            "T -1 1 b\n",
            "T 1 1 short\n",
            "T 1 1 b b\n",
            "T \u{0}\n",
        ] {
            let e = bad(told);
            assert!(e.contains("no time") && e.contains('a'), "{told}: {e}");
        }
        assert!(bad("").contains("no answer"));
        assert!(bad("T 1").contains("no answer"));
        let e = asked(|_| "x".repeat(1 << 20)).unwrap_err().to_string();
        assert!(e.contains("no end of the line"), "{e}");
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let mut gone = Clock {
            node: "a".into(),
            stream: ours,
            rest: Vec::new(),
            asked: 0,
        };
        assert_eq!(
            gone.look(Deadline::after(Duration::from_secs(5)))
                .unwrap_err()
                .exit_code(),
            5
        );
        let e = Clock::connect("a", Path::new("/nonexistent/a.t")).unwrap_err();
        assert!(e.to_string().contains("reach the machine's clock"), "{e}");
    }
}
