//! `capture`: what passes the networks' ports, as pcapng.

use super::target::{LabArg, running};
use super::{Ended, on_interrupt, output};
use crate::error::{Error, IoContext, Problem};
use crate::fabric::CaptureFilter;
use crate::files::Home;
use crate::private;
use crate::units::Span;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    lab: LabArg,
    /// Only this network
    #[arg(long)]
    network: Option<String>,
    /// Only the ports of this node (or `workstation`)
    #[arg(long)]
    node: Option<String>,
    /// Where to; stdout where absent, for `| wireshark -k -i -`
    #[arg(long, short)]
    output: Option<PathBuf>,
    /// End by itself after this time, like `30 s`; else Ctrl-C ends it
    #[arg(long = "for", value_name = "TIME")]
    span: Option<Span>,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let stdout = std::io::stdout();
    if args.output.is_none() && stdout.is_terminal() {
        return Err(Error::Usage(
            Problem::new("write a capture")
                .observed("stdout is a terminal")
                .remedy("give a file with -o, or a reader: | wireshark -k -i -"),
        ));
    }
    let lab = running(home, &args.lab)?;
    let client = lab.client(home)?;
    // Either way the end is orderly: what passed until then is still written.
    let hang_up = client.hang_up()?;
    on_interrupt(hang_up)?;
    if let Some(span) = args.span {
        let hang_up = client.hang_up()?;
        std::thread::Builder::new()
            .name("until".into())
            .spawn(move || {
                crate::wait::pause(span.duration());
                hang_up();
            })
            .tried("end the capture in time", "")?;
    }
    let mut frames = client.capture(CaptureFilter {
        network: args.network,
        node: args.node,
    })?;
    let mut to: Box<dyn Write> = match &args.output {
        Some(path) => Box::new(private::create(path).tried("write the capture", path.display())?),
        None => Box::new(stdout.lock()),
    };
    let copied = std::io::copy(&mut frames, &mut to).and_then(|n| to.flush().map(|()| n));
    match copied {
        Ok(n) => {
            output::remark(&format!("{}: {n} bytes captured", lab.instance));
            Ok(0)
        }
        // The reader has gone away.
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => Ok(0),
        Err(e) => Err(e).tried("write the capture", args.output.unwrap_or_default().display()),
    }
}
