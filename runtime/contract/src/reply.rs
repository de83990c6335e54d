//! Who answered: the text that the store puts into its LMTP replies, its POP3 greeting and its answer to QUIT.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `node=node1 epoch=7 stream=3f… generation=42`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct By {
    /// The member that answered.
    pub node: String,
    /// Its epoch.
    pub epoch: u64,
    /// The log stream.
    pub stream: String,
    /// The generation that holds what was acknowledged (0: nothing was written).
    pub generation: u64,
}

impl std::fmt::Display for By {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "node={} epoch={} stream={} generation={}",
            self.node, self.epoch, self.stream, self.generation
        )
    }
}

impl By {
    /// Finds the four words anywhere in a reply's text; null where one is missing or malformed.
    pub fn find(text: &str) -> Option<By> {
        let word = |name: &str| {
            text.split_ascii_whitespace()
                .find_map(|w| w.strip_prefix(name)?.strip_prefix('='))
                .filter(|v| !v.is_empty())
        };
        Some(By {
            node: word("node")?.to_owned(),
            epoch: word("epoch")?.parse().ok()?,
            stream: word("stream")?.to_owned(),
            generation: word("generation")?.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn found_again_in_a_reply() {
        let by = By {
            node: "node1".into(),
            epoch: 7,
            stream: "3f".into(),
            generation: 42,
        };
        assert_eq!(By::find(&format!("250 2.1.5 stored {by}")), Some(by));
    }

    #[test]
    fn nothing_is_guessed() {
        for t in [
            "",
            "node=a epoch=x stream=s generation=1",
            "node= epoch=1 stream=s generation=1",
            "250 ok",
        ] {
            assert_eq!(By::find(t), None, "{t}");
        }
    }
}
