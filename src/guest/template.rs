//! minijinja for files in machines: strict, and each value escaped for the kind of file it goes into.
//!
//! A value in a `.toml` file is written as a TOML value, quotes included. Every other file is made of lines (networkd, systemd,
//! smb.conf, hosts), whose escaping differs from key to key: there a value with anything but harmless characters is refused.

use crate::error::{Error, IoContext, Problem, Result};
use crate::units::Name;
use include_dir::{Dir, include_dir};
use md4::{Digest, Md4};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Serde, Value, ValueKind};
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, UndefinedBehavior};
use serde::Serialize;
use std::path::{Path, PathBuf};

static EMBEDDED: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/templates");

/// The folder of the current folder whose files win over the embedded ones.
const OVERRIDES: &str = "templates";

/// The template at `path` below `templates/`: a file in the current folder's `templates/`, else the embedded one.
pub(crate) fn read(path: &str) -> Result<String> {
    let own = Path::new(OVERRIDES).join(path);
    match fs_err::read_to_string(&own) {
        Ok(text) => return Ok(text),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
        Err(e) => {
            return Err(Error::Operation(
                Problem::new("read the template").on(own.display()).observed(e),
            ));
        }
    }
    EMBEDDED
        .get_file(path)
        .and_then(|f| f.contents_utf8())
        .map(str::to_owned)
        .ok_or_else(|| Error::Usage(Problem::new("find the template").on(format!("{OVERRIDES}/{path}"))))
}

/// The files that win over the embedded templates, which are part of the tool: path below `templates/`, and digest.
pub(crate) fn overrides() -> Result<Vec<(PathBuf, blake3::Hash)>> {
    let mut files = Vec::new();
    list(Path::new(OVERRIDES), &mut files)?;
    files.sort();
    let digest = |path: PathBuf| {
        let content = fs_err::read(&path).tried("read the template", path.display())?;
        let below = path.strip_prefix(OVERRIDES).unwrap_or(&path).to_owned();
        Ok((below, blake3::hash(&content)))
    };
    files.into_iter().map(digest).collect()
}

/// Every file below `dir`, which need not be there. Links are not followed into folders.
fn list(dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let entries = match fs_err::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        other => other.tried("list the templates", dir.display())?,
    };
    for entry in entries {
        let entry = entry.tried("list the templates", dir.display())?;
        if entry.file_type().tried("list the templates", dir.display())?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

/// The folders below `templates/`, embedded or in the current folder, that hold a file of this name.
pub(crate) fn folders_with(file: &str) -> Vec<Name> {
    let embedded = EMBEDDED.dirs().filter(|d| d.get_file(d.path().join(file)).is_some());
    let mut names: Vec<Name> = embedded.filter_map(|d| d.path().to_str()?.parse().ok()).collect();
    let own = std::fs::read_dir(OVERRIDES).into_iter().flatten().flatten();
    names.extend(
        own.filter(|e| e.path().join(file).is_file())
            .filter_map(|e| e.file_name().to_str()?.parse().ok()),
    );
    names.sort();
    names.dedup();
    names
}

/// The template at `path` below `templates/`, filled in.
pub(crate) fn render(path: &str, context: &impl Serialize) -> Result<String> {
    render_text(path, &read(path)?, context)
}

/// `text` filled in, escaped by the ending of `path`.
pub(crate) fn render_text(path: &str, text: &str, context: &impl Serialize) -> Result<String> {
    let env = environment()?;
    env.render_named_str(path, text, Serde(context))
        .map_err(|e| failed("fill in the template", path, &e))
}

/// Whether an expression like `node.role == 'member'` holds; `place` is where it stands.
pub(crate) fn holds(place: &str, expression: &str, context: &impl Serialize) -> Result<bool> {
    let env = environment()?;
    let value = env.compile_expression(expression).and_then(|e| e.eval(Serde(context)));
    let value = value.map_err(|e| failed("judge a `when`", &format!("{place}: {expression}"), &e))?;
    Ok(value.is_true())
}

fn failed(what: &str, place: &str, e: &minijinja::Error) -> Error {
    let place = e
        .line()
        .map_or_else(|| place.to_owned(), |line| format!("{place}:{line}"));
    let seen = e
        .detail()
        .map_or_else(|| e.kind().to_string(), |d| format!("{}: {d}", e.kind()));
    Error::Operation(Problem::new(what).on(place).observed(seen))
}

fn environment() -> Result<Environment<'static>> {
    let syntax = SyntaxConfig::builder()
        .keep_trailing_newline(true)
        .trim_blocks(true)
        .lstrip_blocks(true)
        .build();
    let syntax = syntax.map_err(|e| Error::Bug(Problem::new("set up the template engine").observed(e)))?;
    let mut env = Environment::new();
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|name| {
        AutoEscape::Custom(if name.ends_with(".toml") {
            TOML.into()
        } else {
            LINES.into()
        })
    });
    env.set_formatter(format_value);
    env.add_filter("nt_hash", nt_hash);
    env.set_syntax(syntax);
    Ok(env)
}

