//! Somebody else on this host: sends datagrams to sockets, as another account and, to see that it works where it may, as we.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

/// Says who it is, sends a frame to each of the sockets, and says how that went.
const FORGE: &str = r#"use Socket; $| = 1; print "$<\n";
for (@ARGV) { socket(my $s, AF_UNIX, SOCK_DGRAM, 0) or die $!;
  print defined(send($s, "\xff" x 6 . "\x02" . "\0" x 60, 0, sockaddr_un($_))) ? "sent\n" : "$!\n" }"#;

/// What became of a frame to each of `sockets` from another account: as root from `nobody`, else from a subordinate account of
/// ours in a user namespace (which needs `uidmap`, as building an image does).
pub fn forge(sockets: &[PathBuf]) -> Result<Vec<String>, String> {
    let (mut command, account) = if rustix::process::geteuid().is_root() {
        (Command::new("setpriv"), "65534")
    } else {
        let mut unshare = Command::new("unshare");
        unshare.args(["--user", "--map-auto", "--map-root-user", "setpriv"]);
        (unshare, "1")
    };
    command.args(["--reuid", account, "--regid", account, "--clear-groups", "perl"]);
    let said = run(&mut command, sockets)?;
    match said.split_first() {
        Some((who, rest)) if who == account => Ok(rest.to_vec()),
        _ => Err(format!("not as the account {account}: {said:?}")),
    }
}

/// The same from this process's own account.
pub fn send(sockets: &[PathBuf]) -> Result<Vec<String>, String> {
    Ok(run(&mut Command::new("perl"), sockets)?.split_off(1))
}

fn run(perl: &mut Command, sockets: &[PathBuf]) -> Result<Vec<String>, String> {
    let forge = perl.args(["-e", FORGE]).args(sockets);
    let out: Output = forge
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .current_dir("/")
        .output()
        .map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&out.stdout);
    if !out.status.success() || text.is_empty() {
        return Err(format!(
            "{}: {text}{}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        ));
    }
    Ok(text.lines().map(str::to_owned).collect())
}
