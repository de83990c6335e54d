//! The server over loopback, as strangers, foreign pages and slow readers meet it.

use super::guard::{BODY_MAX, Guard, Token};
use super::server::Site;
use super::shows::Shows;
use crate::event::{Draft, Severity, Source};
use crate::lab::protocol::Verb;
use crate::verify::sample::{self, Change, Plan, history};
use crate::verify::{ScenarioReport, Verdict};
use crate::view::Replay;
use crate::view::fake::Fake;
use crate::view::tests::look;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// A server that runs.
struct Served {
    port: u16,
    token: String,
}

async fn served(shows: Shows, read_only: bool) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let token = Token::new().unwrap();
    let text = token.text().to_owned();
    let site = Arc::new(Site::new(Guard { token, port, read_only }, shows));
    tokio::spawn(site.serve(listener, std::future::pending()));
    Served { port, token: text }
}

impl Served {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// Sends these bytes; status and body of the answer.
    async fn raw(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = self.connect().await;
        // One that refuses before it has read all hangs up.
        let _ = stream.write_all(bytes).await;
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all).await;
        let text = String::from_utf8_lossy(&all).into_owned();
        let status = text.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        (status, body.to_owned())
    }

    fn head(&self, method: &str, path: &str) -> String {
        let Self { port, token } = self;
        format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n"
        )
    }

    async fn get(&self, path: &str) -> (u16, String) {
        self.raw((self.head("GET", path) + "\r\n").as_bytes()).await
    }

    async fn order(&self, order: &Value) -> (u16, Value) {
        let body = order.to_string();
        let head = self.head("POST", "/api/order") + "Content-Type: application/json\r\n";
        let (status, body) = self
            .raw(format!("{head}Content-Length: {}\r\n\r\n{body}", body.len()).as_bytes())
            .await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }
}

fn run() -> Shows {
    let report = ScenarioReport::empty("F05", "The active node loses power", Verdict::Pass);
    let replay = Replay::of(
        Arc::new(sample::lab()),
        report,
        history(&Plan::new(&[Change::PowerOff])),
    );
    Shows::Run {
        folder: "run".into(),
        all: replay.into_iter().collect(),
    }
}

fn lab() -> (Fake, Shows) {
    let fake = Fake::new(look(5_000_000, Vec::new()));
    let shows = Shows::labs(fake.home.clone(), None);
    (fake, shows)
}

fn cut(id: &str) -> Value {
    let cut = json!({"kind": "cut", "on": "node1", "parameters": ["network=private", "direction=out"]});
    json!({"id": id, "lab": "ccr", "order": {"fault": cut}})
}

#[tokio::test]
async fn a_run_is_shown_at_any_moment() {
    let s = served(run(), false).await;
    let (status, labs) = s.get("/api/labs").await;
    let labs: Value = serde_json::from_str(&labs).unwrap();
    assert_eq!(
        (status, &labs["labs"][0]["name"], &labs["read_only"]),
        (200, &json!("F05"), &json!(true))
    );
    let about: Value = serde_json::from_str(&s.get("/api/run?lab=F05").await.1).unwrap();
    let at = |moment: &Value| format!("/api/at?lab=F05&t_us={}", moment["t_us"]);
    let off: Value = serde_json::from_str(&s.get(&at(&about["moments"][0])).await.1).unwrap();
    assert_eq!(off["picture"]["nodes"]["node1"]["role"], "off");
    let over: Value = serde_json::from_str(&s.get(&at(&about["moments"][1])).await.1).unwrap();
    assert_eq!(over["picture"]["service"]["active"], "node2");
    let query = "/api/events?lab=F05&kind=cluster.*&severity=warning";
    let events: Value = serde_json::from_str(&s.get(query).await.1).unwrap();
    assert_eq!(events["lines"][0]["kind"], "cluster.member-down");
    assert_eq!(s.get("/api/events?lab=F05&severity=loud").await.0, 422);
    assert_eq!(s.order(&cut("1")).await.0, 422, "nothing is ordered of a run");
}

