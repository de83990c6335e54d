//! Tags: words by which a person chooses scenarios among others.

use super::Scenario;
use super::reader::Reader;
use crate::diagnostic::{At, Finding};
use crate::error::{Error, Problem, Result};
use crate::spec::known;
use std::collections::BTreeSet;

impl Reader<'_> {
    /// The tags of a file, each once.
    pub fn tags(&mut self, all: &[At<String>]) -> Vec<String> {
        let mut tags = Vec::new();
        for tag in all {
            let wrong = if !is_tag(tag) {
                Some("a tag has a-z, 0-9 and -, at most 32")
            } else if tags.contains(&tag.value) {
                Some("it is there already")
            } else {
                None
            };
            match wrong {
                None => tags.push(tag.value.clone()),
                Some(why) => {
                    let message = format!("`{}` cannot be a tag", tag.value.escape_debug());
                    self.find(Finding::new("bad-value", message).on(tag, why));
                }
            }
        }
        tags
    }
}

fn is_tag(tag: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=32).contains(&tag.len()) && tag.bytes().all(plain)
}

/// Those of the scenarios that have one of these tags; all where none is named.
///
/// # Errors
/// [`Error::Usage`] where none of them has a tag that is named.
pub fn tagged(mut scenarios: Vec<Scenario>, tags: &[String]) -> Result<Vec<Scenario>> {
    let all: BTreeSet<&str> = scenarios.iter().flat_map(|s| &s.tags).map(String::as_str).collect();
    if let Some(tag) = tags.iter().find(|t| !all.contains(t.as_str())) {
        return Err(Error::Usage(
            Problem::new("find scenarios by their tag")
                .on(format!("`{}`", tag.escape_debug()))
                .observed("none of the scenarios has it")
                .remedy(match all.is_empty() {
                    true => "none has any; a file says `tags = [\"…\"]`".to_owned(),
                    false => known(tag, all),
                }),
        ));
    }
    if !tags.is_empty() {
        scenarios.retain(|s| s.tags.iter().any(|t| tags.contains(t)));
    }
    Ok(scenarios)
}
