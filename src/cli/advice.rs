//! What a person means who writes a word of another tool.

use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Words of other tools for verbs, and what does that here. None of these throws away what the word would keep.
const VERBS: [(&str, &[&str]); 16] = [
    ("destroy", &["down"]),
    ("delete", &["down"]),
    ("rm", &["down"]),
    ("remove", &["down"]),
    ("start", &["up"]),
    ("create", &["up"]),
    ("run", &["up", "verify"]),
    ("stop", &["pause", "down"]),
    ("halt", &["pause", "down"]),
    ("suspend", &["pause"]),
    ("snapshot", &["checkpoint"]),
    ("ps", &["ls"]),
    ("list", &["ls"]),
    ("test", &["verify"]),
    ("version", &["--version"]),
    ("shell", &["ssh"]),
];

/// The same error, with the verb that is meant in place of the one that is spelled alike; a command that lacks its `--` is told so.
pub fn of(mut e: Error) -> Error {
    if matches!(e.kind(), ErrorKind::TooManyValues | ErrorKind::UnknownArgument)
        && let Some(ContextValue::String(arg)) = e.get(ContextKind::InvalidArg)
        && arg.contains(super::exec::TARGET)
    {
        let tip = StyledStr::from("a command comes behind `--`: failoverlab exec LAB NODE -- COMMAND");
        e.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    if e.kind() == ErrorKind::InvalidSubcommand
        && let Some(ContextValue::String(word)) = e.get(ContextKind::InvalidSubcommand)
        && let Some((_, meant)) = VERBS.iter().find(|(w, _)| w == word)
    {
        let meant = meant.iter().map(|m| (*m).to_owned()).collect();
        e.insert(ContextKind::SuggestedSubcommand, ContextValue::Strings(meant));
    }
    e
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tip_is_a_verb_and_no_word_of_ours_is_taken() {
        let command = super::super::command();
        for (word, meant) in VERBS {
            assert!(command.find_subcommand(word).is_none(), "{word}");
            for verb in meant {
                assert!(
                    *verb == "--version" || command.find_subcommand(verb).is_some(),
                    "{verb}"
                );
            }
        }
    }

    #[test]
    fn words_of_other_tools_lead_to_ours() {
        let tip = |word: &str| {
            of(super::super::command()
                .try_get_matches_from(["failoverlab", word])
                .unwrap_err())
            .to_string()
        };
        assert!(tip("destroy").contains("'down'") && !tip("destroy").contains("restore"));
        assert!(tip("stop").contains("'pause', 'down'"));
        let words = ["failoverlab", "exec", "ccr", "node1", "ls"];
        let e = of(super::super::command().try_get_matches_from(words).unwrap_err()).to_string();
        assert!(e.contains("tip: a command comes behind `--`"), "{e}");
        // A word that is only misspelled keeps clap's own.
        assert!(tip("statsu").contains("'status'"));
    }
}
