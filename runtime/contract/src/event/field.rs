//! Fields of an event: how a value is written, and how it is read.

use super::Value;
use crate::status::CopyStatus;
use std::convert::Infallible;
use std::str::FromStr;

/// A value of an event's data.
pub trait Field: Sized {
    /// Whether an event is whole without it.
    const OPTIONAL: bool = false;
    /// The value that is written; none where nothing is.
    fn put(&self) -> Option<Value>;
    /// The value that was read; none where it is missing or of another type.
    fn take(value: Option<&Value>) -> Option<Self>;
}

impl Field for u64 {
    fn put(&self) -> Option<Value> {
        Some(Value::Number(*self))
    }
    fn take(value: Option<&Value>) -> Option<Self> {
        match value? {
            Value::Number(n) => Some(*n),
            _ => None,
        }
    }
}

impl Field for bool {
    fn put(&self) -> Option<Value> {
        Some(Value::Bool(*self))
    }
    fn take(value: Option<&Value>) -> Option<Self> {
        match value? {
            Value::Bool(b) => Some(*b),
            _ => None,
        }
    }
}

impl Field for String {
    fn put(&self) -> Option<Value> {
        Some(Value::Text(self.clone()))
    }
    fn take(value: Option<&Value>) -> Option<Self> {
        match value? {
            Value::Text(t) => Some(t.clone()),
            _ => None,
        }
    }
}

/// A field that not every event of its kind has.
impl<T: Field> Field for Option<T> {
    const OPTIONAL: bool = true;
    fn put(&self) -> Option<Value> {
        self.as_ref()?.put()
    }
    fn take(value: Option<&Value>) -> Option<Self> {
        match value {
            None => Some(None),
            there => T::take(there).map(Some),
        }
    }
}

/// A field that is a word or a sentence: written by `Display`, read by `FromStr`.
macro_rules! worded {
    ($($type:ty),*) => {$(
        impl Field for $type {
            fn put(&self) -> Option<Value> {
                Some(Value::Text(self.to_string()))
            }
            fn take(value: Option<&Value>) -> Option<Self> {
                String::take(value)?.parse().ok()
            }
        }
    )*};
}
worded!(Claimant, OnlineCause, CopyFault, CopyStatus);

/// As what a node arbitrates at the witness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimant {
    /// It owned the quorum: it tries at once.
    Owner,
    /// It did not: it tries after the arbitration delay.
    Challenger,
}

impl std::fmt::Display for Claimant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Owner => "owner",
            Self::Challenger => "challenger",
        })
    }
}

impl FromStr for Claimant {
    type Err = ();
    fn from_str(word: &str) -> Result<Self, ()> {
        match word {
            "owner" => Ok(Self::Owner),
            "challenger" => Ok(Self::Challenger),
            _ => Err(()),
        }
    }
}

/// Why the service comes online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OnlineCause {
    /// The other member handed it over: nothing is lost.
    Handoff,
    /// The other member is gone, or the service is started.
    FailoverOrStart,
    /// What a newer node says.
    Other(String),
}

impl std::fmt::Display for OnlineCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Handoff => "handoff",
            Self::FailoverOrStart => "failover or start",
            Self::Other(text) => text,
        })
    }
}

impl FromStr for OnlineCause {
    type Err = Infallible;
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "handoff" => Self::Handoff,
            "failover or start" => Self::FailoverOrStart,
            other => Self::Other(other.to_owned()),
        })
    }
}

/// What is wrong with a copy, where a program asks for it. The sentence for people stands beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopyFault {
    /// A message that the index has cannot be read.
    Message,
    /// A disk is full.
    DiskFull,
    /// What a newer node says.
    Other(String),
}

impl std::fmt::Display for CopyFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Message => "message",
            Self::DiskFull => "disk-full",
            Self::Other(word) => word,
        })
    }
}

impl FromStr for CopyFault {
    type Err = Infallible;
    fn from_str(word: &str) -> Result<Self, Infallible> {
        Ok(match word {
            "message" => Self::Message,
            "disk-full" => Self::DiskFull,
            other => Self::Other(other.to_owned()),
        })
    }
}
