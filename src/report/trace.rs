//! A run's scenario as a trace in Chrome's format, which Perfetto opens.
//!
//! The format is "Trace Event Format": complete events `X` with `ts` and `dur` in microseconds, instants `i`, counters `C`, and
//! metadata `M` that names processes and threads.

use super::lanes::{fault_text, service_text, witness_text};
use crate::event::{Severity, Source};
use crate::picture::text::is_quiet;
use crate::picture::{Track, Tracks, VotesSeen};
use crate::spec::Lab;
use crate::verify::{History, OpKind, Outcome};
use serde_json::{Value, json};

/// The processes of the trace: each is a group of lanes.
const GROUPS: [&str; 4] = ["faults", "cluster", "clients", "events"];

/// The trace of one scenario; times are those of the journal, in microseconds.
pub fn trace(lab: &Lab, history: &History) -> Value {
    let mut trace = Trace::default();
    for (i, name) in GROUPS.iter().enumerate() {
        trace.meta("process_name", i, 0, name);
        trace
            .0
            .push(json!({"ph": "M", "name": "process_sort_index", "pid": i + 1, "args": {"sort_index": i}}));
    }
    if let Some((tracks, _)) = Tracks::of(lab, history) {
        trace.tracks(history, &tracks);
    }
    trace.operations(history);
    trace.events(lab, history);
    trace.queues(history);
    json!({"displayTimeUnit": "ms", "traceEvents": trace.0, "otherData": {"lab": lab.name.to_string(), "tool": crate::TOOL}})
}

#[derive(Default)]
struct Trace(Vec<Value>);

impl Trace {
    fn meta(&mut self, kind: &str, group: usize, lane: usize, name: &str) {
        self.0
            .push(json!({"ph": "M", "name": kind, "pid": group + 1, "tid": lane, "args": {"name": name}}));
    }

    fn span(&mut self, group: usize, lane: usize, name: &str, from_us: u64, to_us: u64, args: &Value) {
        let dur = to_us.saturating_sub(from_us);
        self.0.push(json!({
            "ph": "X", "name": name, "cat": GROUPS[group], "pid": group + 1, "tid": lane, "ts": from_us, "dur": dur, "args": args
        }));
    }

    fn track<T>(&mut self, lane: usize, name: &str, track: &Track<T>, word: impl Fn(&T) -> String) {
        self.meta("thread_name", 1, lane, name);
        for s in &track.0 {
            self.span(1, lane, &word(&s.what), s.from_us, s.to_us, &json!({}));
        }
    }

    fn tracks(&mut self, history: &History, tracks: &Tracks) {
        for (i, f) in history.faults.iter().enumerate() {
            self.meta("thread_name", 0, i + 1, &format!("fault {}", f.id));
            let end = f.end_us.unwrap_or(tracks.extent.to_us);
            let args = json!({"effective": f.effective, "proof": f.proof, "target": f.target});
            self.span(0, i + 1, &fault_text(f), f.begin_us, end, &args);
        }
        let mut lane = 0;
        let mut next = || {
            lane += 1;
            lane
        };
        for (node, track) in &tracks.roles {
            self.track(next(), node, track, |r| r.word().to_owned());
        }
        for (node, track) in &tracks.votes {
            self.track(next(), &format!("votes {node}"), track, VotesSeen::text);
        }
        self.track(next(), "service", &tracks.service, service_text);
        self.track(next(), "witness", &tracks.witness, witness_text);
        self.track(next(), "clients", &tracks.clients, |c| c.word().to_owned());
        if let Some((from, to)) = tracks.outage {
            let lane = next();
            self.meta("thread_name", 1, lane, "outage");
            self.span(1, lane, "no answer of the store", from, to, &json!({}));
        }
    }

