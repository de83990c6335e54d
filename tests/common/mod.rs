//! What tests of single machines share: the image they boot, ports, a stopwatch.
//!
//! They need `FAILOVERLAB_TEST_IMAGE`: the folder of an image that `failoverlab image build ccr` made. `scripts/test soak` sets it.

use failoverlab::image::{Image, Manifest};
use std::path::PathBuf;
use std::time::Instant;

/// The image that machines boot.
pub fn image() -> Image {
    let dir: PathBuf = std::env::var_os("FAILOVERLAB_TEST_IMAGE")
        .expect("FAILOVERLAB_TEST_IMAGE names the folder of an image")
        .into();
    let manifest = dir.join("image.json");
    let text = std::fs::read(&manifest).unwrap_or_else(|e| panic!("{}: {e}", manifest.display()));
    serde_json::from_slice::<Manifest>(&text).unwrap().image(&dir)
}

/// A TCP port of the loopback that no process listens on now.
pub fn free_port() -> u16 {
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    socket.local_addr().unwrap().port()
}

/// Prints how long `f` took.
pub fn timed<T>(what: &str, f: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let v = f();
    eprintln!("{what:<40} {:>8.1} ms", begin.elapsed().as_secs_f64() * 1000.0);
    v
}
