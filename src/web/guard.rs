//! Who may ask for what: decided from the head of a request, before anything of it is read or done.
//!
//! Other people of this machine can reach the port, and so can every page that a person has open elsewhere. Data and orders
//! need the token, which only whoever started the server was told; `Host` and `Origin` are those of this server, so that a name that
//! leads here (DNS rebinding) and a foreign page are refused; there is no cookie, so no request carries a right by itself.

use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, ORIGIN};
use hyper::{Method, StatusCode};

/// Longest body of a request, in bytes.
pub(super) const BODY_MAX: usize = 64 << 10;
/// Bytes of a token before it is written as text: 256 bits.
const TOKEN: usize = 32;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// A request that is not served: with which status, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal(pub StatusCode, pub &'static str);

/// The right to ask, made anew at each start.
pub(super) struct Token(String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// From the kernel's random numbers.
    ///
    /// # Errors
    /// It has none.
    pub fn new() -> std::io::Result<Self> {
        use base64ct::{Base64UrlUnpadded, Encoding};
        let mut bytes = [0; TOKEN];
        rand::TryRngCore::try_fill_bytes(&mut rand::rngs::OsRng, &mut bytes).map_err(std::io::Error::other)?;
        Ok(Self(Base64UrlUnpadded::encode_string(&bytes)))
    }

    /// As the address carries it, behind `#k=`.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Whether `given` is it. How long that takes says nothing of where they differ.
    fn is(&self, given: &str) -> bool {
        let (own, given) = (self.0.as_bytes(), given.as_bytes());
        let differ = own.iter().zip(given).fold(0, |differ, (a, b)| differ | (a ^ b));
        own.len() == given.len() && std::hint::black_box(differ) == 0
    }
}

/// What all requests are held against.
#[derive(Debug)]
pub(super) struct Guard {
    pub token: Token,
    pub port: u16,
    pub read_only: bool,
}

