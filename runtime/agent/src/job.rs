//! What a job is to the system: a process group with its pipes, or a file.

use crate::core::{Core, Input, JobId};
use crate::message::{End, PART, Stream};
use crate::sys;
use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};

/// How much of a killed command's last words is read: somebody who left its group may go on talking.
const LAST_WORDS: usize = 64 << 10;

/// A process group.
#[derive(Debug)]
pub struct Process {
    child: Child,
    end: OwnedFd,
    stdin: Option<ChildStdin>,
    waiting: Vec<u8>,
    input_ended: bool,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    exited: bool,
    /// Its number is not its own any more.
    reaped: bool,
    killed: bool,
}

/// Which of a process's descriptors is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Its end.
    End,
    /// Its input.
    Stdin,
    /// Its output.
    Output(Stream),
}

impl Process {
    /// Begins it, with an environment like that of a login of root.
    ///
    /// # Errors
    /// The status that a shell would give, and why.
    pub fn spawn(argv: &[String], home: &Path) -> Result<Self, (i32, String)> {
        let failed = |e: io::Error| {
            let status = if e.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
            (status, format!("{}: {e}", argv[0]))
        };
        let mut child = Command::new(&argv[0])
            .args(&argv[1..])
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", home)
            .envs([("USER", "root"), ("LOGNAME", "root"), ("SHELL", "/bin/bash")])
            .current_dir(home)
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let prepared = [
            stdin.as_ref().map(sys::do_not_wait),
            stdout.as_ref().map(sys::do_not_wait),
            stderr.as_ref().map(sys::do_not_wait),
        ];
        let end = prepared
            .into_iter()
            .flatten()
            .collect::<io::Result<()>>()
            .and_then(|()| sys::pidfd(child.id()));
        match end {
            Ok(end) => Ok(Self {
                child,
                end,
                stdin,
                waiting: Vec::new(),
                input_ended: false,
                stdout,
                stderr,
                exited: false,
                reaped: false,
                killed: false,
            }),
            Err(e) => {
                sys::kill_group(child.id());
                let _ = child.wait();
                Err(failed(e))
            }
        }
    }

    /// Takes input; it is written as the command reads it.
    pub fn input(&mut self, bytes: &[u8]) {
        self.waiting.extend_from_slice(bytes);
    }

    /// No more input.
    pub fn input_end(&mut self) {
        self.input_ended = true;
        if self.waiting.is_empty() {
            self.stdin = None;
        }
    }

    /// Kills the group.
    pub fn kill(&mut self) {
        self.killed = true;
        sys::kill_group(self.child.id());
    }

    /// What is to be waited for. `room` says how much may be read of a stream.
    pub fn interests(&self, room: impl Fn(Stream) -> usize) -> Vec<(Side, sys::PollFd)> {
        let mut all = Vec::new();
        if !self.exited {
            all.push((Side::End, sys::interest(&self.end, false)));
        }
        if let Some(stdin) = self.stdin.as_ref().filter(|_| !self.waiting.is_empty()) {
            all.push((Side::Stdin, sys::interest(stdin, true)));
        }
        if let Some(out) = self.stdout.as_ref().filter(|_| room(Stream::Out) > 0) {
            all.push((Side::Output(Stream::Out), sys::interest(out, false)));
        }
        if let Some(err) = self.stderr.as_ref().filter(|_| room(Stream::Err) > 0) {
            all.push((Side::Output(Stream::Err), sys::interest(err, false)));
        }
        all
    }

    /// Does what one of its descriptors is ready for; what there is to tell.
    pub fn ready(&mut self, id: JobId, side: Side, core: &Core) -> Option<Input> {
        match side {
            Side::End => {
                self.exited = true;
                None
            }
            Side::Stdin => {
                let taken = self.feed();
                (taken > 0).then_some(Input::Taken(id, taken))
            }
            Side::Output(stream) => {
                let bytes = self.read(stream, core.room(id, stream))?;
                Some(Input::Output(id, stream, bytes))
            }
        }
    }

