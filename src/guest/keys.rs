//! The keys of one lab: the tool's own and one host key for each node, made before the first boot and pinned.

use crate::error::{Error, IoContext, Problem, Result};
use crate::files::{Home, LabFiles};
use crate::private;
use ssh_key::private::{Ed25519Keypair, PrivateKey};
use ssh_key::{LineEnding, PublicKey};
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// An Ed25519 key pair in OpenSSH's forms.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyPair {
    /// The private key, `-----BEGIN OPENSSH PRIVATE KEY-----`.
    pub private: String,
    /// The public key, `ssh-ed25519 AAAA… comment`.
    pub public: String,
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair")
            .field("public", &self.public)
            .finish_non_exhaustive()
    }
}

/// Everything that SSH needs to know of one lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// The tool's own key: authorised on every node.
    pub tool: KeyPair,
    /// Host key of each node.
    pub hosts: BTreeMap<String, KeyPair>,
}

impl Keys {
    /// Reads the lab's keys and makes what is missing; every file is 0600. The same call again changes nothing.
    pub fn ensure<'a>(files: &LabFiles, nodes: impl IntoIterator<Item = &'a str>) -> Result<Self> {
        Home::private_dir(&files.keys())?;
        let tool = pair(&files.ssh_key(), "failoverlab")?;
        let hosts = nodes
            .into_iter()
            .map(|node| Ok((node.to_owned(), pair(&files.host_key(node), node)?)))
            .collect::<Result<BTreeMap<_, _>>>()?;
        let keys = Self { tool, hosts };
        let known_hosts = keys.known_hosts();
        if std::fs::read_to_string(files.known_hosts()).ok().as_ref() != Some(&known_hosts) {
            write(&files.known_hosts(), &known_hosts)?;
        }
        Ok(keys)
    }

    /// The pinned host keys in OpenSSH's form: a node is known by its name, whatever port leads to it.
    fn known_hosts(&self) -> String {
        self.hosts
            .iter()
            .map(|(node, key)| format!("{node} {}\n", key.public))
            .collect()
    }
}

/// The pair whose private half is at `path` and whose public half is beside it.
fn pair(path: &Path, comment: &str) -> Result<KeyPair> {
    let text = private::made_once(path, || make(path, comment))?;
    let private = PrivateKey::from_openssh(&text).map_err(|e| broken(path, &e.to_string()))?;
    let public = private
        .public_key()
        .to_openssh()
        .tried("write the public key", path.display())?;
    let beside = path.with_added_extension("pub");
    if std::fs::read_to_string(&beside).ok().as_deref() != Some(&format!("{public}\n")) {
        write(&beside, &format!("{public}\n"))?;
    }
    let private = private
        .to_openssh(LineEnding::LF)
        .tried("write the key", path.display())?;
    Ok(KeyPair {
        private: private.to_string(),
        public,
    })
}

fn make(path: &Path, comment: &str) -> Result<String> {
    let pair = Ed25519Keypair::from_seed(&rand::random());
    let key = PrivateKey::new(pair.into(), comment).tried("make the key", path.display())?;
    let text = key.to_openssh(LineEnding::LF).tried("write the key", path.display())?;
    Ok(text.to_string())
}

fn write(path: &Path, text: &str) -> Result<()> {
    private::replace_unsynced(path, text.as_bytes()).tried("write the file", path.display())
}

fn broken(path: &Path, seen: &str) -> Error {
    Error::Operation(
        Problem::new("read the key")
            .on(path.display())
            .observed(seen)
            .remedy("take the lab down and up again: `down` removes its keys, `up` makes new ones"),
    )
}

/// The public key at `path` (a `….pub` beside a private one), as it stands on the wire.
pub(super) fn public_bytes(path: &Path) -> Result<Vec<u8>> {
    let text = fs_err::read_to_string(path).tried("read the key", path.display())?;
    PublicKey::from_openssh(&text)
        .and_then(|key| key.to_bytes())
        .map_err(|e| broken(path, &e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn lab() -> (tempfile::TempDir, LabFiles) {
        let dir = tempfile::tempdir().unwrap();
        let files = Home::under(dir.path()).lab("x");
        (dir, files)
    }

    #[test]
    fn keys_are_made_once_and_closed_to_others() {
        let (_dir, files) = lab();
        let made = Keys::ensure(&files, ["node1", "hub"]).unwrap();
        assert_eq!(Keys::ensure(&files, ["node1", "hub"]).unwrap(), made);
        assert_ne!(made.hosts["node1"], made.hosts["hub"]);
        let more = Keys::ensure(&files, ["node1", "hub", "node2"]).unwrap();
        assert_eq!(more.hosts["hub"], made.hosts["hub"]);
        let mut seen = 0;
        for entry in std::fs::read_dir(files.keys()).unwrap() {
            let entry = entry.unwrap();
            assert_eq!(
                entry.metadata().unwrap().permissions().mode() & 0o777,
                0o600,
                "{:?}",
                entry.path()
            );
            seen += 1;
        }
        assert_eq!(seen, 9);
    }

    #[test]
    fn machines_that_are_prepared_side_by_side_get_the_same_keys() {
        for _ in 0..20 {
            let (_dir, files) = lab();
            let begin = std::sync::Barrier::new(4);
            let each = || {
                begin.wait();
                Keys::ensure(&files, ["node1", "node2"]).unwrap()
            };
            let all: Vec<Keys> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(each)).collect();
                threads.into_iter().map(|t| t.join().unwrap()).collect()
            });
            assert!(all.iter().all(|k| *k == all[0]));
        }
    }

    #[test]
    fn known_hosts_pins_each_node_by_name() {
        let (_dir, files) = lab();
        let keys = Keys::ensure(&files, ["node1"]).unwrap();
        let text = std::fs::read_to_string(files.known_hosts()).unwrap();
        assert_eq!(text, format!("node1 {}\n", keys.hosts["node1"].public));
        assert!(text.starts_with("node1 ssh-ed25519 AAAA"));
    }

    #[test]
    fn a_broken_key_is_an_error_and_is_not_replaced() {
        let (_dir, files) = lab();
        Keys::ensure(&files, ["node1"]).unwrap();
        for garbage in [&b""[..], b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA", &[0xff; 64]] {
            std::fs::write(files.ssh_key(), garbage).unwrap();
            let e = Keys::ensure(&files, ["node1"]).unwrap_err();
            assert_eq!(e.exit_code(), 5, "{e}");
            assert_eq!(std::fs::read(files.ssh_key()).unwrap(), garbage);
        }
    }

    #[test]
    fn private_keys_are_not_in_debug_output() {
        let (_dir, files) = lab();
        assert!(!format!("{:?}", Keys::ensure(&files, ["n"]).unwrap()).contains("PRIVATE"));
    }
}
