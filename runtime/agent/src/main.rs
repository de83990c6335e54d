//! `lab-agent` serves at its virtio-serial port; `lab-agent -` at its standard input, which is a socket then.

use lab_agent::{AtEnd, PORT, ThisMachine, serve};
use std::fs::{File, OpenOptions, read_dir, read_to_string};
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("lab-agent: {e}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> io::Result<()> {
    let mut machine = ThisMachine::new()?;
    if std::env::args().nth(1).as_deref() == Some("-") {
        let socket = File::from(io::stdin().as_fd().try_clone_to_owned()?);
        return serve(socket, &mut machine, "/".into(), AtEnd::Stop);
    }
    let port = OpenOptions::new().read(true).write(true).open(find_port()?)?;
    serve(port, &mut machine, "/root".into(), AtEnd::Wait)
}

/// The device whose name the host has given.
fn find_port() -> io::Result<PathBuf> {
    for entry in read_dir("/sys/class/virtio-ports")? {
        let entry = entry?;
        if read_to_string(entry.path().join("name")).is_ok_and(|name| name.trim_end() == PORT) {
            return Ok(PathBuf::from("/dev").join(entry.file_name()));
        }
    }
    let seen = format!("no port is called {PORT}");
    Err(io::Error::new(io::ErrorKind::NotFound, seen))
}
