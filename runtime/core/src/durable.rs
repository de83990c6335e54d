//! Small files that outlive a process: one JSON object that begins with its schema and the checksum of what follows.
//!
//! ```text
//! {"schema":1,"crc":"1a2b3c4d","stream":"…","link":{…}}
//! ```
//! A file without a schema is of the first one: files were written so before there was one. Fields that are not known are
//! left alone. A file that cannot be understood is never taken for one that is not there, and nobody writes over it.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// Why a file cannot be used. It is there, and it was read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotUnderstood {
    /// Its schema is not known here.
    #[error("written by a newer ccrd: schema {found}, this one knows up to {known}")]
    Newer {
        /// In the file.
        found: u64,
        /// The newest that this build reads.
        known: u64,
    },
    /// It is not what was written once.
    #[error("damaged: {0}")]
    Damaged(String),
}

const SCHEMA: &str = "{\"schema\":";
const CRC: &str = ",\"crc\":\"";

/// A file's content. `content` is an object with at least one field.
pub fn encode<T: Serialize>(schema: u64, content: &T) -> Vec<u8> {
    let json = serde_json::to_vec(content).expect("plain");
    debug_assert!(json.starts_with(b"{\""));
    seal(schema, &json[1..])
}

fn seal(schema: u64, rest: &[u8]) -> Vec<u8> {
    let mut out = format!("{SCHEMA}{schema}{CRC}{:08x}\",", sum(schema, rest)).into_bytes();
    out.extend_from_slice(rest);
    out
}

fn sum(schema: u64, rest: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(schema.to_string().as_bytes()), rest)
}

/// What says of which form a file is.
#[derive(Deserialize)]
struct Stamp {
    #[serde(default, deserialize_with = "present")]
    schema: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    crc: Option<Value>,
}

/// A `null` is there: it is no schema and no checksum, and not the lack of one.
fn present<'de, D: Deserializer<'de>>(field: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(field).map(Some)
}

impl Stamp {
    fn of(bytes: &[u8]) -> Result<Self, NotUnderstood> {
        // serde takes an array for a structure as well.
        if bytes.trim_ascii_start().first() != Some(&b'{') {
            return Err(NotUnderstood::Damaged("no object".into()));
        }
        parse(bytes)
    }

    fn schema(&self) -> Result<u64, NotUnderstood> {
        match &self.schema {
            None => Ok(1),
            Some(n) => n
                .as_u64()
                .filter(|n| *n > 0)
                .ok_or_else(|| NotUnderstood::Damaged(format!("`{n}` is no schema"))),
        }
    }
}

/// The schema of a file.
pub fn schema(bytes: &[u8]) -> Result<u64, NotUnderstood> {
    Stamp::of(bytes)?.schema()
}

/// Reads a file of a schema up to `known`.
pub fn decode<T: DeserializeOwned>(known: u64, bytes: &[u8]) -> Result<T, NotUnderstood> {
    let stamp = Stamp::of(bytes)?;
    let found = stamp.schema()?;
    if found > known {
        return Err(NotUnderstood::Newer { found, known });
    }
    if let Some(stated) = &stamp.crc {
        check(found, stated, bytes)?;
    }
    parse(bytes)
}

/// Whether the content is what the checksum was made of. A file without one is as old as one without a schema.
fn check(schema: u64, stated: &Value, bytes: &[u8]) -> Result<(), NotUnderstood> {
    let head = format!("{SCHEMA}{schema}{CRC}");
    let rest = bytes.strip_prefix(head.as_bytes()).and_then(|b| b.get(8..));
    let rest = rest.and_then(|b| b.strip_prefix(b"\","));
    let found = rest.map(|rest| format!("{:08x}", sum(schema, rest)));
    match found {
        Some(found) if Some(found.as_str()) == stated.as_str() => Ok(()),
        Some(found) => Err(NotUnderstood::Damaged(format!("checksum {found} instead of {stated}"))),
        None => Err(NotUnderstood::Damaged("not as a ccrd writes it".into())),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, NotUnderstood> {
    serde_json::from_slice(bytes).map_err(|e| NotUnderstood::Damaged(e.to_string()))
}

/// The same content, as a ccrd would have written it: for tests that change a file.
#[cfg(test)]
pub(crate) fn written(value: &serde_json::Value) -> Vec<u8> {
    let mut value = value.clone();
    let object = value.as_object_mut().expect("an object");
    object.remove("crc");
    match object.remove("schema").map(|s| s.as_u64().expect("a number")) {
        Some(schema) => encode(schema, &value),
        None => serde_json::to_vec(&value).expect("plain"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Content {
        name: String,
        count: u64,
    }

    fn content() -> Content {
        let (name, count) = ("a \"name\"".to_owned(), 7);
        Content { name, count }
    }

    #[test]
    fn what_was_written_is_read_and_a_newer_one_is_told_as_such() {
        let bytes = encode(2, &content());
        assert_eq!(schema(&bytes), Ok(2));
        assert_eq!(decode(2, &bytes), Ok(content()));
        assert_eq!(decode(3, &bytes), Ok(content()));
        let newer = decode::<Content>(1, &bytes).unwrap_err();
        assert_eq!(newer, NotUnderstood::Newer { found: 2, known: 1 });
        assert!(newer.to_string().starts_with("written by a newer ccrd"), "{newer}");
    }

    #[test]
    fn a_file_without_a_schema_is_of_the_first_one_and_unknown_fields_are_left_alone() {
        let old = br#"{"name":"a \"name\"","count":7}"#;
        assert_eq!((schema(old), decode(1, old)), (Ok(1), Ok(content())));
        let more = br#"{"schema":1,"colour":"red","name":"a \"name\"","count":7}"#;
        assert_eq!(decode(1, more), Ok(content()));
        let more: serde_json::Value =
            serde_json::json!({"schema": 1, "name": "a \"name\"", "count": 7, "colour": {"crc": 1}});
        assert_eq!(decode(1, &written(&more)), Ok(content()));
    }

    #[test]
    fn no_flipped_bit_is_taken_for_another_content() {
        let bytes = encode(1, &content());
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut bad = bytes.clone();
                bad[at] ^= 1 << bit;
                let read = decode::<Content>(1, &bad);
                // A flip in the name of the checksum's own field leaves a file without one.
                assert!(read.is_err() || read == Ok(content()), "byte {at} bit {bit}: {read:?}");
            }
        }
        for len in 0..bytes.len() {
            assert!(decode::<Content>(1, &bytes[..len]).is_err(), "{len} bytes");
        }
        assert!(decode::<Content>(1, &vec![0; bytes.len()]).is_err());
        for bad in [
            &b"[1]"[..],
            b"7",
            br#"{"schema":0,"name":"x","count":1}"#,
            br#"{"schema":"2","name":"x","count":1}"#,
            br#"{"schema":null,"name":"x","count":1}"#,
        ] {
            assert!(matches!(schema(bad), Err(NotUnderstood::Damaged(_))));
        }
        let null = br#"{"schema":1,"crc":null,"name":"x","count":1}"#;
        assert!(matches!(decode::<Content>(1, null), Err(NotUnderstood::Damaged(_))));
    }
}
