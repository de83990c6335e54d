//! The mail servers around the core: who listens where, and what a session asks.

use crate::core::Core;
use crate::mail::pop3::{Item, Maildrop};
use crate::mail::smtp::{Answer, Dialect, Inbox, Message};
use crate::mail::wire::Wire;
use crate::mail::{Limits, pop3, smtp};
use crate::net::after_failed_accept;
use ccr_contract::config::Settings;
use ccr_core::io::{ClientRequest, Reply};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Submission, on a hub.
    Smtp,
    /// Delivery, on the service address.
    Lmtp,
    /// Reading, on the service address.
    Pop3,
}

/// What all servers of a daemon share.
#[derive(Debug, Clone)]
pub struct ServerContext {
    core: Core,
    name: Arc<str>,
    limits: Arc<Limits>,
    /// Changes when every conversation of the store must end.
    hang_up: watch::Receiver<u64>,
}

impl ServerContext {
    /// `name` goes into the greetings; the store behind has these settings.
    pub fn new(core: Core, name: &str, settings: &Settings, hang_up: watch::Receiver<u64>) -> Self {
        Self {
            core,
            name: name.into(),
            limits: Arc::new(Limits::of_store(settings)),
            hang_up,
        }
    }

    /// Serves on `listener` until the task is aborted; sessions go on after that until they end or are hung up.
    pub fn serve(&self, protocol: Protocol, listener: TcpListener) -> JoinHandle<()> {
        let post = self.clone();
        tokio::spawn(async move {
            let room = Arc::new(Semaphore::new(post.limits.sessions));
            loop {
                match listener.accept().await {
                    Ok((stream, _)) => {
                        tokio::spawn(post.clone().receive(protocol, stream, room.clone()));
                    }
                    Err(_) => after_failed_accept().await,
                }
            }
        })
    }

    async fn receive(mut self, protocol: Protocol, mut stream: TcpStream, room: Arc<Semaphore>) {
        let limits = self.limits.clone();
        let Ok(_permit) = room.try_acquire_owned() else {
            let why = match protocol {
                Protocol::Pop3 => pop3::TOO_MANY,
                Protocol::Smtp | Protocol::Lmtp => smtp::TOO_MANY,
            };
            let mut wire = Wire::new(stream, limits.idle);
            let _ = wire.send(why.as_bytes()).await;
            return wire.finish().await;
        };
        let mut hang_up = self.hang_up.clone();
        hang_up.mark_unchanged();
        // A hub's clients are not the store's.
        let hung_up = async {
            if protocol == Protocol::Smtp || hang_up.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::select! {
            () = self.converse(protocol, &mut stream) => {}
            () = hung_up => {
                // Closing now resets the connection: what waits in its buffer must not arrive.
                let _ = stream.set_zero_linger();
            }
        }
    }

    async fn converse(&mut self, protocol: Protocol, stream: &mut TcpStream) {
        let _ = stream.set_nodelay(true);
        let (client, limits) = (Arc::new(CoreClient(self.core.clone(), protocol)), &self.limits);
        // Why a peer left is its own business.
        let _ = match protocol {
            Protocol::Smtp => smtp::session(stream, Dialect::Smtp, &self.name, client, limits).await,
            Protocol::Lmtp => smtp::session(stream, Dialect::Lmtp, &self.name, client, limits).await,
            Protocol::Pop3 => pop3::session(stream, client, limits).await,
        };
    }
}

/// What a session asks of the core.
#[derive(Debug)]
struct CoreClient(Core, Protocol);

impl CoreClient {
    async fn ask(&self, request: ClientRequest) -> Result<Reply, Refusal> {
        match self.0.client(request).await {
            Ok(Reply::Refused { temporary, why }) => Err(Refusal { temporary, why }),
            Ok(reply) => Ok(reply),
            Err(why) => Err(Refusal { temporary: true, why }),
        }
    }

    async fn greet(&self) -> Result<String, String> {
        match self.ask(ClientRequest::Greet).await {
            Ok(Reply::Greeting(by)) => Ok(by.to_string()),
            other => Err(Refusal::of(other).why),
        }
    }
}

struct Refusal {
    temporary: bool,
    why: String,
}

impl Refusal {
    /// Of anything that is not the answer that was expected.
    fn of(answer: Result<Reply, Refusal>) -> Self {
        match answer {
            Err(refusal) => refusal,
            Ok(other) => Refusal {
                temporary: true,
                why: format!("the core answered something else: {other:?}"),
            },
        }
    }

    fn answer(self) -> Answer {
        if self.temporary {
            Answer::new(451, format!("4.3.0 {}", self.why))
        } else {
            Answer::new(554, format!("5.3.0 {}", self.why))
        }
    }
}

impl Inbox for CoreClient {
    async fn greeting(&self) -> Result<String, String> {
        match self.1 {
            Protocol::Smtp => Ok("ready".to_owned()),
            Protocol::Lmtp | Protocol::Pop3 => self.greet().await,
        }
    }

    async fn take(&self, m: Message) -> Vec<Answer> {
        let recipients = m.to.len();
        if self.1 == Protocol::Smtp {
            let request = ClientRequest::Submit {
                sender: m.from,
                recipients: m.to,
                message: m.bytes,
            };
            return match self.ask(request).await {
                Ok(Reply::Queued(id)) => vec![Answer::new(250, format!("2.0.0 queued as {id}"))],
                other => vec![Refusal::of(other).answer()],
            };
        }
        let request = ClientRequest::Deliver {
            envid: m.hub_id,
            recipients: m.to,
            message: m.bytes,
        };
        match self.ask(request).await {
            Ok(Reply::Delivered(replies)) => replies.into_iter().map(|r| Answer::new(r.code, r.text)).collect(),
            other => vec![Refusal::of(other).answer(); recipients],
        }
    }
}

impl Maildrop for CoreClient {
    async fn greeting(&self) -> Result<String, String> {
        self.greet().await
    }

    async fn list(&self, mailbox: &str) -> Result<Vec<Item>, String> {
        let mailbox = mailbox.to_owned();
        match self.ask(ClientRequest::List { mailbox }).await {
            Ok(Reply::Listing(items)) => Ok(items
                .into_iter()
                .map(|i| Item {
                    uid: i.uid,
                    unique_id: i.unique_id,
                    bytes: i.size,
                })
                .collect()),
            other => Err(Refusal::of(other).why),
        }
    }

    async fn read(&self, mailbox: &str, uid: u64, piece: usize) -> Result<(Vec<u8>, bool), String> {
        let mailbox = mailbox.to_owned();
        match self.ask(ClientRequest::Retrieve { mailbox, uid, piece }).await {
            Ok(Reply::Message { bytes, more }) => Ok((bytes, more)),
            other => Err(Refusal::of(other).why),
        }
    }

    async fn remove(&self, mailbox: Option<&str>, uids: Vec<u64>) -> Result<String, String> {
        let mailbox = mailbox.unwrap_or_default().to_owned();
        match self.ask(ClientRequest::Delete { mailbox, uids }).await {
            Ok(Reply::Deleted(by)) => Ok(by.to_string()),
            other => Err(Refusal::of(other).why),
        }
    }
}