#[tokio::test]
async fn strangers_and_foreign_pages_do_nothing() {
    let (fake, shows) = lab();
    let s = served(shows, false).await;
    let body = cut("1").to_string();
    let post = |host: &str, more: &str, body: &str| {
        let length = body.len();
        format!(
            "POST /api/order HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{more}Content-Length: {length}\r\n\r\n{body}"
        )
    };
    let own = format!("127.0.0.1:{}", s.port);
    let right = format!("Authorization: Bearer {}\r\n", s.token);
    let kind = "Content-Type: application/json\r\n";
    let whole = format!("{right}{kind}");
    for (text, status) in [
        (post(&own, kind, &body), 401),
        (post(&own, &format!("{kind}Authorization: Bearer x\r\n"), &body), 401),
        (post(&own, &format!("{kind}Cookie: k={}\r\n", s.token), &body), 401),
        (post("evil.test", &whole, &body), 421),
        (post(&own, &format!("{whole}Origin: http://evil.test\r\n"), &body), 403),
        (
            post(&own, &format!("{whole}Sec-Fetch-Site: cross-site\r\n"), &body),
            403,
        ),
        (post(&own, &format!("{right}Content-Type: text/plain\r\n"), &body), 415),
        (post(&own, &whole, &" ".repeat(BODY_MAX + 1)), 413),
        (post(&own, &whole, "{}"), 422),
        (
            post(&own, &whole, r#"{"id":"1","lab":"../../x","order":{"heal":{}}}"#),
            422,
        ),
        (
            post(
                &own,
                &whole,
                r#"{"id":"2","lab":"ccr","order":{"fault":{"kind":"explode"}}}"#,
            ),
            422,
        ),
    ] {
        let (seen, said) = s.raw(text.as_bytes()).await;
        assert_eq!(seen, status, "{text:.300}: {said}");
    }
    // A body without a length, longer than it may be.
    let head = format!(
        "POST /api/order HTTP/1.1\r\nHost: {own}\r\nConnection: close\r\n{whole}Transfer-Encoding: chunked\r\n\r\n"
    );
    let chunk = format!("{:x}\r\n{}\r\n", BODY_MAX, " ".repeat(BODY_MAX));
    assert_eq!(s.raw(format!("{head}{chunk}{chunk}0\r\n\r\n").as_bytes()).await.0, 413);
    assert!(fake.change(|state| state.done.is_empty()), "nothing was done");
}

#[tokio::test]
async fn no_path_leads_to_a_file() {
    let s = served(run(), false).await;
    for path in [
        "/api/../app.js",
        "/../Cargo.toml",
        "/..%2f..%2fetc%2fpasswd",
        "//app.js",
        "/app.js/",
        "/app.js%00",
        "/.git/config",
        "/web/app.js",
        "/api/",
        "/api",
    ] {
        let (status, body) = s.get(path).await;
        assert_eq!(status, 404, "{path}: {body:.80}");
    }
    assert_eq!(
        s.get("http://evil.test/").await.0,
        200,
        "Host decides, not what stands before the path"
    );
    for (path, text) in [("/", "<!doctype html>"), ("/app.js", "//"), ("/tokens.css", ":root")] {
        let (status, body) = s.get(path).await;
        assert!(status == 200 && body.starts_with(text), "{path}");
    }
    let (status, _) = s
        .raw(format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(1 << 20)).as_bytes())
        .await;
    assert!([0, 400, 414, 431].contains(&status), "{status}");
}

