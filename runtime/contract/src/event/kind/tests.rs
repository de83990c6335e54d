use super::super::{NodeEvent, Value};
use super::*;

/// A value of every field that can be taken for one of its type.
fn sample(field: &str, kind: &str) -> Value {
    match field {
        "up" | "given" | "late" | "orderly" | "done" | "ok" | "recorded" => Value::Bool(true),
        "to" if kind == "database.compacted" || kind == "copy.resynced" || kind == "copy.lost" => Value::Number(7),
        "to" if kind == "copy.status" => Value::Text("Healthy".into()),
        "from" if kind == "cluster.path" || kind == "copy.status" => Value::Text("node1".into()),
        "as" => Value::Text("owner".into()),
        "epoch" | "tag" | "seen" | "seen_tag" | "served" | "ms" | "count" | "generation" | "bytes" | "left"
        | "through" | "from" | "lacks" | "common" | "ours" | "replayed" | "lost" | "tolerated" | "by_epoch" => {
            Value::Number(7)
        }
        _ => Value::Text("text".into()),
    }
}

#[test]
fn every_event_is_read_as_it_was_written() {
    for (name, fields) in EventKind::SHAPES {
        let data: Data = fields.iter().map(|f| ((*f).to_owned(), sample(f, name))).collect();
        let what = EventKind::read(name, &data);
        assert!(!matches!(what, EventKind::Unknown { .. }), "{name}: {data:?}");
        assert_eq!(NodeEvent::new(1, 2, &what).what(), what);
        assert_eq!((what.name(), what.data()), (*name, data.clone()));
        for missing in fields.iter() {
            let mut data = data.clone();
            data.remove(*missing);
            let garbled = EventKind::read(name, &data);
            assert!(garbled.is_garbled(), "{name} without {missing}");
            assert_eq!((garbled.name(), garbled.data()), (*name, data));
        }
    }
}

#[test]
fn every_event_says_where_it_belongs() {
    for (name, fields) in EventKind::SHAPES {
        let layer = name.split('.').next().unwrap();
        let needed = match layer {
            "cluster" | "service" => "epoch",
            "log" | "database" | "copy" => "group",
            "hub" => continue,
            _ => panic!("{name} belongs to no layer"),
        };
        assert!(fields.contains(&needed), "{name} has no {needed}");
    }
}

#[test]
fn what_is_not_known_is_kept() {
    let json =
        r#"{"seq":4,"node_t_us":9,"kind":"cluster.met-a-newer-one","id":4711,"severity":"warning","data":{"x":1}}"#;
    let event: NodeEvent = serde_json::from_str(json).unwrap();
    let what = event.what();
    assert!(matches!(&what, EventKind::Unknown { name, .. } if *name == event.kind));
    assert_eq!(what.data(), event.data);
    assert!(!what.is_garbled());
    assert_eq!(serde_json::to_string(&event).unwrap(), json);
    // A field that a newer node adds is no obstacle, and stays in the event.
    let json = r#"{"seq":4,"node_t_us":9,"kind":"cluster.formed","severity":"info","data":{"epoch":3,"new":true}}"#;
    let event: NodeEvent = serde_json::from_str(json).unwrap();
    assert_eq!(event.what(), EventKind::ClusterFormed { epoch: 3 });
    assert_eq!(serde_json::to_string(&event).unwrap(), json);
}

