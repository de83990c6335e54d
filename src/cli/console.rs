//! `console`: a machine's serial console, over its unix socket. Ctrl-] leaves.

use super::Ended;
use super::exec::lab_and_node;
use crate::error::{Error, IoContext, Problem, Result};
use crate::files::Home;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;

/// Ctrl-].
const LEAVE: u8 = 0x1d;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The lab (may be left out, as for the other verbs) and the machine
    #[arg(value_name = "[LAB] NODE", num_args = 1..=2, required = true)]
    target: Vec<String>,
}

pub fn run(home: &Home, args: Args) -> Ended {
    let (lab, node) = lab_and_node(home, &args.target)?;
    if !std::io::stdin().is_terminal() {
        return Err(Error::Usage(
            Problem::new("attach to the console")
                .on(&node)
                .observed("stdin is no terminal")
                .remedy("failoverlab logs --node NODE --console"),
        ));
    }
    let path = home.lab(&lab.instance).node(&node).console();
    let socket =
        UnixStream::connect(&path).tried("attach to the console (is somebody else attached?)", path.display())?;
    eprintln!("attached to {node}; Ctrl-] leaves");
    let _raw = Raw::enter()?;
    let mut from = socket.try_clone().tried("attach to the console", path.display())?;
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut Unbuffered);
        // The machine went away: nothing will be typed to anybody.
        drop(from.shutdown(std::net::Shutdown::Both));
    });
    type_to(socket)?;
    Ok(0)
}

fn type_to(mut socket: UnixStream) -> Result<()> {
    let mut byte = [0];
    while std::io::stdin().read(&mut byte).tried("read the terminal", "stdin")? == 1 && byte[0] != LEAVE {
        if socket.write_all(&byte).is_err() {
            break;
        }
    }
    Ok(())
}

/// Shows every byte at once.
struct Unbuffered;

impl Write for Unbuffered {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        let mut out = std::io::stdout();
        out.write_all(buf)?;
        out.flush()?;
        Ok(buf.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The terminal in raw mode; as it was before when dropped.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let before = tcgetattr(std::io::stdin()).tried("read the terminal's mode", "stdin")?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).tried("set the terminal's mode", "stdin")?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
        eprintln!();
    }
}