    /// Writes what the pipe takes. A command that stopped reading is none of our business: its status tells.
    fn feed(&mut self) -> usize {
        let Some(stdin) = &mut self.stdin else { return 0 };
        let taken = match stdin.write(&self.waiting) {
            Ok(n) => n,
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => 0,
            Err(_) => self.waiting.len(),
        };
        self.waiting.drain(..taken);
        if self.waiting.is_empty() && self.input_ended {
            self.stdin = None;
        }
        taken
    }

    /// What a stream has now; `None` where that is nothing, and its end is noted.
    fn read(&mut self, stream: Stream, most: usize) -> Option<Vec<u8>> {
        let mut part = vec![0; most.min(PART)];
        let from: &mut dyn Read = match stream {
            Stream::Out => self.stdout.as_mut()?,
            Stream::Err => self.stderr.as_mut()?,
        };
        match from.read(&mut part) {
            Ok(n) if n > 0 => {
                part.truncate(n);
                return Some(part);
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            _ => match stream {
                Stream::Out => self.stdout = None,
                Stream::Err => self.stderr = None,
            },
        }
        None
    }

    /// How it ended, once it has and all that it printed was read; of one that was killed, what can be read at once, which is `tell`'s.
    pub fn ended(&mut self, tell: &mut dyn FnMut(Stream, Vec<u8>)) -> Option<End> {
        if !self.exited || !self.killed && (self.stdout.is_some() || self.stderr.is_some()) {
            return None;
        }
        for stream in [Stream::Out, Stream::Err] {
            let mut read = 0;
            while let Some(bytes) = self.read(stream, PART).filter(|_| read < LAST_WORDS) {
                read += bytes.len();
                tell(stream, bytes);
            }
        }
        let status = self.child.wait().ok()?;
        self.reaped = true;
        Some(match (status.code(), status.signal()) {
            (Some(code), _) => End::Exited(code),
            (None, signal) => End::Signalled(signal.unwrap_or_default()),
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = self.child.wait();
        }
    }
}

/// A file that is being written: beside its place, until it is whole.
#[derive(Debug)]
pub struct NewFile {
    file: File,
    beside: PathBuf,
    to: PathBuf,
    mode: u32,
    whole: bool,
}

impl NewFile {
    /// Makes it, and folders that are missing on the way.
    ///
    /// # Errors
    /// Why it cannot be written there.
    pub fn create(path: &str, mode: u32, id: JobId) -> io::Result<Self> {
        let (folder, name) = path.rsplit_once('/').unwrap_or_default();
        if matches!(name, "" | "." | "..") {
            return Err(io::Error::other("the path names no file"));
        }
        let folder = Path::new(if folder.is_empty() { "/" } else { folder });
        DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
        let beside = folder.join(format!(".failoverlab-{}-{id}", std::process::id()));
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        Ok(Self {
            file,
            beside,
            to: path.into(),
            mode: mode & 0o7777,
            whole: false,
        })
    }

    /// The next bytes.
    ///
    /// # Errors
    /// Why they could not be written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)
    }

    /// It is whole: puts it in its place.
    ///
    /// # Errors
    /// Why it cannot be there; what was there still is.
    pub fn finish(mut self) -> io::Result<()> {
        self.file.set_permissions(Permissions::from_mode(self.mode))?;
        std::fs::rename(&self.beside, &self.to)?;
        self.whole = true;
        Ok(())
    }
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if !self.whole {
            let _ = std::fs::remove_file(&self.beside);
        }
    }
}

/// Opens a file to read it.
///
/// # Errors
/// Why it cannot be read; also where it is no regular file: nobody knows when one of those has an end.
pub fn open(path: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(sys::O_NONBLOCK).open(path)?;
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::from(io::ErrorKind::IsADirectory));
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}
