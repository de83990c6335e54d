//! The server: loopback only, one thread, no file of this host behind any path.

use super::assets;
use super::guard::{BODY_MAX, Guard, Refusal};
use super::orders::{self, Orders};
use super::query::{Filter, Words};
use super::shows::{self, KEPT, Shows};
use super::stream::{self, Content};
use crate::error::{Error, Problem};
use crate::lock::lock;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// How long a request's head, and its body, may take; an idle connection ends too.
const SLOW: Duration = Duration::from_secs(10);
/// Connections at one time, and streams among them: a browser has six to one origin, and orders need some.
const CONNECTIONS: usize = 64;
const STREAMS: usize = 4;

/// What each answer carries: a page that somebody else wrote into has no way out and no script.
const HEADERS: [(&str, &str); 7] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-frame-options", "DENY"),
    ("permissions-policy", "camera=(), microphone=(), geolocation=()"),
];

/// What one server has.
#[derive(Debug)]
pub(super) struct Site {
    pub guard: Guard,
    pub shows: Arc<Shows>,
    pub orders: Arc<Orders>,
    streams: Arc<Semaphore>,
}

impl Site {
    pub fn new(guard: Guard, shows: Shows) -> Self {
        Self {
            guard,
            shows: Arc::new(shows),
            orders: Arc::default(),
            streams: Arc::new(Semaphore::new(STREAMS)),
        }
    }

    /// Serves until `end` comes.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, end: impl Future<Output = ()>) {
        let connections = Arc::new(Semaphore::new(CONNECTIONS));
        tokio::pin!(end);
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (Ok((stream, _)), Ok(place)) = (accepted, connections.clone().try_acquire_owned()) else {
                        continue;
                    };
                    let site = self.clone();
                    tokio::spawn(async move {
                        site.converse(stream).await;
                        drop(place);
                    });
                }
                () = &mut end => return,
            }
        }
    }

    /// One connection. A client that breaks the protocol ends its own only.
    async fn converse(self: Arc<Self>, stream: TcpStream) {
        let answer = |request| {
            let site = self.clone();
            async move { Ok::<_, Infallible>(site.answer(request).await) }
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(SLOW)
            .max_buf_size(16 << 10)
            .max_headers(64)
            .serve_connection(TokioIo::new(stream), service_fn(answer));
        let _ = connection.await;
    }

    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Response<Content> {
        let (head, body) = request.into_parts();
        let path = head.uri.path();
        let answered = match self.guard.check(&head.method, path, &head.headers) {
            Err(refusal) => Err(refusal),
            Ok(()) if head.method == Method::POST => self.post(path, body).await,
            Ok(()) => match assets::find(path) {
                Some((kind, text)) => Ok(whole(StatusCode::OK, kind, Bytes::from(text))),
                None => self.get(path, &Words::of(head.uri.query())),
            },
        };
        let mut response = answered.unwrap_or_else(|Refusal(status, why)| {
            json_answer(status, &json!({"error": {"what": "do what was asked", "seen": why}}))
        });
        let headers = response.headers_mut();
        for (name, value) in HEADERS {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    fn get(&self, path: &str, words: &Words) -> Result<Response<Content>, Refusal> {
        let lab = words.get("lab").unwrap_or_default();
        let done = match path {
            "/api/labs" => self.shows.list().map(|mut list| {
                list["read_only"] = json!(self.guard.read_only || matches!(*self.shows, Shows::Run { .. }));
                list["build"] = json!(crate::lab::protocol::build());
                list
            }),
            "/api/run" => self.shows.replay(lab).map(shows::run),
            "/api/at" => self.shows.replay(lab).map(|r| {
                let t_us = words.number("t_us").unwrap_or(0);
                shows::document(&r.at(t_us, 1))
            }),
            "/api/events" => self.events(lab, words),
            "/api/stream" => return self.stream(lab),
            _ => return Err(Refusal(StatusCode::NOT_FOUND, "there is no such page")),
        };
        Ok(said(done))
    }

    fn events(&self, lab: &str, words: &Words) -> crate::error::Result<Value> {
        let filter = Filter::of(words).map_err(|odd| {
            Error::Usage(Problem::new("understand the query").observed(format!("{odd} means nothing")))
        })?;
        match *self.shows {
            Shows::Run { .. } => {
                let t_us = words.number("t_us").unwrap_or(u64::MAX);
                Ok(filter.lines(self.shows.replay(lab)?.at(t_us, KEPT).lines.iter()))
            }
            Shows::Labs { .. } => {
                let live = self.shows.live(lab)?;
                let view = lock(&live.view);
                Ok(filter.lines(view.lines.iter()))
            }
        }
    }

    fn stream(&self, lab: &str) -> Result<Response<Content>, Refusal> {
        const FULL: Refusal = Refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "four windows look already: close one, so that orders find a way",
        );
        let live = match self.shows.live(lab) {
            Ok(live) => live,
            Err(e) => return Ok(said(Err(e))),
        };
        let place = self.streams.clone().try_acquire_owned().map_err(|_| FULL)?;
        let mut response = Response::new(stream::of(live, place));
        let kind = HeaderValue::from_static("text/event-stream");
        response.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(response)
    }

    async fn post(&self, path: &str, body: Incoming) -> Result<Response<Content>, Refusal> {
        if path != "/api/order" {
            return Err(Refusal(StatusCode::NOT_FOUND, "there is no such order"));
        }
        let read = tokio::time::timeout(SLOW, Limited::new(body, BODY_MAX).collect()).await;
        let body = match read {
            Err(_) => return Err(Refusal(StatusCode::REQUEST_TIMEOUT, "the order did not arrive in time")),
            Ok(Err(_)) => return Err(Refusal(StatusCode::PAYLOAD_TOO_LARGE, "an order has 64 KiB at most")),
            Ok(Ok(body)) => body.to_bytes(),
        };
        Ok(match self.orders.take(&self.shows, &body).await {
            Err(e) => said(Err(e)),
            Ok(Ok(value)) => json_answer(StatusCode::OK, &value),
            Ok(Err(e)) => json_answer(status(&e), &orders::error(&e)),
        })
    }
}

fn status(e: &Error) -> StatusCode {
    match e {
        Error::Usage(_) | Error::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        Error::Bug(_) => StatusCode::INTERNAL_SERVER_ERROR,
        Error::Host(_) | Error::Operation(_) | Error::Interrupted => StatusCode::BAD_GATEWAY,
    }
}

fn said(done: crate::error::Result<Value>) -> Response<Content> {
    match done {
        Ok(value) => json_answer(StatusCode::OK, &value),
        Err(e) => json_answer(status(&e), &orders::error(&e)),
    }
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Content> {
    whole(status, "application/json", Bytes::from(value.to_string()))
}

fn whole(status: StatusCode, kind: &'static str, bytes: Bytes) -> Response<Content> {
    let mut response = Response::new(Content::Whole(Some(bytes)));
    *response.status_mut() = status;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
