//! What was measured in a chapter, by the names that conditions and texts may use.

use crate::scenario::Roles;
use crate::scenario::expression::Value;
use crate::verify::ScenarioReport;
use std::collections::BTreeMap;

/// What begins the names in conditions.
const MEASURED: &str = "measured.";

/// Every name, and what it is. Those in `_ms` are milliseconds.
pub const NAMES: [(&str, &str); 10] = [
    (
        "outage_ms",
        "longest time without an answer of the store to a client that kept trying",
    ),
    ("detect_ms", "from the fault until the survivor knows"),
    ("arbitrate_ms", "from then until it may serve"),
    ("mount_ms", "from then until the store is mounted"),
    (
        "first_ack_ms",
        "from the fault until the first answer of the new active",
    ),
    ("acked", "writes that were acknowledged to clients"),
    ("lost", "acknowledged and missing at the end"),
    ("redelivered", "delivered again by a hub after the failover"),
    ("duplicated", "in the store more than once"),
    ("lost_logs", "generations that the survivor had not inspected"),
];

/// What was measured; a name that is not there was not measured.
pub type Measured = BTreeMap<String, u64>;

/// What a chapter's scenario measured.
pub fn of(report: &ScenarioReport) -> Measured {
    let (t, l) = (&report.timings, &report.loss);
    let values = [
        t.outage_ms,
        t.detect_ms,
        t.arbitrate_ms,
        t.mount_ms,
        t.first_ack_ms,
        Some(l.acked),
        Some(l.lost),
        Some(l.redelivered),
        Some(l.duplicated),
        Some(l.lost_logs),
    ];
    let all = NAMES.iter().zip(values);
    all.filter_map(|((name, _), value)| Some(((*name).to_owned(), value?)))
        .collect()
}

/// The names as conditions have them.
pub fn in_conditions() -> impl Iterator<Item = String> {
    NAMES.iter().map(|(name, _)| format!("{MEASURED}{name}"))
}

/// Lets conditions see what was measured.
pub fn keep(measured: &Measured, roles: &mut Roles) {
    for (name, value) in measured {
        roles.keep_sample(&format!("{MEASURED}{name}"), Value::Number(*value));
    }
}

/// A value for people, with the unit of a time.
pub fn shown(name: &str, value: u64) -> String {
    match name.ends_with("_ms") {
        true if value < 1000 => format!("{value} ms"),
        true => format!("{:.1} s", value as f64 / 1e3),
        false => value.to_string(),
    }
}

/// The names in braces in a text.
pub fn named(text: &str) -> impl Iterator<Item = &str> {
    text.split('{')
        .skip(1)
        .filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

/// The text with what was measured in place of its names.
pub fn fill(text: &str, measured: &Measured) -> String {
    let mut out = text.to_owned();
    for (name, _) in NAMES {
        let value = measured
            .get(name)
            .map_or_else(|| "(not measured)".to_owned(), |v| shown(name, *v));
        out = out.replace(&format!("{{{name}}}"), &value);
    }
    out
}
