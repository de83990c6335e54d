//! The ports on which a node of runtime `ccr` listens, and who connects to them.

/// UDP, members, every internal or mixed network: heartbeats (the original's port).
pub const HEARTBEAT: u16 = 3343;
/// TCP, members and hubs: log shipping, seeding, redelivery requests, commands passed on.
pub const STREAM: u16 = 3344;
/// TCP, members, on the service address: delivery.
pub const LMTP: u16 = 24;
/// TCP, members, on the service address: mailboxes.
pub const POP3: u16 = 110;
/// TCP, hubs: submission.
pub const SMTP: u16 = 25;
