//! The agent in a machine (`runtime/agent`): the engine's first way in, through a virtio-serial port. No partition, full firewall or
//! dead sshd cuts it, and nothing has to begin in the machine for it.
//!
//! A [`Line`] is the one connection with the agent of a machine; an [`AgentRemote`] is a way in over it, of which there may be many.

mod agents;
mod line;
mod relay;
mod remote;
#[cfg(test)]
pub(crate) mod tests;

pub use agents::Agents;
pub use line::{Hold, Line, Owner, Reading};
pub use relay::relay;
pub use remote::AgentRemote;
