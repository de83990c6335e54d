//! What a sender is told whose message will never be delivered (RFC 3464, in the form of RFC 6522).
//!
//! Its name follows from the message and the recipient: a hub that dies between the bounce and the note that the recipient is done
//! makes no second one.

use super::queue::Mail;
use super::{BACKOFF_US, Bounced, Head, Hub, Pending, path};
use crate::calendar::Utc;
use crate::io::{DiskAction, DiskResult, LmtpReply};
use crate::mailbox::{mailbox_of, message_key};
use ccr_contract::event::EventKind;

/// In the place of the epoch in which a recipient was served: it keeps one that was refused for good out of redelivery.
pub(super) const REFUSED: u64 = u64::MAX;
/// Most bytes of the message's header that a bounce shows.
const MAX_SHOWN: usize = 8 << 10;

impl Hub {
    /// Tells the sender; whether that is under way. Nobody is told of a bounce, nor who has no mailbox.
    pub(super) fn bounce(&mut self, id: &str, recipient: usize, reply: &LmtpReply) -> bool {
        let (Some(Mail { head, .. }), Some(original)) = (self.queue.mail(id), self.queue.body(id)) else {
            return false;
        };
        let bounce = format!("{id}-r{recipient}");
        if mailbox_of(&head.sender).is_none() || self.queue.knows(&bounce) {
            return false;
        }
        let report = Report {
            hub: &self.config.node,
            name: &bounce,
            sender: &head.sender,
            recipient: &head.recipients[recipient],
            reply,
            unix_s: self.ctx.now.rtc_us / 1_000_000,
        };
        let message = report.message(&original);
        let head = Head {
            id: bounce.clone(),
            sender: String::new(),
            recipients: vec![head.sender.clone()],
            key: message_key(&message),
            accepted_ms: self.clock_ms(),
            bytes: message.len() as u64,
            sum: None,
        };
        let (file, bytes) = (path(&bounce, false), head.encode(message));
        self.queue.arriving(head);
        let what = Pending::Bounced(Bounced {
            bounce,
            id: id.to_owned(),
            recipient,
        });
        self.ctx.disk(what, DiskAction::Replace { file, bytes });
        true
    }

    /// The bounce is durable, or there was no room for it: then the recipient is tried again later.
    pub(super) fn on_bounced(&mut self, bounced: &Bounced, result: &DiskResult) {
        let Bounced { bounce, id, recipient } = bounced;
        if *result != DiskResult::Done {
            self.queue.remove(bounce);
            let now = self.ctx.now.boot_us;
            return self.queue.failed(id, *recipient, now, BACKOFF_US);
        }
        self.queue.accept(bounce);
        let to = self.queue.mail(bounce).map(|m| m.head.recipients[0].clone());
        self.ctx.event(EventKind::HubBounced {
            id: id.clone(),
            bounce: bounce.clone(),
            to: to.unwrap_or_default(),
        });
        self.queue.done(id, *recipient, REFUSED);
        if self.queue.is_done(id) {
            self.retire(id);
        }
    }
}

/// What there is to tell.
struct Report<'a> {
    hub: &'a str,
    name: &'a str,
    sender: &'a str,
    recipient: &'a str,
    reply: &'a LmtpReply,
    unix_s: u64,
}

impl Report<'_> {
    /// The message to the sender of `original`.
    fn message(&self, original: &[u8]) -> Vec<u8> {
        let Report {
            hub,
            name,
            sender,
            recipient,
            reply,
            unix_s,
        } = self;
        let (date, code) = (Utc::of(*unix_s).rfc5322(), reply.code);
        let printable = |c: &char| (' '..='~').contains(c);
        let said: String = reply.text.chars().filter(printable).take(400).collect();
        let status = status_of(&said);
        let text = format!(
            "From: Mail delivery <postmaster@{hub}>
To: <{sender}>
Subject: Undelivered mail
Date: {date}
Message-ID: <{name}@{hub}>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=\"{name}\"

--{name}
Content-Type: text/plain; charset=us-ascii

{hub} has accepted your message, and cannot deliver it to <{recipient}>:
it was refused for good, or expired. The answer was:

{code} {said}

--{name}
Content-Type: message/delivery-status

Reporting-MTA: dns; {hub}

Final-Recipient: rfc822; {recipient}
Action: failed
Status: {status}
Diagnostic-Code: smtp; {code} {said}

--{name}
Content-Type: text/rfc822-headers
Content-Transfer-Encoding: 8bit

"
        );
        let mut message = text.replace('\n', "\r\n").into_bytes();
        message.extend_from_slice(header(original));
        message.extend_from_slice(format!("\r\n--{name}--\r\n").as_bytes());
        message
    }
}

/// The enhanced status code at the beginning of a reply's text (RFC 3463), or that of a failure that says no more. A message that
/// expired has the transient code of what kept it.
fn status_of(said: &str) -> &str {
    let code = said.split(' ').next().unwrap_or_default();
    let digits = |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    let whole = code.split('.').count() == 3 && code.split('.').all(digits);
    let whole = whole && (code.starts_with("5.") || code.starts_with("4."));
    if whole { code } else { "5.0.0" }
}

/// The whole lines of a message's header, up to [`MAX_SHOWN`] bytes.
fn header(message: &[u8]) -> &[u8] {
    let mut end = 0;
    for line in message.split_inclusive(|b| *b == b'\n') {
        if line.trim_ascii().is_empty() || !line.ends_with(b"\n") || end + line.len() > MAX_SHOWN {
            break;
        }
        end += line.len();
    }
    &message[..end]
}

#[cfg(test)]
#[path = "bounce_tests.rs"]
mod tests;