impl Guard {
    /// Whether this request may go on. `path` is as it was sent.
    pub fn check(&self, method: &Method, path: &str, headers: &HeaderMap) -> Result<(), Refusal> {
        let refuse = |status, why| Err(Refusal(status, why));
        let one = |name: &HeaderName| {
            let mut all = headers.get_all(name).iter();
            match (all.next(), all.next()) {
                (None, _) => Ok(None),
                (Some(value), None) => value.to_str().map(Some).map_err(|_| ()),
                (Some(_), Some(_)) => Err(()),
            }
        };
        let own = |host: &str| host == format!("127.0.0.1:{}", self.port) || host == format!("localhost:{}", self.port);
        let host = match one(&HOST) {
            Ok(Some(host)) if own(host) => host,
            _ => {
                return refuse(
                    StatusCode::MISDIRECTED_REQUEST,
                    "this is the page of 127.0.0.1 and of nobody else",
                );
            }
        };
        match one(&ORIGIN) {
            Ok(None) => {}
            Ok(Some(origin)) if origin == format!("http://{host}") => {}
            _ => return refuse(StatusCode::FORBIDDEN, "another page asks"),
        }
        if !matches!(one(&FETCH_SITE), Ok(None | Some("same-origin" | "none"))) {
            return refuse(StatusCode::FORBIDDEN, "another page asks");
        }
        if ![Method::GET, Method::POST].contains(method) {
            return refuse(StatusCode::METHOD_NOT_ALLOWED, "it takes GET and POST");
        }
        if !path.starts_with("/api/") {
            return match *method {
                Method::GET => Ok(()),
                _ => refuse(StatusCode::METHOD_NOT_ALLOWED, "a page is only read"),
            };
        }
        let given = one(&AUTHORIZATION)
            .ok()
            .flatten()
            .and_then(|v| v.strip_prefix("Bearer "));
        if !given.is_some_and(|given| self.token.is(given)) {
            return refuse(
                StatusCode::UNAUTHORIZED,
                "the token of the address is missing or not that of this server",
            );
        }
        if *method == Method::GET {
            return Ok(());
        }
        if self.read_only {
            return refuse(
                StatusCode::FORBIDDEN,
                "this server only shows: it was started with --read-only",
            );
        }
        if one(&CONTENT_TYPE) != Ok(Some("application/json")) {
            return refuse(StatusCode::UNSUPPORTED_MEDIA_TYPE, "an order is application/json");
        }
        let length = one(&CONTENT_LENGTH).map(|l| l.map(str::parse::<usize>));
        match length {
            Ok(None) => Ok(()),
            Ok(Some(Ok(n))) if n <= BODY_MAX => Ok(()),
            _ => refuse(StatusCode::PAYLOAD_TOO_LARGE, "an order has 64 KiB at most"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard {
            token: Token("right".into()),
            port: 4187,
            read_only: false,
        }
    }

    /// The status for a request with these headers.
    fn asked(guard: &Guard, method: &Method, path: &str, with: &[(&'static str, &'static str)]) -> u16 {
        let mut headers = HeaderMap::new();
        for (name, value) in with {
            headers.append(*name, value.parse().unwrap());
        }
        guard
            .check(method, path, &headers)
            .map_or_else(|r| r.0.as_u16(), |()| 200)
    }

    const HOST: (&str, &str) = ("host", "127.0.0.1:4187");
    const RIGHT: (&str, &str) = ("authorization", "Bearer right");
    const JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn a_page_needs_no_token_and_data_does() {
        let g = guard();
        assert_eq!(asked(&g, &Method::GET, "/", &[HOST]), 200);
        assert_eq!(asked(&g, &Method::GET, "/", &[("host", "localhost:4187")]), 200);
        assert_eq!(asked(&g, &Method::GET, "/api/labs", &[HOST, RIGHT]), 200);
        for wrong in [
            &[HOST][..],
            &[HOST, ("authorization", "Bearer wrong")],
            &[HOST, ("authorization", "right")],
        ] {
            assert_eq!(asked(&g, &Method::GET, "/api/labs", wrong), 401, "{wrong:?}");
        }
        assert_eq!(
            asked(&g, &Method::GET, "/api/labs", &[HOST, RIGHT, RIGHT]),
            401,
            "two of them"
        );
        assert_eq!(
            asked(&g, &Method::GET, "/api/labs", &[HOST, ("cookie", "k=right")]),
            401
        );
    }

    #[test]
    fn another_name_and_another_page_are_refused_whatever_they_know() {
        let g = guard();
        for host in [
            "evil.test:4187",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]:4187",
            "localhost:4187.evil.test",
        ] {
            assert_eq!(asked(&g, &Method::GET, "/", &[("host", host)]), 421, "{host}");
            assert_eq!(
                asked(&g, &Method::GET, "/api/labs", &[("host", host), RIGHT]),
                421,
                "{host}"
            );
        }
        assert_eq!(asked(&g, &Method::GET, "/", &[]), 421);
        assert_eq!(asked(&g, &Method::GET, "/", &[HOST, HOST]), 421, "two hosts");
        let own = ("origin", "http://127.0.0.1:4187");
        assert_eq!(asked(&g, &Method::POST, "/api/order", &[HOST, RIGHT, JSON, own]), 200);
        for origin in [
            "https://evil.test",
            "null",
            "http://127.0.0.1:4188",
            "http://localhost:4187",
        ] {
            let with = [HOST, RIGHT, JSON, ("origin", origin)];
            assert_eq!(asked(&g, &Method::POST, "/api/order", &with), 403, "{origin}");
        }
        let foreign = ("sec-fetch-site", "cross-site");
        assert_eq!(asked(&g, &Method::GET, "/api/labs", &[HOST, RIGHT, foreign]), 403);
    }

    #[test]
    fn an_order_is_small_json_and_nothing_else() {
        let g = guard();
        let post = |with: &[(&'static str, &'static str)]| asked(&g, &Method::POST, "/api/order", with);
        assert_eq!(post(&[HOST, RIGHT, JSON]), 200);
        for other in [
            "text/plain",
            "application/x-www-form-urlencoded",
            "application/json; charset=utf-8",
            "",
        ] {
            assert_eq!(post(&[HOST, RIGHT, ("content-type", other)]), 415, "{other}");
        }
        assert_eq!(post(&[HOST, RIGHT]), 415);
        for long in ["65537", "99999999999999999999999", "-1", "x"] {
            assert_eq!(post(&[HOST, RIGHT, JSON, ("content-length", long)]), 413, "{long}");
        }
        for method in [
            Method::PUT,
            Method::DELETE,
            Method::OPTIONS,
            Method::TRACE,
            Method::CONNECT,
        ] {
            assert_eq!(asked(&g, &method, "/api/order", &[HOST, RIGHT, JSON]), 405, "{method}");
        }
        assert_eq!(asked(&g, &Method::POST, "/", &[HOST, RIGHT, JSON]), 405);
        let shows = Guard {
            read_only: true,
            ..guard()
        };
        assert_eq!(asked(&shows, &Method::POST, "/api/order", &[HOST, RIGHT, JSON]), 403);
        assert_eq!(asked(&shows, &Method::GET, "/api/labs", &[HOST, RIGHT]), 200);
    }

    #[test]
    fn tokens_are_long_and_never_the_same() {
        let (a, b) = (Token::new().unwrap(), Token::new().unwrap());
        assert_eq!(a.text().len(), 43, "256 bits");
        assert!(a.is(a.text()) && !a.is(b.text()) && !a.is(&a.text()[1..]) && !a.is(""));
        assert_eq!(format!("{a:?}"), "Token(…)");
    }
}
