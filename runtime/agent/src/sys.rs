//! The system calls that `std` does not have: the only `unsafe` of the agent.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::Duration;

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

/// What is waited for, as poll(2) has it.
#[repr(C)]
#[derive(Debug)]
pub struct PollFd {
    fd: i32,
    events: i16,
    revents: i16,
}

const CLOCK_REALTIME: i32 = 0;
const CLOCK_BOOTTIME: i32 = 7;
const EPOLL_CLOEXEC: i32 = 0o2_000_000;
const EPOLL_CTL_ADD: i32 = 1;
const EPOLLIN: u32 = 1;
const EPOLLOUT: u32 = 4;
const EPOLLET: u32 = 1 << 31;
const POLLIN: i16 = 1;
const POLLOUT: i16 = 4;
const F_GETFL: i32 = 3;
const F_SETFL: i32 = 4;
/// A read or write that would have to wait does not.
pub const O_NONBLOCK: i32 = 0o4000;
const SIGKILL: i32 = 9;
const SYS_PIDFD_OPEN: i64 = 434;

// SAFETY: as libc declares them, on the one target that this is built for.
#[expect(unsafe_code, reason = "std has none of these")]
unsafe extern "C" {
    fn clock_settime(clock: i32, time: *const Timespec) -> i32;
    fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    fn epoll_create1(flags: i32) -> i32;
    fn epoll_ctl(epoll: i32, operation: i32, fd: i32, event: *mut EpollEvent) -> i32;
    fn epoll_wait(epoll: i32, events: *mut EpollEvent, max: i32, timeout_ms: i32) -> i32;
    fn poll(fds: *mut PollFd, count: u64, timeout_ms: i32) -> i32;
    fn fcntl(fd: i32, command: i32, ...) -> i32;
    fn kill(pid: i32, signal: i32) -> i32;
    fn syscall(number: i64, ...) -> i64;
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Sets the clock: time since 1970.
pub fn set_clock(time: Duration) -> io::Result<()> {
    let time = Timespec {
        seconds: time.as_secs() as i64,
        nanos: time.subsec_nanos().into(),
    };
    #[expect(unsafe_code, reason = "std has no clock to set")]
    // SAFETY: the pointer is valid for the call.
    checked(unsafe { clock_settime(CLOCK_REALTIME, &raw const time) }).map(drop)
}

/// The clock that began at boot and counts suspended time.
pub fn boottime() -> Duration {
    let mut time = Timespec { seconds: 0, nanos: 0 };
    #[expect(unsafe_code, reason = "std has no such clock")]
    // SAFETY: the pointer is valid for the call.
    let got = checked(unsafe { clock_gettime(CLOCK_BOOTTIME, &raw mut time) });
    got.map_or(Duration::ZERO, |_| {
        Duration::new(time.seconds as u64, time.nanos as u32)
    })
}

/// Reads and writes of this descriptor do not wait.
pub fn do_not_wait(fd: &impl AsRawFd) -> io::Result<()> {
    #[expect(unsafe_code, reason = "std has no fcntl")]
    // SAFETY: numbers in, a number out.
    unsafe {
        let flags = checked(fcntl(fd.as_raw_fd(), F_GETFL))?;
        checked(fcntl(fd.as_raw_fd(), F_SETFL, flags | O_NONBLOCK)).map(drop)
    }
}

/// Kills all processes of the group that `leader` leads. The caller has not reaped it: nobody else has its number.
pub fn kill_group(leader: u32) {
    if let Ok(pid) = i32::try_from(leader)
        && pid > 1
    {
        #[expect(unsafe_code, reason = "std kills one process only")]
        // SAFETY: numbers in, a number out.
        let _ = unsafe { kill(-pid, SIGKILL) };
    }
}

/// A descriptor that becomes readable when the process has ended. The caller has not reaped it.
pub fn pidfd(pid: u32) -> io::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "std has no pidfd")]
    // SAFETY: numbers in, a number out; the descriptor is new and nobody else's.
    unsafe {
        let fd = syscall(SYS_PIDFD_OPEN, i64::from(pid), 0i64);
        Ok(OwnedFd::from_raw_fd(checked(fd as i32)?))
    }
}

/// Whether `fd` can be read (`write`: written), or is at its end, is what [`wait`] waits for.
pub fn interest(fd: &impl AsRawFd, write: bool) -> PollFd {
    PollFd {
        fd: fd.as_raw_fd(),
        events: if write { POLLOUT } else { POLLIN },
        revents: 0,
    }
}

impl PollFd {
    /// Whether something was seen of it.
    pub fn is_ready(&self) -> bool {
        self.revents != 0
    }
}

/// Waits until one of them is ready, or the time is over.
pub fn wait(fds: &mut [PollFd], most: Option<Duration>) -> io::Result<()> {
    // Rounded up: a wait that ends too early would be begun again and again.
    let most = most.map_or(-1, |m| i32::try_from(m.as_micros().div_ceil(1000)).unwrap_or(i32::MAX));
    #[expect(unsafe_code, reason = "std has no poll")]
    // SAFETY: the pointer is valid for so many entries.
    match checked(unsafe { poll(fds.as_mut_ptr(), fds.len() as u64, most) }) {
        Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
        _ => Ok(()),
    }
}

/// Notices when a port becomes readable or writable, or somebody comes or goes at its other end; not that it still is: one without
/// anybody at the other end is ready all the time.
#[derive(Debug)]
pub struct Edges(OwnedFd);

impl Edges {
    /// Of this port. Its state now counts as an edge.
    pub fn of(port: &impl AsRawFd) -> io::Result<Self> {
        let mut event = EpollEvent {
            events: EPOLLIN | EPOLLOUT | EPOLLET,
            data: 0,
        };
        #[expect(unsafe_code, reason = "std has no epoll")]
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

    /// For [`wait`].
    pub fn interest(&self) -> PollFd {
        interest(&self.0, false)
    }

    /// Whether there was an edge since the last call.
    pub fn take(&self) -> io::Result<bool> {
        let mut event = EpollEvent { events: 0, data: 0 };
        #[expect(unsafe_code, reason = "std has no epoll")]
        // SAFETY: there is room for the one event that is asked for.
        match checked(unsafe { epoll_wait(self.0.as_raw_fd(), &raw mut event, 1, 0) }) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
            seen => Ok(seen.is_ok_and(|n| n > 0)),
        }
    }
}
