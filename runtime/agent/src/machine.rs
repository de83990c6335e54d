//! The machine that an agent runs in, as far as it is asked for it.

use crate::message::{Clock, NetworkPort, Sample};
use crate::sys;
use std::fs::{read_dir, read_to_string};
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Most network ports that are told.
const PORTS: usize = 64;

/// What an agent asks its machine, or does to it.
pub trait Machine {
    /// The identifier that the kernel made at boot.
    fn boot_id(&self) -> String;
    /// The clocks.
    fn clock(&mut self) -> Clock;
    /// Sets the clock: time since 1970.
    ///
    /// # Errors
    /// Why it could not be set.
    fn set_clock(&mut self, time: Duration) -> io::Result<()>;
    /// A look at it.
    ///
    /// # Errors
    /// What could not be read.
    fn sample(&mut self) -> io::Result<Sample>;
}

/// The machine that this process runs in.
#[derive(Debug)]
pub struct ThisMachine {
    boot_id: String,
}

impl ThisMachine {
    /// # Errors
    /// The kernel does not say which boot this is.
    pub fn new() -> io::Result<Self> {
        let boot_id = read_to_string("/proc/sys/kernel/random/boot_id")?.trim_end().to_owned();
        Ok(Self { boot_id })
    }
}

impl Machine for ThisMachine {
    fn boot_id(&self) -> String {
        self.boot_id.clone()
    }

    fn clock(&mut self) -> Clock {
        Clock {
            time: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
            boottime: sys::boottime(),
        }
    }

    fn set_clock(&mut self, time: Duration) -> io::Result<()> {
        sys::set_clock(time)
    }

    fn sample(&mut self) -> io::Result<Sample> {
        let load =
            load(&read_to_string("/proc/loadavg")?).ok_or_else(|| io::Error::other("/proc/loadavg has no load"))?;
        let mut ports = Vec::new();
        for entry in read_dir("/sys/class/net")?.take(PORTS) {
            let entry = entry?;
            // The kernel refuses the question while the port is down.
            let carrier = read_to_string(entry.path().join("carrier")).ok();
            ports.push(NetworkPort {
                name: entry.file_name().to_string_lossy().into_owned(),
                carrier: carrier.map(|c| c.trim_end() == "1"),
            });
        }
        ports.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(Sample {
            boot_id: self.boot_id(),
            clock: self.clock(),
            load,
            ports,
        })
    }
}

/// The three averages, in hundredths.
fn load(text: &str) -> Option<[u32; 3]> {
    let mut words = text.split(' ').map(|w| {
        let (whole, part) = w.split_once('.')?;
        let hundredths = part.parse::<u32>().ok().filter(|_| part.len() == 2)?;
        whole.parse::<u32>().ok()?.checked_mul(100)?.checked_add(hundredths)
    });
    Some([words.next()??, words.next()??, words.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_hundredths() {
        assert_eq!(load("0.07 1.50 12.00 3/150 999\n"), Some([7, 150, 1200]));
        for bad in ["", "1 2 3", "0.5 0.5 0.5", "-1.00 1.00 1.00", "1.00 2.00"] {
            assert_eq!(load(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn this_machine_says_who_and_how_it_is() {
        let mut machine = ThisMachine::new().unwrap();
        let sample = machine.sample().unwrap();
        assert_eq!(sample.boot_id.len(), 36);
        assert!(sample.ports.iter().any(|p| p.name == "lo"), "{sample:?}");
        let uptime = read_to_string("/proc/uptime").unwrap();
        let uptime: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
        assert!((sample.clock.boottime.as_secs_f64() - uptime).abs() < 5.0, "{sample:?}");
    }
}
