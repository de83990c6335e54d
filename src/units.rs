//! Sizes, spans, rates and names as types: parsed once, at the edge, with errors that say what is allowed.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A count of bytes, written `64 KiB`, `384 MiB`, `2 GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(pub u64);

const SIZES: [(&str, u64); 6] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("MB", 1_000_000),
];

impl Size {
    /// `n` MiB.
    pub const fn mib(n: u64) -> Self {
        Self(n << 20)
    }
    /// Bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (number, unit) = split(s);
        let factor = SIZES.iter().find(|(u, _)| *u == unit).map(|(_, f)| *f).ok_or_else(|| {
            let like = meant_unit(unit).map_or("384 MiB".to_owned(), |unit| format!("{} {unit}", or_one(number)));
            format!("`{s}` is no size: write a number and one of B, KiB, MiB, GiB, TiB, MB, like `{like}`")
        })?;
        let n: u64 = number.parse().map_err(|_| {
            let whole = number.parse().ok().and_then(|n: f64| whole_bytes(n * factor as f64));
            let instead = whole.map_or(String::new(), |size| format!(": write `{size}`"));
            format!("`{s}` is no size: `{number}` is no whole number{instead}")
        })?;
        n.checked_mul(factor)
            .map(Size)
            .ok_or_else(|| format!("`{s}` is too large"))
    }
}

/// The unit that a person means by what is none here.
fn meant_unit(unit: &str) -> Option<&'static str> {
    Some(match unit.to_ascii_lowercase().as_str() {
        "k" | "kb" | "kib" => "KiB",
        "" | "m" | "mb" | "mib" => "MiB",
        "g" | "gb" | "gib" => "GiB",
        "t" | "tb" | "tib" => "TiB",
        _ => return None,
    })
}

fn or_one(number: &str) -> &str {
    if number.is_empty() { "1" } else { number }
}

/// What `1.5 GiB` is without a fraction, where it is whole KiB.
fn whole_bytes(bytes: f64) -> Option<Size> {
    let kib = bytes / 1024.0;
    (kib.fract() == 0.0 && (1.0..1e15).contains(&kib)).then_some(Size((kib as u64) << 10))
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) = SIZES[..5]
            .iter()
            .rev()
            .find(|(_, k)| self.0 >= *k && self.0.is_multiple_of(*k))
            .unwrap_or(&SIZES[0]);
        write!(f, "{} {unit}", self.0 / factor)
    }
}

/// A length of time, written `250 ms`, `7 s`, `10 min`, `1 h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Duration);

const SPANS: [(&str, u64); 6] = [
    ("us", 1),
    ("ms", 1_000),
    ("s", 1_000_000),
    ("min", 60_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

impl Span {
    /// `n` seconds.
    pub const fn secs(n: u64) -> Self {
        Self(Duration::from_secs(n))
    }
    /// `n` milliseconds.
    pub const fn millis(n: u64) -> Self {
        Self(Duration::from_millis(n))
    }
    /// As the standard library's type.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Span {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let (number, unit) = split(s);
        let factor =
            SPANS.iter().find(|(u, _)| *u == unit).map(|(_, f)| *f).ok_or_else(|| {
                format!("`{s}` is no time: write a number and one of us, ms, s, min, h, d, like `7 s`")
            })?;
        let bad = || format!("`{s}` is no time: `{number}` is no number of at most three decimals");
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if part.len() > 3 || (number.contains('.') && part.is_empty()) {
            return Err(bad());
        }
        let whole: u64 = whole.parse().map_err(|_| bad())?;
        let part: u64 = if part.is_empty() {
            0
        } else {
            format!("{part:0<3}").parse().map_err(|_| bad())?
        };
        whole
            .checked_mul(factor)
            .and_then(|w| w.checked_add(part * factor / 1000))
            .map(|us| Span(Duration::from_micros(us)))
            .ok_or_else(|| format!("`{s}` is too long"))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let us = self.0.as_micros() as u64;
        for (unit, factor) in SPANS.iter().rev() {
            // Three decimals of this unit say it exactly.
            if us >= *factor
                && (us * 1000).is_multiple_of(*factor)
                && (*unit != "min" && *unit != "h" && *unit != "d" || us.is_multiple_of(*factor))
            {
                let text = format!("{}.{:03}", us / factor, us % factor * 1000 / factor);
                return write!(f, "{} {unit}", text.trim_end_matches('0').trim_end_matches('.'));
            }
        }
        write!(f, "{us} us")
    }
}

/// How often, written `20/s`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate(pub f64);

impl FromStr for Rate {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("`{s}` is no rate: write a number above 0 and `/s` or `/min`, like `20/s`");
        let (number, unit) = s.trim().split_once('/').ok_or_else(bad)?;
        let per = match unit.trim() {
            "s" => 1.0,
            "min" => 60.0,
            _ => return Err(bad()),
        };
        let n: f64 = number.trim().parse().map_err(|_| bad())?;
        if !n.is_finite() || n <= 0.0 {
            Err(bad())
        } else {
            Ok(Rate(n / per))
        }
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/s", self.0)
    }
}

/// A share of a whole, written `30%`; 0 to 100.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
pub struct Percent(pub f64);

impl FromStr for Percent {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("`{s}` is no percentage: write 0% to 100%, like `30%`");
        let n: f64 = s
            .trim()
            .strip_suffix('%')
            .ok_or_else(bad)?
            .trim()
            .parse()
            .map_err(|_| bad())?;
        if (0.0..=100.0).contains(&n) {
            Ok(Percent(n))
        } else {
            Err(bad())
        }
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%", self.0)
    }
}