#[tokio::test]
async fn every_answer_carries_the_policy() {
    let s = served(run(), false).await;
    for path in ["/", "/api/labs", "/nowhere"] {
        let mut stream = s.connect().await;
        stream
            .write_all((s.head("GET", path) + "\r\n").as_bytes())
            .await
            .unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        for header in [
            "content-security-policy: default-src 'none'; script-src 'self';",
            "x-content-type-options: nosniff",
            "referrer-policy: no-referrer",
            "cache-control: no-store",
        ] {
            assert!(text.contains(header), "{path}: {header}: {text:.600}");
        }
        assert!(
            !text.contains("access-control-") && !text.contains("set-cookie"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn an_order_is_done_once_and_undone_when_its_time_is_over() {
    let (fake, shows) = lab();
    let s = served(shows, false).await;
    let (status, first) = s.order(&cut("a")).await;
    assert_eq!((status, &first["kind"]), (200, &json!("cut")));
    assert_eq!(s.order(&cut("a")).await.1, first, "the same order again");
    let faults = |fake: &Fake| fake.change(|state| state.done.iter().filter(|v| matches!(v, Verb::Fault(_))).count());
    assert_eq!(faults(&fake), 1);
    let mut timed = cut("b");
    timed["order"]["fault"]["for_ms"] = json!(20);
    let (_, second) = s.order(&timed).await;
    let id = second["id"].as_u64();
    let healed = |state: &mut crate::view::fake::State| state.done.contains(&Verb::Heal { id });
    tokio::time::timeout(Duration::from_secs(30), async {
        while !fake.change(healed) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("it is healed");
    let operate = json!({"id": "c", "lab": "ccr", "order": {"operate": {"word": "move", "args": ["node2"]}}});
    assert_eq!(s.order(&operate).await.0, 200);
    fake.end();
    let heal = json!({"id": "d", "lab": "ccr", "order": {"heal": {"id": 1}}});
    let (status, said) = s.order(&heal).await;
    assert_eq!(status, 502);
    assert!(
        said["error"]["remedy"]
            .as_str()
            .unwrap()
            .contains("failoverlab status ccr"),
        "{said}"
    );
}

#[tokio::test]
async fn one_that_only_shows_orders_nothing() {
    let (fake, shows) = lab();
    let s = served(shows, true).await;
    let (status, said) = s.order(&cut("1")).await;
    assert_eq!(status, 403, "{said}");
    assert_eq!(s.get("/api/events?lab=ccr").await.0, 200);
    assert!(fake.change(|state| state.done.is_empty()));
}

/// What a stream told, until `enough` of it.
async fn told(stream: &mut TcpStream, enough: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    let mut some = [0; 8192];
    let all = async {
        while !enough(&text) {
            let n = stream.read(&mut some).await.unwrap();
            assert!(n > 0, "it ended: {text:.300}");
            text += &String::from_utf8_lossy(&some[..n]);
        }
    };
    let in_time = tokio::time::timeout(Duration::from_secs(30), all).await.is_ok();
    assert!(in_time, "never so: {text:.3000}");
    text
}

#[tokio::test]
async fn a_window_hears_what_changes_and_the_fifth_is_refused() {
    let (fake, shows) = lab();
    let s = served(shows, false).await;
    let mut windows = Vec::new();
    for _ in 0..4 {
        let mut window = s.connect().await;
        window
            .write_all((s.head("GET", "/api/stream?lab=ccr") + "\r\n").as_bytes())
            .await
            .unwrap();
        told(&mut window, |text| text.contains(r#""live""#)).await;
        windows.push(window);
    }
    let (status, said) = s.get("/api/stream?lab=ccr").await;
    assert_eq!(status, 503, "{said}");
    fake.emit(Draft::new(Source::Tool, "note").severity(Severity::Warning), 6_000_000);
    told(&mut windows[0], |text| text.contains(r#"{"at":["newest"],"to":0}"#)).await;
    drop(windows.pop());
    // Its place is free as soon as the server has seen that it went.
    tokio::time::timeout(Duration::from_secs(30), async {
        loop {
            let mut window = s.connect().await;
            window
                .write_all((s.head("GET", "/api/stream?lab=ccr") + "\r\n").as_bytes())
                .await
                .unwrap();
            let mut first = [0; 12];
            window.read_exact(&mut first).await.unwrap();
            if &first == b"HTTP/1.1 200" {
                return;
            }
        }
    })
    .await
    .expect("a place is free");
    assert_eq!(s.get("/api/stream?lab=nolab").await.0, 422);
}
