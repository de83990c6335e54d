//! POP3 (RFC 1939): USER and PASS (any password: this is a lab), STAT, LIST, UIDL, RETR, TOP, DELE, RSET, NOOP, QUIT.

use super::Limits;
use super::wire::{Broken, Line, Stuffing, Wire, one_line, printable};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::OwnedSemaphorePermit;

/// A message in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its number: stays the same across sessions and nodes.
    pub uid: u64,
    /// What UIDL shows: stays the same when a hub delivers it again, too.
    pub unique_id: String,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Where messages are read from. An error's text goes to the client.
pub trait Maildrop: Send + Sync + 'static {
    /// The text of the greeting.
    fn greeting(&self) -> impl Future<Output = Result<String, String>> + Send;
    /// What a mailbox holds now.
    fn list(&self, mailbox: &str) -> impl Future<Output = Result<Vec<Item>, String>> + Send;
    /// A piece of a message, from 0 on, and whether another one follows.
    fn read(
        &self,
        mailbox: &str,
        uid: u64,
        piece: usize,
    ) -> impl Future<Output = Result<(Vec<u8>, bool), String>> + Send;
    /// Removes messages for good and tells the text of the answer to QUIT. Called with nothing as well.
    fn remove(&self, mailbox: Option<&str>, uids: Vec<u64>) -> impl Future<Output = Result<String, String>> + Send;
}

/// One conversation, until the peer leaves or misbehaves.
pub async fn session<S: AsyncRead + AsyncWrite + Unpin, M: Maildrop>(
    stream: S,
    drop: Arc<M>,
    limits: &Limits,
) -> Result<(), Broken> {
    let mut s = Session {
        wire: Wire::new(stream, limits.idle),
        drop,
        limits,
        state: State::Nobody,
        mistakes: 0,
    };
    let ended = s.run().await;
    s.wire.finish().await;
    ended
}

/// What a peer is told when there are too many sessions.
pub const TOO_MANY: &str = "-ERR [SYS/TEMP] too many sessions\r\n";

/// RFC 1939's states.
enum State {
    Nobody,
    User(String),
    Open(Mailbox),
}

struct Mailbox {
    name: String,
    items: Vec<Item>,
    /// Positions marked by DELE.
    marked: BTreeSet<usize>,
}

impl Mailbox {
    /// The message that a client's number means.
    fn numbered(&self, word: Option<&str>) -> Result<usize, String> {
        let word = word.ok_or("which message?")?;
        let number: usize = word.parse().map_err(|_| format!("{} is no number", one_line(word)))?;
        match number.checked_sub(1) {
            Some(at) if at < self.items.len() && !self.marked.contains(&at) => Ok(at),
            _ => Err(format!("no message {number}")),
        }
    }

    fn kept(&self) -> impl Iterator<Item = (usize, &Item)> {
        self.items
            .iter()
            .enumerate()
            .filter(|(at, _)| !self.marked.contains(at))
    }

    /// The answer to LIST and UIDL.
    fn listing(&self, word: Option<&str>, column: impl Fn(&Item) -> String) -> Result<Vec<u8>, String> {
        if word.is_some() {
            let at = self.numbered(word)?;
            return Ok(format!("+OK {} {}\r\n", at + 1, column(&self.items[at])).into_bytes());
        }
        let mut out = String::from("+OK\r\n");
        for (at, item) in self.kept() {
            out += &format!("{} {}\r\n", at + 1, column(item));
        }
        Ok((out + ".\r\n").into_bytes())
    }
}

struct Session<'a, S, M> {
    wire: Wire<S>,
    drop: Arc<M>,
    limits: &'a Limits,
    state: State,
    mistakes: u32,
}

/// What a command is answered with.
enum Answer {
    Text(Vec<u8>),
    /// A message of this mailbox; with a number, its header and so many lines.
    Message(String, Item, Option<usize>),
}

