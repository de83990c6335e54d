//! The `mail` workload: clients that speak SMTP, LMTP and POP3 at a steady rate and write down what they were told.
//!
//! The conversations ([`conversation`]) do no I/O; [`load`] drives them over whatever the [`Dial`] connects.

mod content;
mod conversation;
mod journal;
mod load;
mod pop3;
mod reply;
mod smtp;
#[cfg(test)]
mod tests;

pub use content::{Letter, key};
pub use conversation::{Conversation, Ended, Want, converse};
pub use journal::OpJournal;
pub use load::{Endpoints, Load, Service};
pub use pop3::{Pop3, Task};
pub use smtp::{Dialect, Smtp};

use crate::fabric::ClientNet;
use crate::wait::Deadline;
use std::io;
use std::net::{SocketAddrV4, TcpStream};
use std::os::unix::net::UnixStream;

/// A way to connect to an address of the lab, as a client on its networks would.
pub trait Dial: Send + Sync {
    /// Connects before the deadline. An error means that no byte has reached the other side.
    fn dial(&self, to: SocketAddrV4, deadline: Deadline) -> io::Result<Box<dyn Wire>>;
}

/// A connection whose every call has a deadline.
pub trait Wire: Send {
    /// Reads what is there, at least one byte; 0 where the other side has ended.
    fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> io::Result<usize>;
    /// Hands over all of `bytes`.
    fn write_all(&mut self, bytes: &[u8], deadline: Deadline) -> io::Result<()>;
}

macro_rules! wire {
    ($stream:ty) => {
        impl Wire for $stream {
            fn read(&mut self, buffer: &mut [u8], deadline: Deadline) -> io::Result<usize> {
                self.set_read_timeout(Some(left(deadline)?))?;
                io::Read::read(self, buffer)
            }
            fn write_all(&mut self, mut bytes: &[u8], deadline: Deadline) -> io::Result<()> {
                while !bytes.is_empty() {
                    self.set_write_timeout(Some(left(deadline)?))?;
                    match io::Write::write(self, bytes)? {
                        0 => return Err(io::ErrorKind::WriteZero.into()),
                        n => bytes = &bytes[n..],
                    }
                }
                Ok(())
            }
        }
    };
}
wire!(TcpStream);
wire!(UnixStream);

fn left(deadline: Deadline) -> io::Result<std::time::Duration> {
    let left = deadline.left();
    if left.is_zero() {
        Err(io::ErrorKind::TimedOut.into())
    } else {
        Ok(left)
    }
}

/// Straight over the workstation's own network: for tests, and for labs that the workstation can reach by itself.
#[derive(Debug, Clone, Copy)]
pub struct Direct;

impl Dial for Direct {
    fn dial(&self, to: SocketAddrV4, deadline: Deadline) -> io::Result<Box<dyn Wire>> {
        let stream = TcpStream::connect_timeout(&to.into(), left(deadline)?)?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

/// Over the workstation's own port on a lab network.
#[derive(Debug, Clone, Copy)]
pub struct Through<N>(pub N);

impl<N: std::ops::Deref<Target: ClientNet> + Send + Sync> Dial for Through<N> {
    fn dial(&self, to: SocketAddrV4, deadline: Deadline) -> io::Result<Box<dyn Wire>> {
        let stream = self.0.connect(to, deadline).map_err(io::Error::other)?;
        Ok(Box::new(stream))
    }
}
