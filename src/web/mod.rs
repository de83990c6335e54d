//! The page of labs: what `serve` serves. A client of supervisors like the command line; it owns nothing of a lab.
//!
//! `guard` says who may ask, `server` answers, `stream` tells one window what changes, `orders` carries out what a page orders. What
//! is shown is a [`crate::view::View`]; no line of the page decides what it means.

mod assets;
mod guard;
mod orders;
mod query;
mod server;
mod shows;
mod stream;
#[cfg(test)]
mod tests;

pub use shows::Shows;

use crate::error::{IoContext, Result};
use guard::{Guard, Token};
use server::Site;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};

/// Serves what `shows` has on 127.0.0.1 until SIGINT or SIGTERM, and calls `ready` with the address, token and all, before the first request.
/// `port` 0 is a free one.
///
/// # Errors
/// The port is taken, or no thread or random number can be had; what `ready` says.
pub fn serve(shows: Shows, port: u16, read_only: bool, ready: impl FnOnce(&str) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(16)
        .build()
        .tried("start the server", "")?;
    runtime.block_on(async {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, port);
        let listener = tokio::net::TcpListener::bind(address)
            .await
            .tried("serve the page", address)?;
        let port = listener.local_addr().tried("serve the page", address)?.port();
        let token = Token::new().tried("make a token", "")?;
        let url = format!("http://127.0.0.1:{port}/#k={}", token.text());
        let guard = Guard { token, port, read_only };
        let mut told = signal(SignalKind::terminate()).tried("listen for signals", "")?;
        let mut interrupted = signal(SignalKind::interrupt()).tried("listen for signals", "")?;
        ready(&url)?;
        let end = async {
            tokio::select! {
                _ = told.recv() => {}
                _ = interrupted.recv() => {}
            }
        };
        let site = Arc::new(Site::new(guard, shows));
        site.clone().serve(listener, end).await;
        let end = move || site.orders.end(&site.shows);
        let _ = tokio::task::spawn_blocking(end).await;
        Ok::<(), crate::error::Error>(())
    })?;
    // Windows that still look must not keep the process.
    runtime.shutdown_background();
    Ok(())
}