    fn operations(&mut self, history: &History) {
        let end = crate::picture::Extent::of(history).map_or(0, |e| e.to_us);
        let clients = history.operations().unwrap_or_default();
        let names: std::collections::BTreeSet<&str> = clients.iter().map(|o| o.client).collect();
        let lanes: Vec<&str> = names.into_iter().collect();
        for (i, name) in lanes.iter().enumerate() {
            self.meta("thread_name", 2, i + 1, name);
        }
        for o in &clients {
            let lane = lanes.iter().position(|n| *n == o.client).unwrap_or_default() + 1;
            let kind = match o.kind {
                OpKind::Submit => "submit",
                OpKind::Deliver => "deliver",
                OpKind::Read => "read",
                OpKind::Delete => "delete",
            };
            let outcome = match o.outcome {
                Outcome::Ok => "ok",
                Outcome::Fail => "fail",
                Outcome::Unknown => "unknown",
            };
            let args = json!({"op": o.op, "outcome": outcome, "key": o.key, "by": o.by, "seen": o.seen});
            // Operations of one client may overlap: async spans need not nest.
            let id = format!("op{}", o.op);
            let one = |ph: &str, ts: u64, args: &Value| json!({"ph": ph, "name": kind, "cat": "clients", "id": id, "pid": 3, "tid": lane, "ts": ts, "args": args});
            self.0.push(one("b", o.begin_us, &args));
            self.0
                .push(one("e", o.end_us.unwrap_or(end).max(o.begin_us), &json!({})));
        }
    }

    fn events(&mut self, lab: &Lab, history: &History) {
        let lane = |node: Option<&str>| {
            let at = lab.nodes.iter().position(|n| Some(n.name.as_str()) == node);
            at.map_or(0, |i| i + 1)
        };
        self.meta("thread_name", 3, 0, "tool");
        for (i, node) in lab.nodes.iter().enumerate() {
            self.meta("thread_name", 3, i + 1, node.name.as_str());
        }
        let shown = history
            .events
            .iter()
            .filter(|e| e.t_us >= history.from_us && e.src != Source::Client);
        for e in shown.filter(|e| e.severity > Severity::Debug && !is_quiet(e)) {
            let lane = lane(e.node.as_deref());
            let args = json!({"seq": e.seq, "severity": e.severity, "skew_us": e.skew_us, "data": e.data});
            self.0.push(json!({
                "ph": "i", "s": "t", "name": e.kind, "cat": "events", "pid": 4, "tid": lane, "ts": e.t_us, "args": args
            }));
        }
    }

    fn queues(&mut self, history: &History) {
        for o in &history.observations {
            for (node, status) in o.statuses() {
                for c in status.copies.iter().filter(|c| c.node == node) {
                    let args = json!({"copy": c.copy_queue, "replay": c.replay_queue});
                    let name = format!("queues of {}/{node}", c.group);
                    self.0
                        .push(json!({"ph": "C", "name": name, "pid": 2, "ts": o.t_us, "args": args}));
                }
                if let Some(hub) = &status.hub {
                    let args = json!({"queued": hub.queued, "dumpster": hub.dumpster});
                    self.0
                        .push(json!({"ph": "C", "name": format!("hub {node}"), "pid": 2, "ts": o.t_us, "args": args}));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::sample::{self, Change, Plan, history};

    #[test]
    fn a_trace_has_the_times_of_the_journal() {
        let h = history(&Plan::new(&[Change::PowerOff]));
        let trace = trace(&sample::lab(), &h);
        let events = trace["traceEvents"].as_array().unwrap();
        let with = |ph: &str| events.iter().filter(|e| e["ph"] == ph).collect::<Vec<_>>();
        let fault = with("X").into_iter().find(|e| e["cat"] == "faults").unwrap().clone();
        assert_eq!(fault["ts"], h.faults[0].begin_us);
        assert_eq!(fault["dur"], h.faults[0].end_us.unwrap() - h.faults[0].begin_us);
        let ops = h.operations().unwrap().len();
        assert_eq!((with("b").len(), with("e").len()), (ops, ops));
        assert!(with("i").iter().any(|e| e["name"] == "cluster.member-down"));
        assert!(!with("C").is_empty());
        // Every lane that is used has a name.
        for e in events
            .iter()
            .filter(|e| ["X", "b", "i"].iter().any(|ph| e["ph"] == *ph))
        {
            let named = |m: &&Value| m["name"] == "thread_name" && m["pid"] == e["pid"] && m["tid"] == e["tid"];
            assert!(with("M").into_iter().any(|m| named(&m)), "{e}");
        }
    }

    #[test]
    fn nothing_makes_a_trace_too() {
        let trace = trace(&sample::lab(), &History::default());
        assert!(trace["traceEvents"].as_array().unwrap().iter().all(|e| e["ph"] == "M"));
    }
}
