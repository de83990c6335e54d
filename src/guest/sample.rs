//! A resolved lab for tests.

use crate::spec::Lab;

/// Two members and a hub on two networks, with a witness share and the runtime `ccr`.
pub(crate) fn ccr() -> Lab {
    serde_json::from_str(include_str!("../../tests/machine/lab.json")).expect("a lab")
}
