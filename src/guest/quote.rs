//! An argument vector as one line for a POSIX shell: what SSH's `exec` request carries.

use crate::error::{Error, Problem, Result};

/// `argv` quoted so that a POSIX shell splits it into exactly these words and expands nothing.
///
/// Refused: no program at all, and an argument with a NUL byte, which no argument vector can carry.
pub fn quote(argv: &[String]) -> Result<String> {
    let refuse = |seen: &str| {
        Err(Error::Bug(
            Problem::new("pass an argument vector to a shell")
                .on(format!("{argv:?}"))
                .observed(seen),
        ))
    };
    if argv.first().is_none_or(String::is_empty) {
        return refuse("it names no program");
    }
    if argv.iter().any(|a| a.contains('\0')) {
        return refuse("an argument has a NUL byte");
    }
    Ok(argv
        .iter()
        .enumerate()
        .map(|(i, a)| word(a, i == 0))
        .collect::<Vec<_>>()
        .join(" "))
}

/// One word. A first word with `=` would be an assignment, and one like `if` a keyword: quoted, it is neither.
fn word(arg: &str, first: bool) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:,@%+".contains(c) || (c == '=' && !first);
    let keyword = first && arg.chars().all(|c| c.is_ascii_lowercase());
    if !arg.is_empty() && !keyword && arg.chars().all(plain) {
        arg.to_owned()
    } else {
        format!("'{}'", arg.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn argv(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    /// What `sh` makes of the line: each word, NUL-terminated.
    fn split_by_sh(words: &[String]) -> Vec<String> {
        let mut all = argv(&["printf", r"%s\0"]);
        all.extend_from_slice(words);
        let out = std::process::Command::new("sh")
            .arg("-c")
            .arg(quote(&all).unwrap())
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        text.split_terminator('\0').map(str::to_owned).collect()
    }

    #[test]
    fn plain_words_stay_readable() {
        assert_eq!(
            quote(&argv(&["/usr/bin/x", "--a=b", "c d"])).unwrap(),
            "/usr/bin/x --a=b 'c d'"
        );
    }

    #[test]
    fn keywords_and_assignments_are_programs() {
        assert_eq!(quote(&argv(&["if"])).unwrap(), "'if'");
        assert_eq!(quote(&argv(&["A=b", "c"])).unwrap(), "'A=b' c");
    }

    #[test]
    fn what_no_argument_vector_can_carry_is_refused() {
        for bad in [&[][..], &argv(&[""]), &argv(&["a", "b\0c"])] {
            assert!(matches!(quote(bad), Err(Error::Bug(_))), "{bad:?}");
        }
    }

    #[test]
    fn hostile_words_come_out_as_they_went_in() {
        let hostile = argv(&[
            "",
            "$(touch /tmp/x)",
            "`id`",
            "'",
            "''",
            "a\nb",
            "*",
            "~",
            "#",
            "-n",
            "\\",
            "!",
            "é\u{1}",
        ]);
        assert_eq!(split_by_sh(&hostile), hostile);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_words_come_out_as_they_went_in(words in prop::collection::vec("[^\0]{0,12}", 1..6)) {
            prop_assert_eq!(split_by_sh(&words), words);
        }
    }
}
