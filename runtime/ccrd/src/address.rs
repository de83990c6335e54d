//! Addresses that move: `ip` puts them on an interface, `arping` tells the neighbours.

use std::net::Ipv4Addr;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(30);
/// Gratuitous answers after an address was taken: one at once, the others a second apart.
const ANNOUNCEMENTS: &str = "3";

/// How addresses are taken and given up.
#[derive(Debug, Clone)]
pub enum Addresses {
    /// On this interface of a real network.
    Interface {
        /// Its name.
        name: String,
        /// Length of the subnet's prefix.
        prefix: u8,
    },
    /// Every address of 127/8 is there already.
    Loopback,
}

impl Addresses {
    /// The interface that has `own`, or the one that the configuration names.
    pub async fn on(configured: Option<&str>, own: Ipv4Addr, prefix: u8) -> Result<Self, String> {
        let name = match configured {
            Some(name) => name.to_owned(),
            None => {
                let listed = run("ip", &["-o", "-4", "addr", "show", "to", &format!("{own}/32")]).await?;
                interface_of(&listed).ok_or_else(|| format!("no interface has the address {own}"))?
            }
        };
        Ok(Self::Interface { name, prefix })
    }

    /// Takes an address. Taken already is taken.
    pub async fn take(&self, address: Ipv4Addr) -> Result<(), String> {
        let Self::Interface { name, prefix } = self else {
            return Ok(());
        };
        run(
            "ip",
            &["-4", "addr", "replace", &format!("{address}/{prefix}"), "dev", name],
        )
        .await?;
        Ok(())
    }

    /// Tells the neighbours who has it now, as answers and as requests: not every neighbour believes both. In the
    /// background, since it goes on for seconds.
    pub fn announce(&self, address: Ipv4Addr) {
        let Self::Interface { name, .. } = self else {
            return;
        };
        for kind in ["-A", "-U"] {
            let arguments = ["-q", kind, "-c", ANNOUNCEMENTS, "-I", name, &address.to_string()].map(str::to_owned);
            tokio::spawn(async move {
                let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
                // arping -U and -A end with 1 where nobody answers: only a failure to run at all is one.
                if let Err(why) = run("arping", &arguments).await
                    && why.contains("could not run")
                {
                    eprintln!("ccrd: {why}; neighbours will learn of {} late", arguments[6]);
                }
            });
        }
    }

    /// Gives an address up. Not there is given up.
    pub async fn drop(&self, address: Ipv4Addr) -> Result<(), String> {
        let Self::Interface { name, .. } = self else {
            return Ok(());
        };
        let listed = run(
            "ip",
            &["-o", "-4", "addr", "show", "dev", name, "to", &format!("{address}/32")],
        )
        .await?;
        for with_prefix in listed.lines().filter_map(address_of) {
            run("ip", &["-4", "addr", "del", with_prefix, "dev", name]).await?;
        }
        Ok(())
    }
}

/// `eth0` of `2: eth0    inet 10.77.1.11/24 brd …`.
fn interface_of(listed: &str) -> Option<String> {
    let name = listed.lines().next()?.split_ascii_whitespace().nth(1)?;
    // A VLAN's or veth's peer stands behind an @.
    name.split('@').next().map(str::to_owned)
}

/// `10.77.1.11/24` of the same.
fn address_of(line: &str) -> Option<&str> {
    let mut words = line.split_ascii_whitespace().skip_while(|w| *w != "inet");
    words.nth(1)
}