/// A password as SMB servers keep it: MD4 of its UTF-16 (MS-NLMP 3.3.1), in capital hexadecimal digits.
fn nt_hash(password: &str) -> String {
    let text: Vec<u8> = password.encode_utf16().flat_map(u16::to_le_bytes).collect();
    Md4::digest(&text).iter().map(|byte| format!("{byte:02X}")).collect()
}

const TOML: &str = "toml";
const LINES: &str = "lines";

fn format_value(out: &mut Output, state: &mut State, value: &Value) -> Result<(), minijinja::Error> {
    if value.is_undefined() {
        return Err(minijinja::Error::from(ErrorKind::UndefinedError));
    }
    match state.auto_escape() {
        AutoEscape::Custom(kind) if kind == TOML => {
            let value = toml::Value::try_from(value)
                .map_err(|e| minijinja::Error::new(ErrorKind::BadEscape, format!("no TOML value: {e}")))?;
            out.write_str(&value.to_string()).map_err(minijinja::Error::from)
        }
        _ => {
            let text = line_text(value)?;
            out.write_str(&text).map_err(minijinja::Error::from)
        }
    }
}

/// Text that means itself in every line-shaped format: no quoting, no specifier, no comment, no end of line.
fn line_text(value: &Value) -> Result<String, minijinja::Error> {
    let refused = |what: String| Err(minijinja::Error::new(ErrorKind::BadEscape, what));
    if !matches!(value.kind(), ValueKind::String | ValueKind::Number | ValueKind::Bool) {
        return refused(format!("a {} is no text for a line", value.kind()));
    }
    let text = value.to_string();
    match text
        .chars()
        .find(|c| !(c.is_ascii_alphanumeric() || " ._:/@,+-".contains(*c)))
    {
        Some(c) => refused(format!("`{}` has the character {c:?}", text.escape_debug())),
        None => Ok(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn one(value: impl Serialize, file: &str) -> Result<String> {
        render_text(file, "v = {{ v }}", &BTreeMap::from([("v", value)]))
    }

    #[test]
    fn lines_take_no_value_that_could_mean_more() {
        assert_eq!(one("10.77.1.11", "a.network").unwrap(), "v = 10.77.1.11");
        for bad in ["a\nb", "%h", "a;b", "a#b", "\"", "$HOME", "=", "é", "\0"] {
            assert!(
                one(bad, "a.network")
                    .unwrap_err()
                    .to_string()
                    .contains("has the character"),
                "{bad:?}"
            );
        }
        assert!(one(["a"], "smb.conf").is_err());
    }

    #[test]
    fn a_missing_value_is_an_error_with_its_place() {
        let e = render_text("x.toml", "a = 1\nb = {{ nothing }}", &BTreeMap::<&str, &str>::new()).unwrap_err();
        assert!(e.to_string().contains("x.toml:2"), "{e}");
        assert!(one(None::<u8>, "x.toml").is_err());
    }

    #[test]
    fn an_nt_hash_is_the_published_one() {
        // MS-NLMP 4.2.2.1.2: the hash of "Password".
        let text = render_text("passwd", "{{ 'Password' | nt_hash }}", &()).unwrap();
        assert_eq!(text, "A4F49C406510BDCAB6824EE7C30FD852");
    }

    #[test]
    fn toml_values_carry_their_own_quotes() {
        assert_eq!(one(vec!["a"], "x.toml").unwrap(), r#"v = ["a"]"#);
        assert_eq!(one(true, "x.toml").unwrap(), "v = true");
    }

    proptest! {
        #[test]
        fn any_text_survives_in_toml(s in "\\PC*|[\\x00-\\x7f]*") {
            let text = one(&s, "x.toml").unwrap();
            let read: toml::Table = text.parse().unwrap();
            prop_assert_eq!(read["v"].as_str(), Some(s.as_str()));
        }
    }
}
