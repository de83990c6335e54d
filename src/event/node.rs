//! What the runtimes in the machines tell, by its meaning.

use super::{Draft, Event, Source};
use ccr_contract::event::{Data, EventKind, NodeEvent};
use serde_json::Value;

/// A node's event, and what it says.
#[derive(Debug, Clone)]
pub struct RuntimeEvent<'a> {
    /// As it stands in the journal.
    pub event: &'a Event,
    /// Whose it is.
    pub node: &'a str,
    /// What it says.
    pub what: EventKind,
}

impl Event {
    /// What a node tells. None of what others saw.
    pub fn runtime_event(&self) -> Option<RuntimeEvent<'_>> {
        let node = self.node.as_deref().filter(|_| self.src == Source::Node)?;
        let what = EventKind::read(&self.kind, &plain(&self.data));
        Some(RuntimeEvent {
            event: self,
            node,
            what,
        })
    }
}

impl Draft {
    /// An event of the runtime on `node`.
    pub fn of_runtime(node: &str, event: NodeEvent) -> Self {
        Self {
            src: Source::Node,
            node: Some(node.to_owned()),
            kind: event.kind,
            id: event.id,
            severity: event.severity,
            t_us: None,
            node_t_us: Some(event.node_t_us),
            skew_us: None,
            node_seq: Some(event.seq),
            data: serde_json::to_value(event.data).expect("plain data"),
        }
    }
}

/// The values that an event of the contract can have; what a newer node adds of another kind belongs to no field that is known here.
fn plain(data: &Value) -> Data {
    let fields = data.as_object().into_iter().flatten();
    let plain = fields.filter_map(|(name, value)| Some((name.clone(), serde_json::from_value(value.clone()).ok()?)));
    plain.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Journal;
    use serde_json::json;

    #[test]
    fn what_a_node_tells_comes_back_as_it_was() {
        let journal = Journal::in_memory();
        let what = EventKind::ClusterFormed { epoch: 3 };
        let event = journal.emit(Draft::of_runtime("node1", NodeEvent::new(4, 9, &what)));
        let read = event.runtime_event().unwrap();
        assert_eq!((read.node, &read.what), ("node1", &what));
        // What a newer node adds changes nothing, and stays in the journal.
        let mut newer = event.clone();
        newer.data["new"] = json!([1.5]);
        assert_eq!(newer.runtime_event().unwrap().what, what);
        // The same words of somebody else are nobody's report.
        let other = Event {
            src: Source::Tool,
            ..event.clone()
        };
        assert!(other.runtime_event().is_none());
        let unknown = Event {
            kind: "cluster.new".into(),
            ..event
        };
        assert!(matches!(
            unknown.runtime_event().unwrap().what,
            EventKind::Unknown { .. }
        ));
    }
}