impl<S: AsyncRead + AsyncWrite + Unpin, M: Maildrop> Session<'_, S, M> {
    async fn run(&mut self) -> Result<(), Broken> {
        match self.drop.greeting().await {
            Ok(text) => {
                self.wire
                    .send(format!("+OK {}\r\n", one_line(&text)).as_bytes())
                    .await?
            }
            Err(text) => {
                return self
                    .wire
                    .send(format!("-ERR [SYS/TEMP] {}\r\n", one_line(&text)).as_bytes())
                    .await;
            }
        }
        loop {
            let line = self.wire.line(self.limits.line).await?;
            let text = match &line {
                Line::Whole(bytes) => printable(bytes),
                Line::TooLong => None,
            };
            let (verb, word, more) = split(text.unwrap_or_default());
            if verb == "QUIT" {
                return self.quit().await;
            }
            let answer = match text {
                Some(_) => self.command(&verb, word, more).await,
                None => Err("not a line of text".into()),
            };
            let answered = match answer {
                Ok(Answer::Text(bytes)) => self.wire.send(&bytes).await.map(Ok),
                Ok(Answer::Message(name, item, lines)) => self.message(&name, &item, lines).await,
                Err(why) => Ok(Err(why)),
            };
            match answered? {
                Ok(()) => {}
                Err(why) => {
                    self.mistakes += 1;
                    self.wire
                        .send(format!("-ERR {}\r\n", one_line(&why)).as_bytes())
                        .await?;
                    if self.mistakes > self.limits.mistakes {
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn quit(&mut self) -> Result<(), Broken> {
        let state = std::mem::replace(&mut self.state, State::Nobody);
        let done = match &state {
            State::Open(m) => {
                let uids = m.marked.iter().map(|at| m.items[*at].uid).collect();
                self.drop.remove(Some(&m.name), uids).await
            }
            _ => self.drop.remove(None, Vec::new()).await,
        };
        let answer = match done {
            Ok(text) => format!("+OK {}\r\n", one_line(&text)),
            Err(text) => format!("-ERR {}\r\n", one_line(&text)),
        };
        self.wire.send(answer.as_bytes()).await
    }

    /// Sends a message, or the beginning of one, as its pieces come. Once it has begun there is no way to say that the rest cannot be
    /// had but to end the connection.
    async fn message(
        &mut self,
        mailbox: &str,
        item: &Item,
        lines: Option<usize>,
    ) -> Result<Result<(), String>, Broken> {
        let _room = match room_for(item, self.limits) {
            Ok(room) => room,
            Err(why) => return Ok(Err(why)),
        };
        let (mut stuffing, mut top) = (Stuffing::default(), lines.map(Top::new));
        for at in 0.. {
            let (bytes, more) = match self.drop.read(mailbox, item.uid, at).await {
                Ok(read) => read,
                Err(why) if at == 0 => return Ok(Err(why)),
                Err(why) => return Err(Broken::Cut(why)),
            };
            if at == 0 {
                let greeting = match lines {
                    Some(_) => "+OK\r\n".to_owned(),
                    None => format!("+OK {} bytes\r\n", item.bytes),
                };
                self.wire.send(greeting.as_bytes()).await?;
            }
            let (part, enough) = top.as_mut().map_or((&bytes[..], false), |t| t.take(&bytes));
            self.wire.send_text(&mut stuffing, part).await?;
            if enough || !more {
                break;
            }
        }
        self.wire.end_text(stuffing).await.map(Ok)
    }

    async fn command(&mut self, verb: &str, word: Option<&str>, more: Option<&str>) -> Result<Answer, String> {
        let text = match (verb, &mut self.state) {
            ("CAPA", _) => Ok(b"+OK\r\nUSER\r\nUIDL\r\nTOP\r\n.\r\n".to_vec()),
            ("USER", State::Nobody | State::User(_)) => {
                let name = word.ok_or("whose mailbox?")?;
                self.state = State::User(name.to_owned());
                Ok(b"+OK any password will do\r\n".to_vec())
            }
            ("PASS", State::User(name)) => {
                let name = std::mem::take(name);
                let items = self.drop.list(&name).await?;
                let answer = format!("+OK {} messages\r\n", items.len());
                self.state = State::Open(Mailbox {
                    name,
                    items,
                    marked: BTreeSet::new(),
                });
                Ok(answer.into_bytes())
            }
            (_, State::Nobody | State::User(_)) => Err("USER and PASS first".into()),
            ("NOOP", _) => Ok(b"+OK\r\n".to_vec()),
            ("STAT", State::Open(m)) => {
                let (count, bytes) = m.kept().fold((0, 0), |(n, b), (_, item)| (n + 1, b + item.bytes));
                Ok(format!("+OK {count} {bytes}\r\n").into_bytes())
            }
            ("LIST", State::Open(m)) => m.listing(word, |i| i.bytes.to_string()),
            ("UIDL", State::Open(m)) => m.listing(word, |i| i.unique_id.clone()),
            ("RSET", State::Open(m)) => {
                m.marked.clear();
                Ok(b"+OK\r\n".to_vec())
            }
            ("DELE", State::Open(m)) => {
                let at = m.numbered(word)?;
                m.marked.insert(at);
                Ok(b"+OK\r\n".to_vec())
            }
            ("RETR" | "TOP", State::Open(m)) => {
                let item = m.items[m.numbered(word)?].clone();
                let lines = more.and_then(|w| w.parse().ok());
                let lines = match verb {
                    "TOP" => Some(lines.ok_or("how many lines?")?),
                    _ => None,
                };
                return Ok(Answer::Message(m.name.clone(), item, lines));
            }
            _ => Err(format!("{} is not offered here", one_line(verb))),
        };
        text.map(Answer::Text)
    }
}

/// Memory for a message on its way out: for a piece of it.
fn room_for(item: &Item, limits: &Limits) -> Result<OwnedSemaphorePermit, String> {
    let bytes = usize::try_from(item.bytes).unwrap_or(usize::MAX).min(limits.piece);
    limits
        .memory
        .take(bytes)
        .ok_or_else(|| "[SYS/TEMP] no memory now, try later".into())
}

/// Takes the header, the empty line and some lines of the body out of a message that comes in pieces.
struct Top {
    /// Bytes of the header's end, `\r\n\r\n`, that were seen last.
    seen: usize,
    /// Lines of the body that are left.
    lines: usize,
}

impl Top {
    fn new(lines: usize) -> Self {
        Self { seen: 0, lines }
    }
    /// What is taken of the next piece, and whether nothing more is.
    fn take<'a>(&mut self, piece: &'a [u8]) -> (&'a [u8], bool) {
        const END: &[u8] = b"\r\n\r\n";
        for (at, byte) in piece.iter().enumerate() {
            let body = self.seen == END.len();
            match byte {
                b'\n' if body => self.lines = self.lines.saturating_sub(1),
                _ if body => {}
                b if *b == END[self.seen] => self.seen += 1,
                b => self.seen = usize::from(*b == END[0]),
            }
            if self.seen == END.len() && self.lines == 0 {
                return (&piece[..=at], true);
            }
        }
        (piece, false)
    }
}

/// The verb in capitals and at most two words. What stands behind is ignored, as a password with spaces must be.
fn split(line: &str) -> (String, Option<&str>, Option<&str>) {
    let mut words = line.split_ascii_whitespace();
    let verb = words.next().unwrap_or_default().to_ascii_uppercase();
    (verb, words.next(), words.next())
}

#[cfg(test)]
mod tests {
    use super::super::Memory;
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;
    use std::time::Duration;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[derive(Default)]
    struct Fake {
        removed: Mutex<Vec<u64>>,
        offline: bool,
        /// The first message comes in pieces of so many bytes, of which the last ones may be lost.
        piece: usize,
        lost: Option<usize>,
    }

    const FIRST: &[u8] = b"Subject: a\r\n\r\none\r\n.two\r\nthree\r\n";

    impl Maildrop for Fake {
        async fn greeting(&self) -> Result<String, String> {
            if self.offline {
                Err("not online".into())
            } else {
                Ok("node=n1 epoch=1 stream=s generation=0".into())
            }
        }
        async fn list(&self, mailbox: &str) -> Result<Vec<Item>, String> {
            match mailbox {
                "ann" => Ok(vec![
                    Item {
                        uid: 1,
                        unique_id: "1".into(),
                        bytes: FIRST.len() as u64,
                    },
                    Item {
                        uid: 2,
                        unique_id: "h.hub-2".into(),
                        bytes: 3,
                    },
                ]),
                _ => Err("no such mailbox".into()),
            }
        }
        async fn read(&self, _: &str, uid: u64, piece: usize) -> Result<(Vec<u8>, bool), String> {
            let pieces: Vec<&[u8]> = FIRST.chunks(self.piece.max(1)).collect();
            let lost = self.lost.is_some_and(|at| piece >= at);
            match uid {
                1 if self.piece == 0 => Ok((FIRST.to_vec(), false)),
                1 if !lost => Ok((pieces[piece].to_vec(), piece + 1 < pieces.len())),
                _ => Err("gone".into()),
            }
        }
        async fn remove(&self, mailbox: Option<&str>, uids: Vec<u64>) -> Result<String, String> {
            assert!(mailbox.is_some() || uids.is_empty());
            self.removed.lock().unwrap().extend(uids);
            Ok("node=n1 epoch=1 stream=s generation=9".into())
        }
    }

    fn talk(fake: Fake, script: &[u8]) -> (String, Vec<u64>) {
        let fake = Arc::new(fake);
        let kept = fake.clone();
        let limits = Limits {
            idle: Duration::from_secs(2),
            mistakes: 5,
            ..Limits::default()
        };
        let said = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(async {
                let (mut client, server) = tokio::io::duplex(1 << 20);
                let client = async {
                    let _ = client.write_all(script).await;
                    let _ = client.shutdown().await;
                    let mut said = Vec::new();
                    let _ = client.read_to_end(&mut said).await;
                    said
                };
                tokio::join!(client, session(server, fake, &limits)).0
            });
        (
            String::from_utf8(said).unwrap(),
            std::mem::take(&mut kept.removed.lock().unwrap()),
        )
    }

    #[test]
    fn a_conversation() {
        let (said, removed) = talk(
            Fake::default(),
            b"USER ann\r\nPASS a b c\r\nSTAT\r\nLIST\r\nUIDL 2\r\nRETR 1\r\nTOP 1 1\r\nDELE 1\r\nSTAT\r\nRETR 1\r\nQUIT\r\n",
        );
        let expected = "+OK node=n1 epoch=1 stream=s generation=0\r\n+OK any password will do\r\n+OK 2 messages\r\n+OK 2 34\r\n+OK\r\n1 31\r\n2 3\r\n.\r\n+OK 2 h.hub-2\r\n+OK 31 bytes\r\nSubject: a\r\n\r\none\r\n..two\r\nthree\r\n.\r\n+OK\r\nSubject: a\r\n\r\none\r\n.\r\n+OK\r\n+OK 1 3\r\n-ERR no message 1\r\n+OK node=n1 epoch=1 stream=s generation=9\r\n";
        assert_eq!(
            said,
            expected
                .replace("31", &FIRST.len().to_string())
                .replace("+OK 2 34", &format!("+OK 2 {}", FIRST.len() + 3))
        );
        assert_eq!(removed, [1]);
    }

    /// What is said to a script, by a store that has the first message in pieces.
    fn in_pieces(piece: usize, lost: Option<usize>, script: &str) -> String {
        let fake = Fake {
            piece,
            lost,
            ..Fake::default()
        };
        talk(fake, format!("USER ann\r\nPASS x\r\n{script}QUIT\r\n").as_bytes()).0
    }

    #[test]
    fn a_message_in_pieces_is_the_same() {
        for script in ["RETR 1\r\n", "TOP 1 0\r\n", "TOP 1 1\r\n", "TOP 1 2\r\n", "TOP 1 9\r\n"] {
            let whole = in_pieces(0, None, script);
            assert!(whole.contains("\r\n.\r\n+OK"), "{whole}");
            for piece in 1..=FIRST.len() {
                assert_eq!(in_pieces(piece, None, script), whole, "{script} in pieces of {piece}");
            }
        }
    }

    #[test]
    fn a_message_that_breaks_off_is_never_ended_as_if_it_were_whole() {
        let said = in_pieces(7, Some(2), "RETR 1\r\n");
        assert!(said.ends_with("Subject: a\r\n\r\n"), "{said}");
        // What is asked for is there: the lost part is not needed.
        assert!(in_pieces(7, Some(2), "TOP 1 0\r\n").contains("a\r\n\r\n.\r\n+OK"));
        assert!(in_pieces(7, Some(0), "RETR 1\r\n").contains("-ERR gone\r\n+OK"));
    }

    #[test]
    fn a_message_waits_for_memory() {
        let limits = Limits {
            piece: usize::MAX,
            memory: Memory::new(8 << 10),
            ..Limits::default()
        };
        let item = |bytes| Item {
            uid: 1,
            unique_id: "1".into(),
            bytes,
        };
        let kept = room_for(&item(8 << 10), &limits).unwrap();
        assert!(room_for(&item(1), &limits).unwrap_err().contains("SYS/TEMP"));
        drop(kept);
        assert!(room_for(&item(1), &limits).is_ok());
        assert!(room_for(&item(u64::MAX), &limits).is_err());
    }

    #[test]
    fn nothing_is_removed_without_quit() {
        assert!(talk(Fake::default(), b"USER ann\r\nPASS x\r\nDELE 1\r\n").1.is_empty());
        assert!(
            talk(Fake::default(), b"USER ann\r\nPASS x\r\nDELE 1\r\nRSET\r\nQUIT\r\n")
                .1
                .is_empty()
        );
    }

    #[test]
    fn nobody_reads_without_a_name() {
        let (said, _) = talk(
            Fake::default(),
            b"STAT\r\nPASS x\r\nUSER bob\r\nPASS x\r\nSTAT\r\nQUIT\r\n",
        );
        let starts: Vec<&str> = said.lines().map(|l| &l[..3]).collect();
        assert_eq!(starts, ["+OK", "-ER", "-ER", "+OK", "-ER", "-ER", "+OK"]);
    }

    #[test]
    fn a_service_that_is_offline_says_so_and_leaves() {
        let offline = Fake {
            offline: true,
            ..Fake::default()
        };
        assert_eq!(talk(offline, b"USER ann\r\n").0, "-ERR [SYS/TEMP] not online\r\n");
    }

    #[test]
    fn numbers_that_are_none() {
        for n in ["0", "-1", "99999999999999999999", "x", "3", ""] {
            let (said, _) = talk(
                Fake::default(),
                format!("USER ann\r\nPASS x\r\nRETR {n}\r\nDELE {n}\r\nTOP {n} 1\r\n").as_bytes(),
            );
            assert_eq!(said.matches("-ERR").count(), 3, "{n}: {said}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_get_only_whole_answers(bytes in proptest::collection::vec(any::<u8>(), 0..400), inside in any::<bool>()) {
            let mut script = if inside { b"USER ann\r\nPASS x\r\n".to_vec() } else { Vec::new() };
            script.extend(bytes);
            let (said, _) = talk(Fake::default(), &script);
            prop_assert!(said.ends_with("\r\n"));
        }
    }
}
