//! Who asked for something, and the way of the answer to it.

use crate::ctx::Ctx;
use crate::io::{ConnId, Effect, Reply, ReqId};
use crate::op::Pending;
use crate::wire::{self, Msg};

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asker {
    /// An operator at this node.
    Local(ReqId),
    /// The other member passed it on.
    Remote(ConnId, u64),
    /// Nobody: a policy.
    Nobody,
}

impl Asker {
    /// Whether the other member passed it on.
    pub fn is_remote(&self) -> bool {
        matches!(self, Self::Remote(..))
    }
    /// It is answered.
    pub fn answer(self, ctx: &mut Ctx<Pending>, reply: Reply) {
        match self {
            Asker::Local(req) => ctx.reply(req, reply),
            Asker::Remote(conn, id) => {
                let bytes = wire::encode_frame(&passed_back(id, reply), &[]);
                ctx.emit(Effect::SendFrame { conn, bytes });
            }
            Asker::Nobody => {}
        }
    }
    /// It is refused, and told why.
    pub fn deny(self, ctx: &mut Ctx<Pending>, why: impl Into<String>) {
        self.answer(ctx, Reply::Denied(why.into()));
    }
}

/// An answer to a passed-on command.
fn passed_back(id: u64, reply: Reply) -> Msg {
    let unchanged = matches!(reply, Reply::Unchanged(_));
    let (done, text) = match reply {
        Reply::Done(t) | Reply::Unchanged(t) => (true, t),
        Reply::Denied(t) => (false, t),
        other => (false, format!("unexpected answer {other:?}")),
    };
    Msg::Answer {
        id,
        done,
        unchanged,
        text,
    }
}

/// The reply that such an answer carries.
pub fn handed_back(done: bool, unchanged: bool, text: String) -> Reply {
    match (done, unchanged) {
        (true, true) => Reply::Unchanged(text),
        (true, false) => Reply::Done(text),
        (false, _) => Reply::Denied(text),
    }
}
