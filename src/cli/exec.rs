//! `ssh` and `exec`: a command in a machine, with its own status; 255 where it could not be run.

use super::target::{LabArg, Running, instance, running};
use super::{Ended, output};
use crate::error::{Error, IoContext, Problem, Result};
use crate::files::Home;
use crate::guest::ssh::{Ssh, Target};
use crate::guest::{self, Command, Remote};
use crate::lab::client::Client;
use crate::wait::Deadline;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::process::CommandExt;
use std::time::Duration;

/// Status where the command could not be run at all, as ssh(1) has it.
const NOT_RUN: u8 = 255;

/// What names a machine.
pub(super) const TARGET: &str = "[LAB] NODE";

#[derive(Debug, clap::Args)]
pub struct SshArgs {
    /// The lab (may be left out, as for the other verbs) and the machine
    #[arg(value_name = TARGET, num_args = 1..=2, required = true)]
    target: Vec<String>,
    /// A command instead of a login, after `--`
    #[arg(last = true)]
    command: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub struct ExecArgs {
    /// The lab (may be left out, as for the other verbs) and the machine
    #[arg(value_name = TARGET, num_args = 1..=2, required = true)]
    target: Vec<String>,
    /// Give up after this many seconds
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// The command, after `--`
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Lab and node of `[LAB] NODE`.
pub fn lab_and_node(home: &Home, target: &[String]) -> Result<(Running, String)> {
    let (lab, node) = match target {
        [node] => (None, node),
        [lab, node] => (Some(lab.clone()), node),
        _ => unreachable!("clap takes one or two"),
    };
    let arg = LabArg { lab };
    if let (None, Err(e)) = (&arg.lab, instance(home, &arg)) {
        return Err(match instance(home, &LabArg::of(node)) {
            Ok(lab) => lab_alone(&lab),
            Err(_) => e,
        });
    }
    let lab = running(home, &arg)?;
    lab.node(node)?;
    Ok((lab, node.clone()))
}

fn lab_alone(lab: &str) -> Error {
    Error::Usage(
        Problem::new("find the machine")
            .on(lab)
            .observed("it is a lab, and no machine is named")
            .remedy(format!("name the machine behind it: {lab} NODE")),
    )
}

pub fn ssh(home: &Home, args: SshArgs) -> Ended {
    let (lab, node) = lab_and_node(home, &args.target)?;
    let way = lab.way(home, &node)?;
    let argv = guest::ssh::openssh_argv(&way, &args.command)?;
    let failed = std::process::Command::new(&argv[0]).args(&argv[1..]).exec();
    Err(failed).tried("start ssh (is openssh-client installed?)", &argv[0])
}

pub fn exec(home: &Home, args: ExecArgs) -> Ended {
    let (lab, node) = lab_and_node(home, &args.target)?;
    let way = lab.way(home, &node)?;
    let mut stdin = Vec::new();
    if !std::io::stdin().is_terminal() {
        std::io::stdin().read_to_end(&mut stdin).tried("read stdin", "")?;
    }
    let deadline = Deadline::after(Duration::from_secs(args.timeout));
    let command = Command {
        argv: args.command,
        stdin,
    };
    match way_in(home, &lab, &way, deadline).and_then(|mut r| r.exec(&command, deadline)) {
        Ok(out) => {
            let written = std::io::stdout()
                .write_all(&out.stdout)
                .and_then(|()| std::io::stderr().write_all(&out.stderr));
            written.tried("write the command's output", "")?;
            Ok(u8::try_from(out.status).unwrap_or(NOT_RUN))
        }
        Err(e) => not_run(&e),
    }
}

/// Over the machine's agent, by the supervisor that has the line to it; over SSH where there is none that answers.
fn way_in(home: &Home, lab: &Running, way: &Target, deadline: Deadline) -> Result<Box<dyn Remote>> {
    let supervisor = Client::find(&home.lab(&lab.instance));
    if let Ok(Some(client)) = supervisor
        && let Ok(remote) = client.agent(&way.node, deadline)
    {
        return Ok(Box::new(remote));
    }
    Ok(Box::new(Ssh::connect(way, deadline)?))
}

fn not_run(e: &Error) -> Ended {
    output::error(e, false);
    Ok(NOT_RUN)
}
