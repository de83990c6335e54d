//! `serve`: the page of labs that are up, or of a run, on loopback.

use super::target::{LabArg, running};
use super::{Ended, output};
use crate::files::Home;
use crate::view::Replay;
use crate::web::{self, Shows};
use std::path::PathBuf;
use std::process::{Command, Stdio};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The only lab to show; all that are up where absent
    #[arg(value_name = "LAB")]
    lab: Option<String>,
    /// The folder of a run of `verify` instead, at any of its moments
    #[arg(long, value_name = "RUN", conflicts_with = "lab")]
    replay: Option<PathBuf>,
    /// Show only: the page orders nothing
    #[arg(long)]
    read_only: bool,
    /// Port of 127.0.0.1; a free one where absent
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// Do not open the browser
    #[arg(long)]
    no_open: bool,
    /// Print address and process as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let shows = match (&args.replay, args.lab) {
        (Some(folder), _) => Shows::Run {
            folder: folder.display().to_string(),
            all: Replay::read(folder)?,
        },
        (None, None) => Shows::labs(home.clone(), None),
        (None, lab) => {
            let lab = running(home, &LabArg { lab })?;
            // A supervisor that died is replaced, as by every other command.
            drop(lab.client(home)?);
            Shows::labs(home.clone(), Some(lab.instance))
        }
    };
    let (as_json, opens) = (args.json, !args.no_open);
    web::serve(shows, args.port, args.read_only, |url| {
        if as_json {
            output::json(&serde_json::json!({"url": url, "pid": std::process::id()}))?;
        } else {
            output::text_out(url)?;
            output::remark(
                "Ctrl-C ends it; whoever has this address sees and breaks your labs: it is for this machine only",
            );
        }
        if opens {
            open(url);
        }
        Ok(())
    })?;
    Ok(0)
}

/// Opens the browser where there is a screen. Where that fails the address is on the terminal.
fn open(url: &str) {
    if ["DISPLAY", "WAYLAND_DISPLAY"]
        .iter()
        .all(|v| std::env::var_os(v).is_none())
    {
        return;
    }
    let none = Stdio::null;
    let _ = Command::new("xdg-open")
        .arg(url)
        .stdin(none())
        .stdout(none())
        .stderr(none())
        .spawn();
}
