//! Which machine, which key, which host key; and the same for the system's own `ssh`.

use crate::error::{Error, Problem, Result};
use crate::files::LabFiles;
use crate::guest::quote;
use std::path::{Path, PathBuf};

/// How a node is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The node, for people and for the pinned key.
    pub node: String,
    /// TCP port on 127.0.0.1 that leads to its port 22.
    pub port: u16,
    /// The tool's private key.
    pub identity: PathBuf,
    /// The node's public host key, made before it booted.
    pub host_key: PathBuf,
    /// The same for all nodes, in OpenSSH's form.
    pub known_hosts: PathBuf,
}

impl Target {
    /// `node` of the lab in `files`, behind `port`.
    pub fn new(files: &LabFiles, node: &str, port: u16) -> Self {
        Self {
            node: node.to_owned(),
            port,
            identity: files.ssh_key(),
            host_key: files.host_key(node).with_added_extension("pub"),
            known_hosts: files.known_hosts(),
        }
    }
}

/// The argument vector of the system's `ssh`, with our key and the pinned host key and nothing of the person's configuration.
///
/// An empty `command` is a login shell.
pub fn openssh_argv(target: &Target, command: &[String]) -> Result<Vec<String>> {
    // An option's value is split at spaces unless quoted, and `%` begins a token.
    let path = |p: &Path| {
        let text = p.to_str().filter(|t| !t.contains('"')).ok_or_else(|| {
            Error::Host(
                Problem::new("name the file to ssh")
                    .on(p.display())
                    .observed("a quote, or no UTF-8, in its path")
                    .remedy("set FAILOVERLAB_HOME to another folder"),
            )
        })?;
        Ok::<_, Error>(format!("\"{}\"", text.replace('%', "%%")))
    };
    let mut argv: Vec<String> = ["ssh", "-F", "none", "-p"].map(Into::into).to_vec();
    argv.push(target.port.to_string());
    for option in [
        format!("IdentityFile={}", path(&target.identity)?),
        format!("UserKnownHostsFile={}", path(&target.known_hosts)?),
        format!("HostKeyAlias={}", target.node),
        "GlobalKnownHostsFile=/dev/null".into(),
        "StrictHostKeyChecking=yes".into(),
        "IdentitiesOnly=yes".into(),
        "PreferredAuthentications=publickey".into(),
        "ControlPath=none".into(),
        "LogLevel=ERROR".into(),
    ] {
        argv.extend(["-o".into(), option]);
    }
    argv.push("root@127.0.0.1".into());
    if !command.is_empty() {
        argv.extend(["--".into(), quote(command)?]);
    }
    Ok(argv)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_systems_ssh_gets_our_files_and_nothing_else() {
        let target = Target {
            node: "node1".into(),
            port: 42,
            identity: "/a b/100%/id".into(),
            host_key: "/x".into(),
            known_hosts: "/k".into(),
        };
        let argv = openssh_argv(&target, &["echo".into(), "a b".into()]).unwrap();
        assert_eq!(argv[..4], ["ssh", "-F", "none", "-p"]);
        assert!(argv.contains(&"IdentityFile=\"/a b/100%%/id\"".to_owned()));
        assert!(argv.contains(&"StrictHostKeyChecking=yes".to_owned()));
        assert_eq!(argv[argv.len() - 3..], ["root@127.0.0.1", "--", "'echo' 'a b'"]);
        let hostile = Target {
            identity: "/a\"b".into(),
            ..target
        };
        assert_eq!(openssh_argv(&hostile, &[]).unwrap_err().exit_code(), 4);
    }
}
