//! What systemd wants to hear (sd_notify(3)): a datagram to the socket that `NOTIFY_SOCKET` names.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to systemd; silent where there is none.
#[derive(Debug)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// Between two signs of life, where systemd watches for them.
    pub interval: Option<Duration>,
}

impl Notifier {
    /// From the environment of a service.
    pub fn from_environment() -> Self {
        let var = |name| std::env::var(name).ok();
        Self::new(var("NOTIFY_SOCKET"), var("WATCHDOG_USEC"))
    }

    fn new(socket: Option<String>, watchdog_us: Option<String>) -> Self {
        let to = socket.and_then(|path| {
            let address = match path.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name).ok()?,
                None => SocketAddr::from_pathname(path).ok()?,
            };
            let socket = UnixDatagram::unbound().ok()?;
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        // Twice as often as systemd asks for, as sd_watchdog_enabled(3) advises.
        let interval = watchdog_us
            .and_then(|us| us.parse().ok())
            .filter(|us| *us > 0)
            .map(|us: u64| Duration::from_micros(us / 2));
        Self { to, interval }
    }

    /// To a socket of that name, with so much between two signs of life.
    #[cfg(test)]
    pub fn watched(socket: &str, interval: Duration) -> Self {
        let mut notifier = Self::new(Some(socket.to_owned()), None);
        notifier.interval = Some(interval);
        notifier
    }

    /// Startup is complete.
    pub fn ready(&self) {
        self.say("READY=1");
    }

    /// Sign of life.
    pub fn alive(&self) {
        self.say("WATCHDOG=1");
    }

    /// The end has begun.
    pub fn stopping(&self) {
        self.say("STOPPING=1");
    }

    fn say(&self, what: &str) {
        if let Some((socket, address)) = &self.to {
            // A full queue means that systemd is busy; it is not ours to wait for it.
            let _ = socket.send_to_addr(what.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_arrive() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let n = Notifier::new(Some(path.to_str().unwrap().into()), Some("3000000".into()));
        assert_eq!(n.interval, Some(Duration::from_millis(1500)));
        n.ready();
        n.alive();
        let mut text = [0; 64];
        let got = systemd.recv(&mut text).unwrap();
        assert_eq!(&text[..got], b"READY=1");
        let got = systemd.recv(&mut text).unwrap();
        assert_eq!(&text[..got], b"WATCHDOG=1");
    }

    #[test]
    fn without_systemd_nothing_happens() {
        for (socket, us) in [
            (None, None),
            (Some("relative/nowhere".to_owned()), Some("x".to_owned())),
            (Some(String::new()), Some("0".to_owned())),
        ] {
            let n = Notifier::new(socket, us);
            assert_eq!(n.interval, None);
            n.ready();
        }
    }
}
