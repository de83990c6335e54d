//! The driver `redis`: RESP from the client's side, without I/O; and how a client finds out who serves.

use super::mail::{Conversation, Ended, Want};
use crate::verify::Outcome;
use ccr_contract::reply::By;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The longest reply that is taken, in bytes.
const REPLY_MAX: usize = 1 << 20;
/// The most lists within each other.
const DEPTH: usize = 4;

/// Answers after which it certainly did not happen: the server says why it did not begin.
const REFUSED: [&str; 9] = [
    "READONLY",
    "NOREPLICAS",
    "LOADING",
    "MASTERDOWN",
    "MISCONF",
    "OOM",
    "NOAUTH",
    "WRONGTYPE",
    "ERR",
];

/// Whom clients ask, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Who can be asked, in this order.
    pub ask: Vec<SocketAddrV4>,
    /// What the service is called there.
    pub name: String,
    /// Under which key is written.
    pub key: String,
    /// Whose each address is.
    pub nodes: BTreeMap<Ipv4Addr, String>,
}

/// Who serves, as a client was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Server {
    /// Where it is.
    pub address: SocketAddrV4,
    /// The epoch of whoever told it.
    pub epoch: u64,
}

impl Server {
    /// By the answer to [`Call::who_serves`].
    ///
    /// # Errors
    /// What else was said.
    pub fn read(reply: &Reply) -> Result<Self, String> {
        let Reply::List(parts) = reply else {
            return Err(format!("no table: {reply}"));
        };
        let word = |name: &str| {
            let pair = parts.chunks(2).find(|p| p[0] == Reply::Text(name.to_owned()))?;
            match pair.get(1)? {
                Reply::Text(value) => Some(value),
                _ => None,
            }
        };
        let read = || {
            let ip: Ipv4Addr = word("ip")?.parse().ok()?;
            let port = word("port")?.parse().ok()?;
            let epoch = word("config-epoch")?.parse().ok()?;
            let address = SocketAddrV4::new(ip, port);
            Some(Self { address, epoch })
        };
        read().ok_or_else(|| "it does not say ip, port and config-epoch".to_owned())
    }
}

/// A reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// A text.
    Text(String),
    /// A refusal or failure, in the server's words.
    Error(String),
    /// A whole number.
    Number(i64),
    /// Nothing.
    Nothing,
    /// Several.
    List(Vec<Reply>),
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |text: &str| text.chars().take(200).collect::<String>().escape_debug().to_string();
        match self {
            Reply::Text(text) | Reply::Error(text) => f.write_str(&shown(text)),
            Reply::Number(n) => write!(f, "{n}"),
            Reply::Nothing => f.write_str("nothing"),
            Reply::List(all) => write!(f, "{} replies", all.len()),
        }
    }
}

/// One command and its reply.
#[derive(Debug)]
pub struct Call {
    out: Option<Vec<u8>>,
    heard: Vec<u8>,
    /// The reply, once it is whole.
    pub reply: Option<Reply>,
    ended: Option<Ended>,
}

impl Call {
    /// A command of these words.
    pub fn new(words: &[&str]) -> Self {
        let mut out = format!("*{}\r\n", words.len());
        for word in words {
            out += &format!("${}\r\n{word}\r\n", word.len());
        }
        Self {
            out: Some(out.into_bytes()),
            heard: Vec::new(),
            reply: None,
            ended: None,
        }
    }

    /// Who serves under that name; see [`Server::read`].
    pub fn who_serves(name: &str) -> Self {
        Self::new(&["SENTINEL", "MASTER", name])
    }

    /// How an append of a value by this call ended, on a server.
    pub fn appended(&self, ended: Ended, asked: &Asked, server: Server) -> Ended {
        let ip = server.address.ip();
        match &self.reply {
            Some(Reply::Number(length)) if *length > 0 => Ended {
                by: Some(By {
                    node: asked.nodes.get(ip).cloned().unwrap_or_else(|| ip.to_string()),
                    epoch: server.epoch,
                    stream: asked.key.clone(),
                    generation: length.unsigned_abs(),
                }),
                ..Ended::plain(Outcome::Ok, length.to_string())
            },
            Some(Reply::Error(why)) => {
                let refused = REFUSED.iter().any(|word| why.split(' ').next() == Some(word));
                let outcome = if refused { Outcome::Fail } else { Outcome::Unknown };
                Ended::plain(outcome, why.clone())
            }
            Some(other) => Ended::plain(Outcome::Unknown, format!("no length: {other}")),
            None => ended,
        }
    }
}

impl Conversation for Call {
    fn want(&mut self) -> Want {
        match (&self.ended, self.out.take()) {
            (Some(_), _) => Want::Nothing,
            (None, Some(out)) => Want::Write(out),
            (None, None) => Want::Read,
        }
    }

    fn received(&mut self, bytes: &[u8]) {
        self.heard.extend_from_slice(bytes);
        match read(&self.heard, DEPTH) {
            Ok(Some((reply, _))) => {
                self.ended = Some(Ended::plain(Outcome::Unknown, reply.to_string()));
                self.reply = Some(reply);
            }
            Ok(None) if self.heard.len() <= REPLY_MAX => {}
            Ok(None) => self.lost("the reply is too long"),
            Err(why) => self.lost(&format!("no RESP: {why}")),
        }
    }

    fn lost(&mut self, cause: &str) {
        // It may have left, and happened.
        self.ended.get_or_insert(Ended::plain(Outcome::Unknown, cause));
    }

