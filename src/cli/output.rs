//! What goes to stdout and stderr at the end of a verb.

use crate::error::{Error, IoContext, Result};
use std::io::Write;

/// One JSON document on stdout.
pub fn json(value: &impl serde::Serialize) -> Result<()> {
    let text = serde_json::to_string_pretty(value).expect("a result is plain data");
    text_out(&text)
}

/// Lines on stdout. A reader that has gone away (`| head`) is no error.
pub fn text_out(text: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{text}") {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.tried("write to stdout", ""),
    }
}

/// A remark for a person, on stderr: stdout is for results.
pub fn remark(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// The error for a person: what was tried, on what, what was seen last, what to do. Where one JSON document was asked for, stdout
/// gets that as well.
pub fn error(e: &Error, as_json: bool) {
    let _ = writeln!(std::io::stderr(), "{}", render(e));
    if as_json {
        // A reader that has gone away has the exit code.
        let _ = json(&document(e));
    }
}

/// The error as `--json` shows it: `{"error": {"class", "exit", "what", "on", "seen", "remedy", "rollback"}}`, and `files` with the
/// findings of each where a file is invalid.
fn document(e: &Error) -> serde_json::Value {
    let class = match e {
        Error::Invalid(_) => "invalid",
        Error::Usage(_) => "usage",
        Error::Host(_) => "host",
        Error::Operation(_) => "operation",
        Error::Interrupted => "interrupted",
        Error::Bug(_) => "bug",
    };
    let mut error = e.problem().map_or_else(
        || serde_json::json!({}),
        |p| serde_json::to_value(p).expect("a problem is plain data"),
    );
    error["class"] = class.into();
    error["exit"] = e.exit_code().into();
    if let Error::Invalid(invalid) = e {
        error["files"] = invalid.files().collect();
    }
    serde_json::json!({ "error": error })
}

fn render(e: &Error) -> String {
    let Some(p) = e.problem() else {
        return format!("error: {e}");
    };
    let mut out = match e {
        Error::Bug(_) => format!("error: bug in failoverlab: could not {}", p.what),
        _ => format!("error: could not {}", p.what),
    };
    let mut line = |name: &str, text: &str| {
        let mut lines = text.trim_end().lines();
        out += &format!("\n  {name:>7}: {}", lines.next().unwrap_or_default());
        for l in lines {
            out += &format!("\n  {:>7}  {l}", "");
        }
    };
    if let Some(on) = p.on.as_deref().filter(|s| !s.is_empty()) {
        line("on", on);
    }
    if let Some(seen) = &p.observed {
        line("seen", seen);
    }
    if let Some(remedy) = &p.remedy {
        line("remedy", remedy);
    }
    for failure in &p.rollback {
        line("undo", failure);
    }
    if matches!(e, Error::Bug(_)) {
        line("remedy", "please report this with the command and the lab file");
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Problem;

    #[test]
    fn an_error_says_what_where_why_and_what_to_do() {
        let e = Error::Operation(
            Problem::new("start the machine")
                .on("node1")
                .observed("qemu: line one\nline two")
                .remedy("try again"),
        );
        let e = e.with_rollback(["could not remove x: busy".to_owned()]);
        insta::assert_snapshot!(render(&e), @r"
        error: could not start the machine
               on: node1
             seen: qemu: line one
                   line two
           remedy: try again
             undo: could not remove x: busy
        ");
    }
}
