//! What changed from one picture to a later one.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The changed parts. Applied to the older picture, they give the newer one; null is a value, not an absence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Patch(pub Vec<Change>);

/// One part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The names from the root down.
    pub at: Vec<String>,
    /// What it is now; absent where it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub to: Option<Value>,
}

/// A null that is there is no absence.
fn there<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

impl Patch {
    /// From one picture to another, both as JSON.
    pub fn between(before: &Value, after: &Value) -> Self {
        let mut changes = Vec::new();
        compare(before, after, &mut Vec::new(), &mut changes);
        Self(changes)
    }

    /// Makes the newer picture of the older one. A place that is not there is made.
    pub fn apply_to(&self, picture: &mut Value) {
        for change in &self.0 {
            let Some((last, above)) = change.at.split_last() else {
                *picture = change.to.clone().unwrap_or_default();
                continue;
            };
            let place = above.iter().fold(&mut *picture, |at, name| {
                object(at).entry(name.clone()).or_insert(Value::Null)
            });
            match &change.to {
                Some(value) => _ = object(place).insert(last.clone(), value.clone()),
                None => _ = object(place).remove(last),
            }
        }
    }
}

fn object(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().expect("it was made one above")
}

fn compare(before: &Value, after: &Value, at: &mut Vec<String>, changes: &mut Vec<Change>) {
    match (before, after) {
        (Value::Object(old), Value::Object(new)) => {
            let gone = old.keys().filter(|name| !new.contains_key(*name));
            changes.extend(gone.map(|name| Change {
                at: at.iter().chain([name]).cloned().collect(),
                to: None,
            }));
            for (name, value) in new {
                at.push(name.clone());
                match old.get(name) {
                    Some(old) => compare(old, value, at, changes),
                    None => changes.push(Change {
                        at: at.clone(),
                        to: Some(value.clone()),
                    }),
                }
                at.pop();
            }
        }
        (old, new) if old == new => {}
        (_, new) => changes.push(Change {
            at: at.clone(),
            to: Some(new.clone()),
        }),
    }
}