    fn ended(&self) -> Option<&Ended> {
        self.ended.as_ref()
    }
}

/// The first reply in `bytes` and how long it is; none where it is not whole.
fn read(bytes: &[u8], depth: usize) -> Result<Option<(Reply, usize)>, String> {
    let Some(end) = bytes.windows(2).position(|w| w == b"\r\n") else {
        return Ok(None);
    };
    let line = std::str::from_utf8(&bytes[..end]).map_err(|_| "a line is no UTF-8".to_owned())?;
    let (kind, rest) = line.split_at_checked(1).ok_or("an empty line")?;
    let number = || {
        rest.parse::<i64>()
            .map_err(|_| format!("`{}` is no number", rest.escape_debug()))
    };
    let after = end + 2;
    Ok(Some(match kind {
        "+" => (Reply::Text(rest.to_owned()), after),
        "-" => (Reply::Error(rest.to_owned()), after),
        ":" => (Reply::Number(number()?), after),
        "$" | "*" if rest == "-1" => (Reply::Nothing, after),
        "$" => {
            let length = usize::try_from(number()?).map_err(|_| "a negative length".to_owned())?;
            if length > REPLY_MAX {
                return Err(format!("a text of {length} bytes"));
            }
            let Some(text) = bytes.get(after..after + length + 2) else {
                return Ok(None);
            };
            let text = text.strip_suffix(b"\r\n").ok_or("a text does not end where it says")?;
            let text = String::from_utf8_lossy(text).into_owned();
            (Reply::Text(text), after + length + 2)
        }
        "*" => {
            let count = usize::try_from(number()?).map_err(|_| "a negative count".to_owned())?;
            if count > REPLY_MAX || depth == 0 {
                return Err(format!("a list of {count}, or too deep"));
            }
            let (mut all, mut at) = (Vec::new(), after);
            for _ in 0..count {
                let Some((reply, length)) = read(&bytes[at..], depth - 1)? else {
                    return Ok(None);
                };
                all.push(reply);
                at += length;
            }
            (Reply::List(all), at)
        }
        _ => return Err(format!("`{}` begins no reply", kind.escape_debug())),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn call(answer: &[u8]) -> Call {
        let mut call = Call::new(&["RPUSH", "k", "é"]);
        assert_eq!(
            call.want(),
            Want::Write("*3\r\n$5\r\nRPUSH\r\n$1\r\nk\r\n$2\r\né\r\n".into())
        );
        // A byte at a time: a reply is whole when it is.
        for (i, byte) in answer.iter().enumerate() {
            assert_eq!(call.want(), Want::Read, "before byte {i}");
            call.received(&[*byte]);
        }
        call
    }

    fn asked() -> Asked {
        Asked {
            ask: Vec::new(),
            name: "ha".into(),
            key: "k".into(),
            nodes: [([10, 79, 1, 11].into(), "node1".to_owned())].into(),
        }
    }

    const SERVER: Server = Server {
        address: SocketAddrV4::new(Ipv4Addr::new(10, 79, 1, 11), 6379),
        epoch: 3,
    };

    #[test]
    fn an_append_is_certain_only_where_the_server_says_so() {
        let outcome = |answer: &[u8]| {
            let mut call = call(answer);
            call.lost("closed");
            let ended = call.ended().unwrap().clone();
            call.appended(ended, &asked(), SERVER)
        };
        let done = outcome(b":7\r\n");
        assert_eq!(done.outcome, Outcome::Ok);
        assert_eq!(done.by.unwrap().to_string(), "node=node1 epoch=3 stream=k generation=7");
        for (answer, expected) in [
            (
                &b"-READONLY You can't write against a read only replica.\r\n"[..],
                Outcome::Fail,
            ),
            (b"-NOREPLICAS Not enough good replicas to write.\r\n", Outcome::Fail),
            (b"-LOADING Redis is loading the dataset in memory\r\n", Outcome::Fail),
            (b"-READONLYISH\r\n", Outcome::Unknown),
            (b"-SOMETHING\r\n", Outcome::Unknown),
            (b"+OK\r\n", Outcome::Unknown),
            (b":0\r\n", Outcome::Unknown),
            (b":7\r", Outcome::Unknown),
            (b"", Outcome::Unknown),
        ] {
            assert_eq!(outcome(answer).outcome, expected, "{}", String::from_utf8_lossy(answer));
        }
    }

    #[test]
    fn who_serves_is_told_whole_or_not_at_all() {
        let table = |text: &str| {
            let words: Vec<&str> = text.split_whitespace().collect();
            let mut bytes = format!("*{}\r\n", words.len());
            words.iter().for_each(|w| bytes += &format!("${}\r\n{w}\r\n", w.len()));
            Server::read(&call(bytes.as_bytes()).reply.unwrap())
        };
        assert_eq!(table("name ha ip 10.79.1.11 port 6379 config-epoch 3"), Ok(SERVER));
        assert!(table("name ha ip 10.79.1.11 port 6379").is_err());
        assert!(table("ip 10.79.1 port 6379 config-epoch 3").is_err());
        assert!(Server::read(&Reply::Error("ERR No such master with that name".into())).is_err());
    }

    proptest! {
        #[test]
        fn garbage_never_panics_and_is_never_done(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut call = Call::new(&["PING"]);
            call.received(&bytes);
            call.lost("closed");
            let ended = call.ended().unwrap().clone();
            let ended = call.appended(ended, &asked(), SERVER);
            prop_assert!(ended.outcome != Outcome::Ok || bytes.starts_with(b":"));
        }
    }
}
