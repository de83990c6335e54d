//! `logs`: the lab's events, or what a machine printed on its console.

use super::target::{LabArg, running};
use super::{Ended, output};
use crate::error::IoContext;
use crate::event::{Event, Severity};
use crate::files::Home;
use crate::lab::client::StreamItem;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// Only events of this node
    #[arg(long)]
    node: Option<String>,
    /// What the node printed on its serial console, instead of events
    #[arg(long, requires = "node")]
    console: bool,
    /// Go on with events as they happen, until Ctrl-C
    #[arg(long, short)]
    follow: bool,
    /// Detail too
    #[arg(long)]
    debug: bool,
    /// Print each event as a JSON line
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let lab = running(home, &args.lab)?;
    let files = home.lab(&lab.instance);
    if let Some(node) = &args.node {
        lab.node(node)?;
        if args.console {
            let path = files.node(node).console_log();
            let text = fs_err::read(&path).tried("read the console's log", path.display())?;
            output::text_out(String::from_utf8_lossy(&text).trim_end())?;
            return Ok(0);
        }
    }
    let path = files.events();
    let text = fs_err::read_to_string(&path).tried("read the journal", path.display())?;
    let mut next = 0;
    for event in text.lines().filter_map(|l| serde_json::from_str::<Event>(l).ok()) {
        next = event.seq + 1;
        show(&args, &event)?;
    }
    if args.follow {
        let on = |item: StreamItem<'_>| match item {
            StreamItem::Event(e) => show(&args, e).is_ok(),
            StreamItem::Gap { from, to } => {
                output::remark(&format!("events {from} to {to} are missing"));
                true
            }
        };
        lab.client(home)?.follow(Some(next), on)?;
    }
    Ok(0)
}

fn show(args: &Args, e: &Event) -> crate::error::Result<()> {
    let wanted =
        args.node.as_ref().is_none_or(|n| e.node.as_ref() == Some(n)) && (args.debug || e.severity > Severity::Debug);
    if !wanted {
        return Ok(());
    }
    if args.json {
        return output::text_out(&serde_json::to_string(e).expect("an event is plain data"));
    }
    output::text_out(&line(e))
}

fn line(e: &Event) -> String {
    let id = e.id.map(|i| format!(" [{i}]")).unwrap_or_default();
    let data = match &e.data {
        serde_json::Value::Object(o) => o
            .iter()
            .map(|(k, v)| match v {
                serde_json::Value::String(s) => format!("{k}={s}"),
                v => format!("{k}={v}"),
            })
            .collect::<Vec<_>>()
            .join(" "),
        serde_json::Value::Null => String::new(),
        v => v.to_string(),
    };
    let mark = match e.severity {
        Severity::Error => "✗",
        Severity::Warning => "!",
        _ => " ",
    };
    format!(
        "{:>10.3} {mark} {:<8} {}{id} {data}",
        e.t_us as f64 / 1e6,
        e.node.as_deref().unwrap_or("-"),
        e.kind
    )
}