/// The name of a lab, node, network, disk or share: `a-z`, `0-9` and `-`, beginning with a letter, at most 32.
///
/// Nothing else can reach a path, an argument vector or a guest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Longest name.
    pub const MAX: usize = 32;
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let ok = s.len() <= Self::MAX
            && s.starts_with(|c: char| c.is_ascii_lowercase())
            && !s.ends_with('-')
            && s.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        if ok {
            Ok(Name(s.to_owned()))
        } else {
            Err(format!(
                "`{}` is no name: use a-z, 0-9 and -, beginning with a letter, at most {} characters",
                s.escape_debug(),
                Self::MAX
            ))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::borrow::Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl std::ops::Deref for Name {
    type Target = str;
    fn deref(&self) -> &str {
        &self.0
    }
}

/// Number and unit of `12 MiB` or `12MiB`.
fn split(s: &str) -> (&str, &str) {
    let s = s.trim();
    let at = s.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(s.len());
    (&s[..at], s[at..].trim_start())
}

/// A value that is written in quotes. A bare number is told how to be written, by what the type says of it.
struct Written<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = String>> serde::de::Visitor<'_> for Written<T> {
    type Value = T;
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text in quotes")
    }
    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }
    fn visit_i64<E: serde::de::Error>(self, n: i64) -> Result<T, E> {
        Err(E::custom(in_quotes::<T>(n)))
    }
    fn visit_u64<E: serde::de::Error>(self, n: u64) -> Result<T, E> {
        Err(E::custom(in_quotes::<T>(n)))
    }
    fn visit_f64<E: serde::de::Error>(self, n: f64) -> Result<T, E> {
        Err(E::custom(in_quotes::<T>(n)))
    }
}

fn in_quotes<T: FromStr<Err = String>>(number: impl fmt::Display) -> String {
    let wrong = number.to_string().parse::<T>().err();
    format!("{}, in quotes", wrong.unwrap_or_else(|| format!("write `{number}`")))
}

macro_rules! as_text {
    ($t:ty, $name:literal, $pattern:literal, $example:literal) => {
        impl Serialize for $t {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $t {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                d.deserialize_any(Written(std::marker::PhantomData))
            }
        }
        impl JsonSchema for $t {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }
            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "pattern": $pattern, "examples": [$example]})
            }
        }
    };
}
as_text!(Size, "Size", r"^[0-9]+ ?(B|KiB|MiB|GiB|TiB|MB)$", "384 MiB");
as_text!(Span, "Span", r"^[0-9]+(\.[0-9]{1,3})? ?(us|ms|s|min|h|d)$", "7 s");
as_text!(Rate, "Rate", r"^[0-9]+(\.[0-9]+)?/(s|min)$", "20/s");
as_text!(Percent, "Percent", r"^[0-9]+(\.[0-9]+)?%$", "30%");
as_text!(Name, "Name", r"^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$", "node1");

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes() {
        assert_eq!("384 MiB".parse(), Ok(Size::mib(384)));
        assert_eq!("384MiB".parse(), Ok(Size::mib(384)));
        for bad in ["", "4096", "4 gb", "-1 MiB", "1.5 GiB", "99999999999999 TiB", "1 MiB x"] {
            assert!(bad.parse::<Size>().is_err(), "{bad}");
        }
        for (written, right) in [
            ("2G", "like `2 GiB`"),
            ("4 gb", "like `4 GiB`"),
            ("2048", "like `2048 MiB`"),
            ("many", "like `384 MiB`"),
            ("1.5 GiB", "write `1536 MiB`"),
            ("0.3 GiB", "`0.3` is no whole number"),
            ("1.2.3 GiB", "`1.2.3` is no whole number"),
        ] {
            let e = written.parse::<Size>().unwrap_err();
            assert!(e.ends_with(right), "{e}");
        }
        let bare = |json: &str| serde_json::from_str::<Size>(json).unwrap_err().to_string();
        assert!(bare("2048").contains("like `2048 MiB`, in quotes"), "{}", bare("2048"));
        assert!(bare("1.5").contains("like `1.5 MiB`, in quotes"), "{}", bare("1.5"));
        assert!(bare("true").contains("text in quotes"), "{}", bare("true"));
    }

    #[test]
    fn spans() {
        assert_eq!("1.2 s".parse(), Ok(Span::millis(1200)));
        assert_eq!("30s".parse(), Ok(Span::secs(30)));
        assert_eq!(Span::millis(1200).to_string(), "1.2 s");
        assert_eq!(Span::secs(90).to_string(), "90 s");
        for bad in ["", "5", "5 seconds", "1. s", "-3 s", "1.2345 s"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_could_leave_their_folder_are_none() {
        for bad in [
            "",
            "..",
            "a/b",
            "a\nb",
            "-a",
            "a-",
            "A",
            "1a",
            "a.b",
            "a b",
            &"a".repeat(33),
        ] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
        assert!("node1".parse::<Name>().is_ok());
    }

    #[test]
    fn rates_and_percentages() {
        assert_eq!("120/min".parse(), Ok(Rate(2.0)));
        assert!("0/s".parse::<Rate>().is_err());
        assert!("120%".parse::<Percent>().is_err());
        assert!("NaN%".parse::<Percent>().is_err());
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(n in 0u64..1 << 50, us in 0u64..1 << 40) {
            prop_assert_eq!(Size(n).to_string().parse(), Ok(Size(n)));
            let s = Span(Duration::from_micros(us));
            prop_assert_eq!(s.to_string().parse(), Ok(s));
        }
        #[test]
        fn garbage_never_panics(s in "\\PC*") {
            let _ = (s.parse::<Size>(), s.parse::<Span>(), s.parse::<Rate>(), s.parse::<Percent>(), s.parse::<Name>());
        }
    }
}
