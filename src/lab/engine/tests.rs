//! The engine on a hypervisor and machines that are fakes. Files, disks, the agents' sockets and the networks are real.

mod adopting;
mod changing;
mod faults;
mod guests;
mod probing;
mod restoring;
mod upping;
mod world;