/// Runs a program; gives what it printed.
async fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let what = || format!("{program} {}", arguments.join(" "));
    let child = Command::new(program)
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    match tokio::time::timeout(COMMAND, child).await {
        Err(_) => Err(format!("`{}` did not end within {} s", what(), COMMAND.as_secs())),
        Ok(Err(e)) => Err(format!("could not run `{}`: {e}", what())),
        Ok(Ok(out)) if out.status.success() => Ok(String::from_utf8_lossy(&out.stdout).into_owned()),
        Ok(Ok(out)) => {
            let said = String::from_utf8_lossy(&out.stderr);
            Err(format!("`{}` ended with {}: {}", what(), out.status, said.trim()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ip_prints() {
        let line = "2: eth0    inet 10.77.1.11/24 brd 10.77.1.255 scope global eth0\\       valid_lft forever preferred_lft forever\n";
        assert_eq!(interface_of(line).as_deref(), Some("eth0"));
        assert_eq!(address_of(line), Some("10.77.1.11/24"));
        assert_eq!(interface_of("5: veth1@if4    inet 10.0.0.1/24"), Some("veth1".into()));
        for bad in ["", "\n", "2:", "garbage inet"] {
            assert_eq!(address_of(bad), None);
        }
        assert_eq!(interface_of(""), None);
    }

    #[tokio::test]
    async fn a_program_that_fails_or_is_missing_is_named() {
        let e = run("false", &["x"]).await.unwrap_err();
        assert!(e.contains("`false x` ended with"), "{e}");
        let e = run("no-such-program-here", &[]).await.unwrap_err();
        assert!(e.contains("could not run"), "{e}");
    }

    #[tokio::test]
    async fn loopback_has_all_addresses() {
        let a = Addresses::Loopback;
        a.take(Ipv4Addr::LOCALHOST).await.unwrap();
        a.announce(Ipv4Addr::LOCALHOST);
        a.drop(Ipv4Addr::LOCALHOST).await.unwrap();
    }

    /// The work of the test below, inside a network name space of its own.
    #[tokio::test]
    #[ignore = "run by `on_a_real_interface`"]
    async fn inside() {
        let (own, moving) = (Ipv4Addr::new(10, 9, 9, 1), Ipv4Addr::new(10, 9, 9, 21));
        run("ip", &["addr", "add", "10.9.9.1/24", "dev", "lo"]).await.unwrap();
        let a = Addresses::on(None, own, 24).await.unwrap();
        assert!(
            matches!(&a, Addresses::Interface { name, prefix: 24 } if name == "lo"),
            "{a:?}"
        );
        let there = async || {
            run("ip", &["-o", "-4", "addr", "show", "to", "10.9.9.21/32"])
                .await
                .unwrap()
        };
        a.drop(moving).await.unwrap();
        for _ in 0..2 {
            a.take(moving).await.unwrap();
            assert!(there().await.contains("10.9.9.21/24"));
        }
        // Left over with another prefix, as an earlier configuration would leave it.
        run("ip", &["addr", "add", "10.9.9.21/32", "dev", "lo"]).await.unwrap();
        for _ in 0..2 {
            a.drop(moving).await.unwrap();
            assert_eq!(there().await, "");
        }
        assert!(Addresses::on(None, moving, 24).await.unwrap_err().contains("10.9.9.21"));
        let nowhere = Addresses::on(Some("eth77"), own, 24).await.unwrap();
        assert!(nowhere.take(moving).await.unwrap_err().contains("eth77"));
    }

    #[test]
    fn on_a_real_interface() {
        let me = std::env::current_exe().unwrap();
        let unshare = |words: &[&std::ffi::OsStr]| {
            std::process::Command::new("unshare")
                .args(["--user", "--map-root-user", "--net"])
                .args(words)
                .output()
        };
        match unshare(&[
            "ip".as_ref(),
            "link".as_ref(),
            "set".as_ref(),
            "lo".as_ref(),
            "up".as_ref(),
        ]) {
            Ok(out) if out.status.success() => {}
            other => {
                eprintln!("skipped: no network name space can be made here: {other:?}");
                return;
            }
        }
        let out = unshare(&[
            me.as_os_str(),
            "--ignored".as_ref(),
            "--exact".as_ref(),
            "address::tests::inside".as_ref(),
        ])
        .unwrap();
        let said = String::from_utf8_lossy(&out.stdout);
        assert!(
            out.status.success() && said.contains("1 passed"),
            "{said}{}",
            String::from_utf8_lossy(&out.stderr)
        );
    }
}
