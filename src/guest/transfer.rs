//! A file into a machine by a command that reads it: the same over SSH and through the agent.

use crate::error::{Error, Problem, Result};
use crate::guest::{Command, Remote};
use crate::wait::Deadline;
use std::path::Path;

/// Writes its input beside the file and renames it, but only if all of it came: `$1` path, `$2` mode, `$3` bytes.
const UPLOAD: &str = r#"set -e
dir=${1%/*}
[ -z "$dir" ] || mkdir -p -- "$dir"
umask 077
new=$1.failoverlab-new
trap 'rm -f -- "$new"' EXIT
cat >"$new"
[ "$(stat -c %s -- "$new")" = "$3" ] || { echo "only part of it arrived" >&2; exit 1; }
chmod -- "$2" "$new"
mv -fT -- "$new" "$1"
"#;

/// Writes a file over `remote`, which leads to `node`.
pub(super) fn upload(
    remote: &mut dyn Remote,
    node: &str,
    content: &[u8],
    to: &Path,
    mode: u32,
    deadline: Deadline,
) -> Result<()> {
    let command = Command {
        argv: upload_argv(to, mode, content.len())?,
        stdin: content.to_vec(),
    };
    let written = remote.exec(&command, deadline)?;
    written.check_ok("write the file", format_args!("{node}:{}", to.display()))?;
    Ok(())
}

/// The command that writes what it reads to `to`, atomically.
fn upload_argv(to: &Path, mode: u32, bytes: usize) -> Result<Vec<String>> {
    let argv = ["sh", "-c", UPLOAD, "sh"].map(Into::into);
    let arguments = [text_path(to)?, format!("{mode:04o}"), bytes.to_string()];
    Ok(argv.into_iter().chain(arguments).collect())
}

/// An absolute path as text.
pub(super) fn text_path(path: &Path) -> Result<String> {
    path.to_str()
        .filter(|t| t.starts_with('/'))
        .map(str::to_owned)
        .ok_or_else(|| {
            Error::Usage(
                Problem::new("name the file in the machine")
                    .on(path.display())
                    .observed("it is no absolute path in UTF-8"),
            )
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_a_machine_are_absolute() {
        assert!(upload_argv(Path::new("x"), 0o600, 1).is_err());
        assert_eq!(
            upload_argv(Path::new("/a b"), 0o600, 1).unwrap()[4..],
            ["/a b", "0600", "1"]
        );
    }
}
