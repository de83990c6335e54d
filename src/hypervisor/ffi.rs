//! All `unsafe` of the tool: the calls of libvirt that the virt crate does not cover, one of the kernel, and one instruction.
#![expect(
    unsafe_code,
    reason = "registration of events is not in the virt crate, close_range and rdtsc are not in std"
)]

use std::ffi::{CStr, CString, c_int, c_uint, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use virt::connect::Connect;
use virt::sys;

/// Hears name, type and detail of every lifecycle event.
pub(super) type OnLifecycle = Box<dyn Fn(&str, c_int, c_int) + Send + Sync>;

/// Calls `f` on the event loop's thread for every lifecycle event of `conn`, as long as the process lives.
pub(super) fn register_lifecycle(conn: &Connect, f: OnLifecycle) -> Result<(), virt::error::Error> {
    // A box of a box: the inner one is a fat pointer and does not fit into `void *`.
    let opaque: *mut OnLifecycle = Box::into_raw(Box::new(f));
    // SAFETY: libvirt calls a lifecycle callback with five arguments, of which `on_lifecycle` is one; it only passes the pointer
    // around as the generic type that `virConnectDomainEventRegisterAny` is declared with (VIR_DOMAIN_EVENT_CALLBACK in C).
    let generic = unsafe {
        std::mem::transmute::<
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void) -> c_int,
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void),
        >(on_lifecycle)
    };
    // SAFETY: `conn` is open while it is borrowed, a null domain means all of them, `opaque` stays valid until libvirt hands it to
    // `free_lifecycle`, and the closure behind it is Send + Sync, so that any thread may run it.
    let id = unsafe {
        sys::virConnectDomainEventRegisterAny(
            conn.as_ptr(),
            std::ptr::null_mut(),
            sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
            Some(generic),
            opaque.cast(),
            Some(free_lifecycle),
        )
    };
    if id < 0 {
        // libvirt does not promise whether it called `free_lifecycle`: the box is leaked rather than freed twice.
        return Err(virt::error::Error::last_error());
    }
    Ok(())
}

/// One command of QEMU's monitor that takes a file; the answer's JSON.
pub(super) fn monitor_with_file(
    domain: &virt::domain::Domain,
    command: &str,
    file: BorrowedFd<'_>,
) -> Result<String, virt::error::Error> {
    let command = CString::new(command)?;
    let mut file = file.as_raw_fd();
    let mut answer = std::ptr::null_mut();
    // SAFETY: the domain, the command, the array of one descriptor and the place for the answer live until the call returns; libvirt takes
    // a duplicate of the descriptor, and no files are asked for.
    let done = unsafe {
        sys::virDomainQemuMonitorCommandWithFiles(
            domain.as_ptr(),
            command.as_ptr(),
            1,
            &mut file,
            std::ptr::null_mut(),
            std::ptr::null_mut(),
            &mut answer,
            0,
        )
    };
    if done < 0 || answer.is_null() {
        return Err(virt::error::Error::last_error());
    }
    // SAFETY: on success libvirt hands over a C string.
    let text = unsafe { CStr::from_ptr(answer) }.to_string_lossy().into_owned();
    // SAFETY: it was allocated with malloc for us, and no pointer to it is left.
    unsafe { free(answer.cast()) };
    Ok(text)
}

unsafe extern "C" {
    fn free(memory: *mut c_void);
    fn close_range(first: c_uint, last: c_uint, flags: c_int) -> c_int;
}

/// `CLOSE_RANGE_CLOEXEC` of linux/close_range.h.
const CLOEXEC: c_int = 4;

/// Lets `command` have its standard streams and nothing else of what this process has open, or was handed by a shell.
pub fn inherit_no_files(command: &mut Command) -> &mut Command {
    let close = || {
        // SAFETY: a system call that touches no memory. Descriptors are marked, not closed, so that the one over which std hears of
        // a failed exec stays.
        unsafe { close_range(3, c_uint::MAX, CLOEXEC) };
        // Linux before 5.11 and some sandboxes refuse it; then the program inherits, which is no reason not to start it.
        Ok(())
    };
    // SAFETY: between fork and exec only that call is made, which is safe in a copy of one thread.
    unsafe { command.pre_exec(close) }
}

/// The processor's time-stamp counter.
pub(super) fn time_stamp_counter() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and Linux lets user space use it.
    unsafe { std::arch::x86_64::_rdtsc() }
}

unsafe extern "C" fn on_lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: `opaque` is the pointer given to libvirt above, which frees it only after the last call.
    let f = unsafe { &*opaque.cast::<OnLifecycle>() };
    // SAFETY: libvirt hands in a domain that lives for the duration of this call; its name is a C string inside of it.
    let name = unsafe {
        let name = sys::virDomainGetName(domain);
        if name.is_null() {
            return 0;
        }
        CStr::from_ptr(name)
    };
    // A panic must not unwind into C.
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        f(&name.to_string_lossy(), event, detail)
    }));
    0
}

unsafe extern "C" fn free_lifecycle(opaque: *mut c_void) {
    // SAFETY: made by `Box::into_raw` above; libvirt calls this once, after the last event.
    drop(unsafe { Box::from_raw(opaque.cast::<OnLifecycle>()) });
}

#[cfg(test)]
mod tests {
    use super::super::embedded::start_event_loop;
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[test]
    fn lifecycle_events_arrive() {
        start_event_loop().unwrap();
        let conn = Connect::open(Some("test:///default")).unwrap();
        let (tx, rx) = mpsc::sync_channel(16);
        register_lifecycle(
            &conn,
            Box::new(move |name, event, detail| tx.send((name.to_owned(), event, detail)).unwrap()),
        )
        .unwrap();
        let dom = conn.lookup_domain_by_name("test").unwrap();
        dom.suspend().unwrap();
        dom.resume().unwrap();
        let next = || rx.recv_timeout(Duration::from_secs(10)).unwrap();
        assert_eq!(
            next(),
            (
                "test".into(),
                sys::VIR_DOMAIN_EVENT_SUSPENDED as c_int,
                sys::VIR_DOMAIN_EVENT_SUSPENDED_PAUSED as c_int
            )
        );
        assert_eq!(
            next(),
            (
                "test".into(),
                sys::VIR_DOMAIN_EVENT_RESUMED as c_int,
                sys::VIR_DOMAIN_EVENT_RESUMED_UNPAUSED as c_int
            )
        );
    }
}
