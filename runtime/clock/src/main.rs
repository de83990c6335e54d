//! Tells and sets the clock of the machine it runs in, for whoever is at the other end of a virtio-serial port.
//!
//! A machine that is restored has the time of its checkpoint, and every program that it has to begin is translated anew by an
//! emulating host. This one runs already, and does what is needed with a few system calls: a fourth of what the guest agent takes for
//! the same, which begins `hwclock` and waits for it.
//!
//! A request is a line, `look TOKEN` or `set TOKEN SECONDS NANOSECONDS`, the time since 1970. The answer is a line,
//! `TOKEN SECONDS NANOSECONDS BOOT-ID`: the time when it was written, and the identifier that the kernel made at boot. The token is the
//! asker's: it tells an answer from that of an earlier asker. What is no request is not answered.
//!
//! No crate but `std`: build.rs hands this file to the compiler by itself, and the tool carries the result into images.

use std::fs::{File, OpenOptions, read_dir, read_to_string};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Name of the port.
const PORT: &str = "org.failoverlab.clock";
/// A longer line is no request.
const LONGEST: usize = 64;

fn main() -> ExitCode {
    match serve() {
        Ok(never) => match never {},
        Err(e) => {
            eprintln!("lab-clock: {e}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<std::convert::Infallible> {
    let boot_id = read_to_string("/proc/sys/kernel/random/boot_id")?;
    let mut port = OpenOptions::new().read(true).write(true).open(find_port()?)?;
    let connected = Connected::watch(&port)?;
    let mut lines = Lines::default();
    loop {
        let mut part = [0; LONGEST];
        let read = port.read(&mut part)?;
        if read == 0 {
            // Nobody is at the other end.
            lines = Lines::default();
            connected.wait()?;
        }
        for line in lines.take(&part[..read]) {
            if let Some(answer) = answer(&line, boot_id.trim_end()) {
                // Whoever asked may have gone.
                let _ = port.write_all(answer.as_bytes());
            }
        }
    }
}

/// The device whose name the host has given.
fn find_port() -> io::Result<PathBuf> {
    for entry in read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        if read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim_end() == PORT) {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    Err(io::Error::new(
        io::ErrorKind::NotFound,
        format!("no port is called {PORT}"),
    ))
}

/// Parts put together to lines.
#[derive(Debug, Default)]
struct Lines {
    open: Vec<u8>,
}

impl Lines {
    /// Lines that are complete with this part. One that is too long is dropped up to its end.
    fn take(&mut self, part: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for &byte in part {
            if byte != b'\n' {
                // One byte more than allowed says that it was too long.
                if self.open.len() <= LONGEST {
                    self.open.push(byte);
                }
                continue;
            }
            let line = std::mem::take(&mut self.open);
            if line.len() <= LONGEST {
                lines.extend(String::from_utf8(line));
            }
        }
        lines
    }
}

/// A request.
#[derive(Debug, PartialEq, Eq)]
struct Request<'a> {
    token: &'a str,
    set: Option<Duration>,
}

fn parse(line: &str) -> Option<Request<'_>> {
    let mut words = line.split(' ');
    let (verb, token) = (words.next()?, words.next()?);
    let set = match verb {
        "look" => None,
        "set" => {
            let (seconds, nanos): (u32, u32) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            (nanos < 1_000_000_000).then_some(())?;
            Some(Duration::new(seconds.into(), nanos))
        }
        _ => return None,
    };
    let request = Request { token, set };
    (!token.is_empty() && words.next().is_none()).then_some(request)
}

fn answer(line: &str, boot_id: &str) -> Option<String> {
    let Request { token, set } = parse(line)?;
    if let Some(time) = set {
        set_clock(time).ok()?;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Some(format!(
        "{token} {} {:09} {boot_id}\n",
        now.as_secs(),
        now.subsec_nanos()
    ))
}

/// Wakes up when somebody comes or goes at the other end of the port: a read there ends at once as long as nobody is.
struct Connected(OwnedFd);

#[repr(C)]
struct Timespec {
    seconds: i64,
    nanos: i64,
}

/// As the kernel has it on x86-64: without padding.
#[repr(C, packed)]
struct EpollEvent {
    events: u32,
    data: u64,
}

const CLOCK_REALTIME: i32 = 0;
const EPOLL_CLOEXEC: i32 = 0o2_000_000;
const EPOLL_CTL_ADD: i32 = 1;
const EPOLLIN: u32 = 1;
const EPOLLET: u32 = 1 << 31;

// SAFETY: as libc declares them, on the one target that this is built for.
#[expect(unsafe_code, reason = "std has no clock to set and no epoll")]
unsafe extern "C" {
    fn clock_settime(clock: i32, time: *const Timespec) -> i32;
    fn epoll_create1(flags: i32) -> i32;
    fn epoll_ctl(epoll: i32, operation: i32, fd: i32, event: *mut EpollEvent) -> i32;
    fn epoll_wait(epoll: i32, events: *mut EpollEvent, max: i32, timeout_ms: i32) -> i32;
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

#[expect(unsafe_code, reason = "std has no clock to set")]
fn set_clock(time: Duration) -> io::Result<()> {
    let time = Timespec {
        seconds: time.as_secs() as i64,
        nanos: time.subsec_nanos().into(),
    };
    // SAFETY: the pointer is valid for the call.
    checked(unsafe { clock_settime(CLOCK_REALTIME, &raw const time) }).map(drop)
}

impl Connected {
    /// Edge-triggered: a port without anybody at the other end is ready all the time.
    #[expect(unsafe_code, reason = "std has no epoll")]
    fn watch(port: &File) -> io::Result<Self> {
        let mut event = EpollEvent {
            events: EPOLLIN | EPOLLET,
            data: 0,
        };
        // SAFETY: the descriptor is new and nobody else's; the pointer is valid for the call.
        unsafe {
            let epoll = OwnedFd::from_raw_fd(checked(epoll_create1(EPOLL_CLOEXEC))?);
            checked(epoll_ctl(
                epoll.as_raw_fd(),
                EPOLL_CTL_ADD,
                port.as_raw_fd(),
                &raw mut event,
            ))?;
            Ok(Self(epoll))
        }
    }

    #[expect(unsafe_code, reason = "std has no epoll")]
    fn wait(&self) -> io::Result<()> {
        let mut event = EpollEvent { events: 0, data: 0 };
        // SAFETY: there is room for the one event that is asked for.
        match checked(unsafe { epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, -1) }) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_come_in_any_parts() {
        let mut lines = Lines::default();
        assert_eq!(lines.take(b"loo"), Vec::<String>::new());
        assert_eq!(lines.take(b"k 1\nlook 2\nl"), ["look 1", "look 2"]);
        assert_eq!(lines.take(b"ook 3\n"), ["look 3"]);
    }

    #[test]
    fn what_is_too_long_or_no_text_is_dropped_and_nothing_else() {
        let mut lines = Lines::default();
        let longest = "x".repeat(LONGEST);
        assert_eq!(lines.take(format!("{longest}x\n{longest}\n").as_bytes()), [longest]);
        for _ in 0..10_000 {
            lines.take(&[b'x'; LONGEST]);
        }
        assert!(lines.open.capacity() < 1000);
        assert_eq!(lines.take(b"\n\xff\xfe\nlook 1\n"), ["look 1"]);
    }

    #[test]
    fn only_requests_are_requests() {
        let set = |s, n| Some(Duration::new(s, n));
        assert_eq!(parse("look 7"), Some(Request { token: "7", set: None }));
        let whole = Request {
            token: "7",
            set: set(1_795_000_000, 5),
        };
        assert_eq!(parse("set 7 1795000000 5"), Some(whole));
        for bad in [
            "",
            "look",
            "look ",
            "look 7 8",
            "set 7",
            "set 7 1",
            "set 7 1 1000000000",
            "set 7 -1 0",
            "set 7 1 2 3",
            "set 7 4294967296 0",
            "set  1 2",
            "halt 7",
            "LOOK 7",
            " look 7",
        ] {
            assert_eq!(parse(bad), None, "{bad:?}");
            assert_eq!(answer(bad, "b"), None, "{bad:?}");
        }
    }

    #[test]
    fn an_answer_is_the_token_the_time_and_the_boot() {
        let answer = answer("look abc", "1-2-3").unwrap();
        let words: Vec<&str> = answer.trim_end().split(' ').collect();
        assert_eq!((words[0], words[3], words.len()), ("abc", "1-2-3", 4));
        let told = Duration::new(words[1].parse().unwrap(), words[2].parse().unwrap());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        assert!(now.abs_diff(told) < Duration::from_secs(5), "{told:?} {now:?}");
    }
}