/// What stands in journals that were written before, to the letter.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn events_on_the_wire() {
    let line = |what: EventKind| serde_json::to_string(&NodeEvent::new(8, 5, &what)).unwrap();
    let text = str::to_owned;
    let (group, epoch) = (|| text("First"), 3);
    for (what, is) in [
        (
            EventKind::MemberDown {
                member: text("node2"),
                why: text("not heard"),
                epoch,
            },
            r#"{"seq":8,"node_t_us":5,"kind":"cluster.member-down","id":1135,"severity":"warning","data":{"epoch":3,"member":"node2","why":"not heard"}}"#,
        ),
        (
            EventKind::Path {
                network: text("public"),
                from: text("a"),
                to: text("b"),
                up: false,
                epoch,
            },
            r#"{"seq":8,"node_t_us":5,"kind":"cluster.path","id":1123,"severity":"warning","data":{"epoch":3,"from":"a","network":"public","to":"b","up":false}}"#,
        ),
        (
            EventKind::ArbitrationWon {
                claimant: Claimant::Challenger,
                epoch,
            },
            r#"{"seq":8,"node_t_us":5,"kind":"cluster.arbitration-won","severity":"info","data":{"as":"challenger","epoch":3}}"#,
        ),
        (
            EventKind::Ended {
                served: 3,
                given: false,
                late: true,
                why: text("late"),
                epoch,
            },
            r#"{"seq":8,"node_t_us":5,"kind":"cluster.ended","severity":"warning","data":{"epoch":3,"given":false,"late":true,"served":3,"why":"late"}}"#,
        ),
        (
            EventKind::OnlinePending {
                why: OnlineCause::FailoverOrStart,
                epoch,
            },
            r#"{"seq":8,"node_t_us":5,"kind":"service.online-pending","severity":"info","data":{"epoch":3,"why":"failover or start"}}"#,
        ),
        (
            EventKind::MoveDone {
                to: text("node2"),
                ms: 90,
                done: true,
                epoch,
            },
            r#"{"seq":8,"node_t_us":5,"kind":"service.move","id":100,"severity":"info","data":{"done":true,"epoch":3,"ms":90,"to":"node2"}}"#,
        ),
        (
            EventKind::CopyFailed {
                group: group(),
                why: text("a message cannot be read: Missing"),
                fault: Some(CopyFault::Message),
                epoch: None,
            },
            r#"{"seq":8,"node_t_us":5,"kind":"copy.failed","severity":"error","data":{"fault":"message","group":"First","why":"a message cannot be read: Missing"}}"#,
        ),
        (
            EventKind::CopyStatusChanged {
                group: group(),
                from: text("none"),
                to: CopyStatus::ServiceDown,
            },
            r#"{"seq":8,"node_t_us":5,"kind":"copy.status","severity":"info","data":{"from":"none","group":"First","to":"ServiceDown"}}"#,
        ),
        (
            EventKind::CopyBeyondResync {
                group: group(),
                common: 4,
                replayed: 6,
            },
            r#"{"seq":8,"node_t_us":5,"kind":"copy.diverged","id":2058,"severity":"error","data":{"common":4,"group":"First","replayed":6}}"#,
        ),
    ] {
        assert_eq!(line(what.clone()), is);
        assert_eq!(serde_json::from_str::<NodeEvent>(is).unwrap().what(), what);
    }
}

#[test]
fn a_copys_fault_has_a_word_and_a_node_of_before_told_none() {
    let read = |data: &str| {
        let json = format!(r#"{{"seq":8,"node_t_us":5,"kind":"copy.failed","severity":"error","data":{data}}}"#);
        let event: NodeEvent = serde_json::from_str(&json).unwrap();
        let what = event.what();
        assert_eq!(what.data(), event.data);
        what
    };
    let why = "the seed has failed: the disk is full";
    for (word, fault) in [
        (r#""fault":"message","#, Some(CopyFault::Message)),
        (r#""fault":"disk-full","#, Some(CopyFault::DiskFull)),
        (r#""fault":"on-fire","#, Some(CopyFault::Other("on-fire".into()))),
        ("", None),
    ] {
        let group = "First".to_owned();
        let (why, epoch) = (why.to_owned(), None);
        let data = format!(r#"{{{word}"group":"First","why":"{why}"}}"#);
        assert_eq!(
            read(&data),
            EventKind::CopyFailed {
                group,
                why,
                fault,
                epoch
            }
        );
    }
}
