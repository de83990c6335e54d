//! The colours of everything that is drawn: one table, for the light and for the dark.
//!
//! What each colour must stand against is in the table too, so that a test computes every contrast (WCAG 2.2, 1.4.3 and 1.4.11).

use std::fmt::Write;

/// What a colour is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Something is drawn on it.
    Ground,
    /// It fills a bar, with text of [`Token::text`] on it.
    Fill,
    /// It is text on every ground: at least 4.5 : 1.
    Text,
    /// It is a stroke on every ground: at least 3 : 1.
    Stroke,
    /// It says nothing: lines of a grid, shades.
    Decoration,
}

/// A colour.
#[derive(Debug, Clone, Copy)]
pub struct Token {
    /// Its name in style sheets.
    pub name: &'static str,
    /// What it is for.
    pub of: Use,
    /// In the light, `#rrggbb`.
    pub light: &'static str,
    /// In the dark.
    pub dark: &'static str,
    /// Of a fill: the name of the colour of the text on it.
    pub text: Option<&'static str>,
}

const fn token(name: &'static str, of: Use, light: &'static str, dark: &'static str) -> Token {
    Token {
        name,
        of,
        light,
        dark,
        text: None,
    }
}

const fn fill(name: &'static str, light: &'static str, dark: &'static str, text: &'static str) -> Token {
    Token {
        name,
        of: Use::Fill,
        light,
        dark,
        text: Some(text),
    }
}

/// All of them.
pub const TOKENS: &[Token] = &[
    token("ground", Use::Ground, "#fbfbf9", "#14171c"),
    token("card", Use::Ground, "#ffffff", "#1b1f26"),
    token("band", Use::Ground, "#f4f5f6", "#20252d"),
    token("ink", Use::Text, "#1d2330", "#e7e9ee"),
    token("soft", Use::Text, "#5d6677", "#9aa4b5"),
    token("faint", Use::Decoration, "#e0e2e6", "#343b47"),
    token("on-fill", Use::Decoration, "#ffffff", "#10222a"),
    fill("active", "#0f5f80", "#6cc4e0", "on-fill"),
    token("passive", Use::Stroke, "#3f7a92", "#7fb4c6"),
    token("apart", Use::Text, "#8a5a00", "#e0ae4a"),
    token("frozen", Use::Text, "#4650a6", "#aab4f5"),
    token("off", Use::Text, "#4a4f5a", "#9aa4b5"),
    token("pass", Use::Text, "#1b6e45", "#4cc38a"),
    token("fail", Use::Text, "#b3261e", "#f2726b"),
    token("unknown", Use::Text, "#8a5a00", "#e0ae4a"),
    fill("fault", "#b3261e", "#f2726b", "on-fill"),
    fill("detect", "#0f5f80", "#6cc4e0", "on-fill"),
    fill("arbitrate", "#5a5fa8", "#aab4f5", "on-fill"),
    fill("mount", "#8a4a80", "#e0a2d8", "on-fill"),
    fill("client", "#5f6470", "#b4bac6", "on-fill"),
    token("op", Use::Stroke, "#1f7d61", "#58c9a4"),
    token("queue", Use::Stroke, "#5f7ea3", "#7f9cbd"),
];

/// The colours as custom properties of a style sheet, the dark ones where the reader wants them.
pub fn style() -> String {
    let all = |of: fn(&Token) -> &'static str| {
        TOKENS.iter().fold(String::new(), |mut out, t| {
            let _ = write!(out, " --{}: {};", t.name, of(t));
            out
        })
    };
    format!(
        ":root {{{} }}\n@media (prefers-color-scheme: dark) {{ :root {{{} }} }}",
        all(|t| t.light),
        all(|t| t.dark)
    )
}

/// The contrast of two colours `#rrggbb`, from 1 to 21; none where one is no such colour.
pub fn contrast(a: &str, b: &str) -> Option<f64> {
    let (a, b) = (luminance(a)?, luminance(b)?);
    Some((a.max(b) + 0.05) / (a.min(b) + 0.05))
}

fn luminance(colour: &str) -> Option<f64> {
    let hex = colour.strip_prefix('#').filter(|h| h.len() == 6 && h.is_ascii())?;
    let part = |i: usize| {
        let value = f64::from(u8::from_str_radix(&hex[i..i + 2], 16).ok()?) / 255.0;
        Some(if value <= 0.04045 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
        })
    };
    Some(0.2126 * part(0)? + 0.7152 * part(2)? + 0.0722 * part(4)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> &'static Token {
        TOKENS.iter().find(|t| t.name == name).unwrap()
    }

    /// Everything with too little contrast, of these tokens.
    fn weak(tokens: &[Token]) -> Vec<String> {
        let mut weak = Vec::new();
        for (mode, of) in [
            ("light", (|t| t.light) as fn(&Token) -> &'static str),
            ("dark", |t| t.dark),
        ] {
            let mut least = |a: &Token, b: &Token, least: f64| {
                let is = contrast(of(a), of(b)).expect("a colour");
                if is < least {
                    weak.push(format!("{mode}: {} on {}: {is:.2}", a.name, b.name));
                }
            };
            for t in tokens {
                let grounds = TOKENS.iter().filter(|g| g.of == Use::Ground);
                match t.of {
                    Use::Text => grounds.for_each(|g| least(t, g, 4.5)),
                    Use::Stroke => grounds.for_each(|g| least(t, g, 3.0)),
                    Use::Fill => {
                        grounds.for_each(|g| least(t, g, 3.0));
                        least(named(t.text.expect("a fill has text")), t, 4.5);
                    }
                    Use::Ground | Use::Decoration => {}
                }
            }
        }
        weak
    }

    #[test]
    fn everything_that_says_something_can_be_seen() {
        assert_eq!(weak(TOKENS), Vec::<String>::new());
    }

    #[test]
    fn a_pale_colour_is_found() {
        // The colours of the first reports.
        let pale = [
            token("passive", Use::Stroke, "#c9dfe6", "#27414c"),
            fill("active", "#1c6e8c", "#3aa0c0", "ink"),
        ];
        assert!(weak(&pale).len() >= 4, "{:?}", weak(&pale));
        assert_eq!(contrast("#000000", "#ffffff").map(f64::round), Some(21.0));
        assert_eq!(contrast("#0000é", "#ffffff"), None);
    }

    #[test]
    fn both_modes_have_every_colour() {
        let style = style();
        for t in TOKENS {
            assert_eq!(style.matches(&format!(" --{}:", t.name)).count(), 2, "{}", t.name);
        }
    }
}
