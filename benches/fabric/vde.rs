//! vde_switch as a reference: started in its own folder, joined by its control protocol.

use super::load::{Wire, introduce};
use failoverlab::wait::{Deadline, Probe, wait_until};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running vde_switch; ended when dropped.
pub struct Vde(Child, Vec<UnixStream>);

impl Drop for Vde {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The switch with two machines.
pub fn start(dir: &Path) -> io::Result<(Vde, Wire, Wire)> {
    let sock = dir.join("vde");
    let child = Command::new("vde_switch")
        .arg("-sock")
        .arg(&sock)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let mut vde = Vde(child, Vec::new());
    let ctl = sock.join("ctl");
    wait_until("start vde_switch", Deadline::after(Duration::from_secs(5)), || {
        Ok(if ctl.exists() {
            Probe::Ready(())
        } else {
            Probe::NotYet("no control socket".into())
        })
    })
    .map_err(io::Error::other)?;
    let mut wires = Vec::new();
    for n in 0..2 {
        let (control, data) = join(&ctl, &dir.join(format!("v{n}")))?;
        vde.1.push(control);
        wires.push(Wire::Unix(data, None));
    }
    let (Some(b), Some(a)) = (wires.pop(), wires.pop()) else {
        return Err(io::ErrorKind::NotConnected.into());
    };
    introduce(&a, &b)?;
    Ok((vde, a, b))
}

/// Version 3 of the request: magic, version, type (any port), the sender's address, a description.
fn join(ctl: &Path, own: &Path) -> io::Result<(UnixStream, UnixDatagram)> {
    const ADDRESS: usize = 110;
    let data = UnixDatagram::bind(own)?;
    let mut request = Vec::new();
    request.extend(0xfeed_face_u32.to_ne_bytes());
    request.extend(3u32.to_ne_bytes());
    request.extend(0u32.to_ne_bytes());
    let mut address = vec![0; ADDRESS];
    address[..2].copy_from_slice(&1u16.to_ne_bytes());
    address[2..2 + own.as_os_str().len()].copy_from_slice(own.as_os_str().as_bytes());
    request.extend(address);
    request.extend(b"bench\0");
    let mut control = UnixStream::connect(ctl)?;
    control.write_all(&request)?;
    let mut answer = [0; ADDRESS];
    let n = control.read(&mut answer)?;
    let path: Vec<u8> = answer[2..n.max(2)].iter().copied().take_while(|b| *b != 0).collect();
    data.connect(Path::new(std::ffi::OsStr::from_bytes(&path)))?;
    Ok((control, data))
}
