//! The files of the page: in the tool, found by their exact names.

use crate::picture::tokens;

/// The type and the text of what a path leads to.
pub(super) fn find(path: &str) -> Option<(&'static str, String)> {
    const HTML: &str = "text/html; charset=utf-8";
    const SCRIPT: &str = "text/javascript; charset=utf-8";
    const STYLE: &str = "text/css; charset=utf-8";
    const ICON: &str = "image/svg+xml";
    let (kind, text) = match path {
        "/" => (HTML, include_str!("../../web/index.html")),
        "/app.js" => (SCRIPT, include_str!("../../web/app.js")),
        "/draw.js" => (SCRIPT, include_str!("../../web/draw.js")),
        "/picture.js" => (SCRIPT, include_str!("../../web/picture.js")),
        "/panels.js" => (SCRIPT, include_str!("../../web/panels.js")),
        "/orders.js" => (SCRIPT, include_str!("../../web/orders.js")),
        "/replay.js" => (SCRIPT, include_str!("../../web/replay.js")),
        "/style.css" => (STYLE, include_str!("../../web/style.css")),
        "/icon.svg" => (ICON, include_str!("../../web/icon.svg")),
        "/tokens.css" => return Some((STYLE, tokens::style())),
        _ => return None,
    };
    Some((kind, text.to_owned()))
}
