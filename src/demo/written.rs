//! The fences of a chapter as they are written.

use crate::diagnostic::At;
use crate::scenario::{Written, WrittenValue};
use serde::Deserialize;

/// Between the lines of `+++`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHead {
    pub title: Option<At<String>>,
}

/// A question.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawAsk {
    pub id: Option<At<String>>,
    pub question: Option<At<String>>,
    #[serde(default)]
    pub options: Vec<At<RawOption>>,
}

/// An answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawOption {
    pub text: Option<At<String>>,
    #[serde(rename = "if")]
    pub when: Option<At<String>>,
    pub why: Option<At<String>>,
}

/// What is done.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawDo {
    #[serde(default)]
    pub steps: Vec<Written>,
}

/// What is watched.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawWatch {
    pub meanwhile: Option<String>,
    #[serde(default)]
    pub see: Vec<At<RawSee>>,
}

/// Something to see.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawSee {
    pub step: Option<Written>,
    pub say: Option<String>,
}

/// What must be so.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawCheck {
    #[serde(default)]
    pub steps: Vec<Written>,
    #[serde(default)]
    pub forbid: Vec<WrittenValue>,
    #[serde(default)]
    pub invariants: Vec<At<String>>,
    #[serde(default)]
    pub require: RawRequire,
    #[serde(default)]
    pub limits: Vec<At<String>>,
}

/// Evidence without which nothing can be said.
#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct RawRequire {
    pub acks: u64,
    pub closed_generations: u64,
    pub role_changes: u64,
}

/// What helps.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawHint {
    pub say: Option<At<String>>,
}
