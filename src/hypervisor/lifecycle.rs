//! What libvirt's numbers for lifecycle events mean (`virDomainEventType` and the details of each).

use virt::sys;

/// libvirt's words for a lifecycle event.
pub(super) fn words(event: i32, detail: i32) -> (String, String) {
    let (event, detail) = (event.cast_unsigned(), detail.cast_unsigned());
    let (what, details): (&str, &[&str]) = match event {
        sys::VIR_DOMAIN_EVENT_DEFINED => ("defined", &["added", "updated", "renamed", "from-snapshot"]),
        sys::VIR_DOMAIN_EVENT_UNDEFINED => ("undefined", &["removed", "renamed"]),
        sys::VIR_DOMAIN_EVENT_STARTED => (
            "started",
            &["booted", "migrated", "restored", "from-snapshot", "wakeup", "recreated"],
        ),
        sys::VIR_DOMAIN_EVENT_SUSPENDED => (
            "suspended",
            &[
                "paused",
                "migrated",
                "io-error",
                "watchdog",
                "restored",
                "from-snapshot",
                "api-error",
                "postcopy",
                "postcopy-failed",
                "guest-shutdown",
            ],
        ),
        sys::VIR_DOMAIN_EVENT_RESUMED => (
            "resumed",
            &["unpaused", "migrated", "from-snapshot", "postcopy", "postcopy-failed"],
        ),
        sys::VIR_DOMAIN_EVENT_STOPPED => (
            "stopped",
            &[
                "shutdown",
                "destroyed",
                "crashed",
                "migrated",
                "saved",
                "failed",
                "from-snapshot",
                "recreated",
            ],
        ),
        sys::VIR_DOMAIN_EVENT_SHUTDOWN => ("shutdown", &["finished", "guest", "host"]),
        sys::VIR_DOMAIN_EVENT_PMSUSPENDED => ("pm-suspended", &["memory", "disk"]),
        sys::VIR_DOMAIN_EVENT_CRASHED => ("crashed", &["panicked", "crash-loaded"]),
        _ => ("other", &[]),
    };
    let detail = details
        .get(detail as usize)
        .map_or_else(|| detail.to_string(), |d| (*d).to_owned());
    (what.to_owned(), detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifecycle_words() {
        assert_eq!(words(5, 1), ("stopped".into(), "destroyed".into()));
        assert_eq!(words(2, 99), ("started".into(), "99".into()));
        assert_eq!(words(-1, -1).0, "other");
    }
}
