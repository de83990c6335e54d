//! What needs more than one part of the shell, or a real Samba.

mod cluster;
mod failover;
mod samba;
mod shell;
mod witness;
