//! Secrets of a lab: made once, kept 0600 beside its keys, never on a command line.

use super::Pack;
use crate::error::{Error, Problem, Result};
use crate::files::{self, Home};
use crate::private;
use rand::Rng;
use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

/// Characters of a secret: about 190 bits.
const LENGTH: usize = 32;

/// The secrets that a pack asks for.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secrets(pub(super) BTreeMap<String, String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Secrets {
    /// Reads the pack's secrets in `folder` and makes what is missing.
    pub fn ensure(pack: &Pack, folder: &Path) -> Result<Self> {
        Home::private_dir(folder)?;
        let all = pack
            .runtime
            .secrets
            .iter()
            .map(|name| Ok((name.clone(), one(folder, name)?)));
        all.collect::<Result<_>>().map(Self)
    }
}

fn one(folder: &Path, name: &str) -> Result<String> {
    let path = files::secret(folder, name);
    let make = || {
        let letters = rand::rng().sample_iter(rand::distr::Alphanumeric);
        Ok(letters.take(LENGTH).map(char::from).collect())
    };
    let text = private::made_once(&path, make)?;
    if text.len() == LENGTH && text.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Ok(text);
    }
    Err(Error::Operation(
        Problem::new("read the secret")
            .on(path.display())
            .observed("it is not one that failoverlab made")
            .remedy("take the lab down and up again: `down` removes its secrets, `up` makes new ones"),
    ))
}
