//! Waiting for a machine: SSH answers, then its boot has ended.

use super::ssh::{Ssh, Target};
use super::{Command, Remote};
use crate::error::{Error, Problem, Result};
use crate::wait::{Deadline, Probe, wait_until};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a machine may take for its first word before we knock again. QEMU's user-mode network takes every connection at once
/// and repeats its own knock at longer and longer intervals while the machine boots: a new connection is heard sooner.
const FIRST_WORD: Duration = Duration::from_secs(1);
/// A whole handshake may take this many times as long as the first word. One that stalls in the middle (seen once in fifty boots
/// under emulation: the banner came, nothing after it until the deadline) is given up for a new connection.
const HANDSHAKE: u32 = 8;
/// How much longer each time: a machine on a busy host answers late.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is known of a machine that was asked and has not answered.
const STILL: &str = "it is still booting";

/// What a machine said of itself once its boot had ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// systemd's word: `running`, or `degraded` with the units that failed.
    pub state: String,
    /// Units that failed.
    pub failed: Vec<String>,
    /// Another one after each boot.
    pub boot_id: String,
    /// Interfaces: MAC → name.
    pub interfaces: BTreeMap<String, String>,
}

/// Everything in one round trip, by the shell itself where it can: on an emulated processor each costs a tenth of a second, and a
/// process a third of that.
const LOOK: &str = r#"state=$(timeout $0 systemctl is-system-running --wait)
echo ${state:-starting}
[ "$state" = running ] || systemctl list-units --failed --plain --no-legend --no-pager | cut -d' ' -f1 | tr '\n' ' '
echo
[ $state ] || systemctl list-jobs --plain --no-legend --no-pager | while read -r job unit kind now; do
  [ $now != running ] || printf '%s ' $unit
done
echo
read -r id </proc/sys/kernel/random/boot_id && echo $id
cd /sys/class/net && for i in *; do read -r mac <$i/address && echo $mac $i; done
"#;

/// How long the machine waits by itself for the end of its boot before it says for what it waits.
const WAITS: Duration = Duration::from_secs(15);

/// Waits until SSH answers on `target` and its boot has ended; the connection is ready for use. See [`knock`] and [`wait_booted`].
pub fn wait_ready(
    target: &Target,
    deadline: Deadline,
    seen: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<(Ssh, Ready)> {
    let mut ssh = knock(target, deadline, seen)?;
    let ready = wait_booted(&mut ssh, &target.node, deadline, seen)?;
    Ok((ssh, ready))
}

/// Waits until SSH answers on `target`. `seen` hears what each try saw and may end the wait.
pub fn knock(target: &Target, deadline: Deadline, seen: &mut dyn FnMut(&str) -> Result<()>) -> Result<Ssh> {
    let mut patience = FIRST_WORD;
    let ssh = wait_until(&format!("reach {} over SSH", target.node), deadline, || {
        // A host key that is not the pinned one will not become it.
        match Ssh::connect_if_heard(target, patience, deadline.at_most(patience * HANDSHAKE)) {
            Ok(ssh) => Ok(Probe::Ready(ssh)),
            Err(Error::Operation(p)) if p.remedy.is_none() => {
                let cause = p.observed.unwrap_or(p.what);
                seen(&cause)?;
                patience += PATIENCE;
                Ok(Probe::NotYet(cause))
            }
            Err(e) => Err(e),
        }
    })?;
    seen("SSH answers, it is still booting")?;
    Ok(ssh)
}

/// Waits until the boot of `node` has ended. A machine with failed units is ready, and says so. One that stops while we wait is an
/// error. `seen` hears now and then what was seen last and may end the wait.
pub fn wait_booted(
    remote: &mut dyn Remote,
    node: &str,
    deadline: Deadline,
    seen: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<Ready> {
    let what = format!("see {node} at the end of its boot");
    wait_until(&what, deadline, || {
        let waits = WAITS.as_secs().to_string();
        let look = Command::new(["sh", "-c", LOOK, &waits]);
        let mut hear = |_: Option<&str>| seen(STILL);
        let text = remote.exec_heard(&look, deadline, &mut hear)?.check_text(&what, "")?;
        let found = parse(&text).map_err(|seen| Error::Operation(Problem::new(&what).observed(seen)))?;
        if let Probe::NotYet(cause) = &found {
            seen(cause)?;
        }
        Ok(found)
    })
}

fn parse(text: &str) -> Result<Probe<Ready>, String> {
    let mut lines = text.lines();
    let mut next = |what: &str| lines.next().ok_or_else(|| format!("no {what} in the answer"));
    let state = next("state")?.to_owned();
    let failed = next("list of failed units")?
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    let jobs = next("list of jobs")?.trim().to_owned();
    let boot_id = next("boot id")?.to_owned();
    if matches!(state.as_str(), "starting" | "initializing") {
        return Ok(Probe::NotYet(format!("it is still booting: {jobs}")));
    }
    if !matches!(state.as_str(), "running" | "degraded") {
        return Err(format!("the machine is `{}`", state.escape_debug()));
    }
    if boot_id.len() != 36 {
        return Err(format!("`{}` is no boot id", boot_id.escape_debug()));
    }
    let interfaces = lines
        .filter_map(|l| l.split_once(' '))
        .map(|(mac, name)| (mac.to_owned(), name.to_owned()))
        .collect();
    Ok(Probe::Ready(Ready {
        state,
        failed,
        boot_id,
        interfaces,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::fake::FakeRemote;

    const ID: &str = "0a4be2a6-7b6e-4ae5-a9c8-3a1f0f3a1d57";

    fn soon() -> Deadline {
        Deadline::after(Duration::from_millis(300))
    }

    fn look_at(answer: &str) -> Result<Ready> {
        let mut remote = FakeRemote::new().answer(&["sh", "-c"], 0, answer);
        wait_booted(&mut remote, "node1", soon(), &mut |_| Ok(()))
    }

    #[test]
    fn failed_units_are_named() {
        let r = look_at(&format!(
            "degraded\nx.service y.mount \n\n{ID}\n52:54:00:00:00:01 eth0\n00:00:00:00:00:00 lo\n"
        ))
        .unwrap();
        assert_eq!(r.state, "degraded");
        assert_eq!(r.failed, ["x.service", "y.mount"]);
        assert_eq!(r.interfaces["52:54:00:00:00:01"], "eth0");
    }

    #[test]
    fn a_boot_that_does_not_end_names_what_it_waits_for() {
        let e = look_at(&format!("starting\n\nslow.service dev-vdb.device \n{ID}\n"))
            .unwrap_err()
            .to_string();
        assert!(e.contains("node1") && e.contains("slow.service dev-vdb.device"), "{e}");
        let mut remote = FakeRemote::new().answer(&["sh", "-c"], 0, format!("starting\n\n\n{ID}\n"));
        let e = wait_booted(&mut remote, "n", soon(), &mut |_| Err(Error::Interrupted)).unwrap_err();
        assert!(matches!(e, Error::Interrupted) && remote.commands.len() == 1);
    }

    #[test]
    fn a_machine_that_is_going_down_is_not_ready() {
        let e = look_at(&format!("stopping\n\n\n{ID}\n")).unwrap_err();
        assert!(e.to_string().contains("`stopping`"), "{e}");
    }

    #[test]
    fn garbage_is_an_error() {
        for bad in [
            "",
            "running",
            "running\n\n",
            "running\n\n\nshort",
            "\u{0}\n\u{0}\n\u{0}\n\u{0}",
        ] {
            assert!(look_at(bad).is_err(), "{bad:?}");
        }
    }
}
