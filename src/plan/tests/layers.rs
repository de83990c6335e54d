//! From which checkpoint a lab comes up, and what it is kept as.

use super::*;
use crate::units::Size;

/// A lab that is not there, and what was kept of it.
fn gone(kept: Vec<Kept>) -> Observed {
    Observed {
        image: true,
        kept,
        ..Observed::default()
    }
}

fn both(lab: &Lab) -> Vec<Kept> {
    let inputs = Inputs::of(lab);
    [Layer::Booted, Layer::Healthy].map(|layer| kept(layer, &inputs)).into()
}

fn with_heartbeat(ms: u64) -> Lab {
    let mut lab = example("ccr");
    let settings = &mut lab.runtime.as_mut().unwrap().settings;
    settings.insert("heartbeat_ms".into(), ms.into());
    lab
}

/// The plan, with names of checkpoints that do not depend on the example's every word.
fn plan(lab: &Lab, how: &How, seen: &Observed) -> String {
    let mut text = up(lab, how, seen).render();
    let mut names: Vec<Name> = seen.kept.iter().map(|k| k.name.clone()).collect();
    names.extend(
        how.inputs
            .iter()
            .flat_map(|i| [Layer::Booted, Layer::Healthy].map(|l| l.name(i))),
    );
    for name in names {
        let (word, _) = name.rsplit_once('-').unwrap();
        text = text.replace(name.as_str(), &format!("{word}-XXXXXXXXXXXX"));
    }
    text
}

#[test]
fn a_lab_that_is_as_it_was_comes_back_healthy() {
    let lab = example("ccr");
    let mut seen = gone(both(&lab));
    insta::assert_snapshot!(plan(&lab, &how(&lab), &seen));
    // Cut short, with parts of it there: the same again.
    seen.restoring = Some(Restoring {
        from: Layer::Healthy.name(&Inputs::of(&lab)),
        layer: Some(Layer::Healthy),
    });
    seen.files = true;
    seen.supervisor = true;
    seen.running.insert(one("node1"));
    insta::assert_snapshot!(plan(&lab, &how(&lab), &seen));
}

#[test]
fn another_setting_needs_no_boot() {
    let lab = with_heartbeat(900);
    let mut seen = gone(both(&example("ccr")));
    insta::assert_snapshot!(plan(&lab, &how(&lab), &seen));
    // Cut short: the layer is known, so what comes after it is done too.
    let (name, _) = (Layer::Booted.name(&Inputs::of(&lab)), ());
    seen.restoring = Some(Restoring {
        from: name,
        layer: Some(Layer::Booted),
    });
    seen.files = true;
    seen.supervisor = true;
    let ids: Vec<String> = up(&lab, &how(&lab), &seen)
        .steps
        .into_iter()
        .map(|s| s.action.word().to_owned())
        .collect();
    assert_eq!(
        ids,
        [
            "restore",
            "deploy",
            "deploy",
            "deploy",
            "wait-healthy",
            "preflight",
            "checkpoint"
        ]
    );
}

#[test]
fn what_makes_it_boot_is_named() {
    let mut lab = with_heartbeat(900);
    lab.nodes[0].memory = Size::mib(300);
    let reason = |how: &How, kept| up(&lab, how, &gone(kept)).origin.unwrap().reason;
    let booted = kept(Layer::Booted, &Inputs::of(&example("ccr")));
    let was = format!(
        "other than in {}: nodes.node1.memory (300 MiB, was 256 MiB)",
        booted.name
    );
    assert_eq!(reason(&how(&lab), both(&example("ccr"))), was);
    // The nearest one is named, and not all that differs.
    let mut far = Inputs::of(&example("ccr"));
    for n in 0..9 {
        far.add(Layer::Booted, format!("a{n}"), "f".repeat(64));
    }
    assert_eq!(reason(&how(&lab), vec![kept(Layer::Booted, &far), booted]), was);
    let told = reason(&how(&lab), vec![kept(Layer::Booted, &far)]);
    assert!(told.ends_with("a3 (absent, was ffffffffffff), 6 more"), "{told}");

    assert_eq!(reason(&how(&lab), Vec::new()), "nothing of this lab is kept yet");
    let cold = How {
        cold: true,
        ..how(&lab)
    };
    assert_eq!(reason(&cold, both(&lab)), "that was asked for");
    let unknown = reason(&How::default(), both(&lab));
    assert_eq!(unknown, "how machines run on this host is not known yet");
}

#[test]
fn one_that_is_damaged_is_told_and_the_layer_below_is_taken() {
    let lab = example("ccr");
    let mut kept = both(&lab);
    kept[1].unfit = Some("memory/hub is missing".into());
    let plan = up(&lab, &how(&lab), &gone(kept.clone()));
    let origin = plan.origin.unwrap();
    assert_eq!(
        (origin.layer, origin.from),
        (Some(Layer::Booted), Some(kept[0].name.clone()))
    );
    assert!(origin.reason.contains("memory/hub is missing"), "{}", origin.reason);
    // The one that is of no use is kept anew.
    let last = plan.steps.last().unwrap();
    assert_eq!(last.on.as_deref(), Some(kept[1].name.as_str()));

    kept[0].unfit = Some("disks/hub/root.qcow2 is missing".into());
    let plan = up(&lab, &how(&lab), &gone(kept.clone()));
    let origin = plan.origin.unwrap();
    assert_eq!(origin.from, None);
    assert!(origin.reason.contains("root.qcow2 is missing"), "{}", origin.reason);
    let checkpoints = plan.steps.iter().filter(|s| s.action == Action::Checkpoint);
    assert_eq!(checkpoints.count(), 2);
}

#[test]
fn both_layers_of_a_new_lab_are_kept() {
    let lab = example("ccr");
    insta::assert_snapshot!(plan(&lab, &how(&lab), &gone(Vec::new())));
    let plan = up(&lab, &how(&lab), &gone(Vec::new()));
    let of = |action| plan.steps.iter().filter(move |s| s.action == action);
    let booted = of(Action::Checkpoint).next().unwrap();
    let ready: Vec<&str> = of(Action::WaitReady).map(|s| s.id.as_str()).collect();
    assert_eq!(booted.after, ready, "nothing is deployed before");
    assert!(of(Action::Deploy).all(|s| s.after == [booted.id.clone()]));
    // With both there, a boot that was asked for keeps nothing.
    let cold = How {
        cold: true,
        ..how(&lab)
    };
    let again = up(&lab, &cold, &gone(both(&lab)));
    assert!(again.steps.iter().all(|s| s.action != Action::Checkpoint));
    assert!(again.steps.iter().any(|s| s.action == Action::StartMachine));
    // One that is up already is left alone.
    assert_eq!(up(&lab, &how(&lab), &all_up(&lab)).steps, []);
}

#[test]
fn machines_of_which_one_has_run_are_not_kept_as_booted() {
    let lab = example("ccr");
    let mut seen = gone(Vec::new());
    seen.files = true;
    seen.disks.insert(one("node2"));
    let plan = up(&lab, &how(&lab), &seen);
    let kept: Vec<&str> = plan
        .steps
        .iter()
        .filter(|s| s.action == Action::Checkpoint)
        .filter_map(|s| s.on.as_deref())
        .collect();
    assert_eq!(kept, [Layer::Healthy.name(&Inputs::of(&lab)).as_str()]);
}

#[test]
fn a_lab_in_which_nothing_is_deployed_has_one_layer() {
    let mut lab = example("bare");
    let kept_as = |lab: &Lab| -> Vec<Option<String>> {
        let plan = up(lab, &how(lab), &gone(Vec::new()));
        let kept = plan.steps.into_iter().filter(|s| s.action == Action::Checkpoint);
        kept.map(|s| s.on.map(|n| n.split('-').next().unwrap().to_owned()))
            .collect()
    };
    assert_eq!(kept_as(&lab), [Some("healthy".to_owned())]);
    lab.nodes[0].run = vec![vec!["true".into()]];
    assert_eq!(kept_as(&lab), [Some("booted".to_owned()), Some("healthy".to_owned())]);
}

#[test]
fn names_of_layers_are_told_from_those_that_people_give() {
    let inputs = Inputs::of(&example("ccr"));
    for ours in [
        Layer::Booted.name(&inputs),
        Layer::Healthy.name(&inputs),
        one("warm-0123456789ab"),
    ] {
        assert!(is_layer(&ours), "{ours}");
    }
    for theirs in [
        "booted",
        "booted-1",
        "healthy-0123456789ag",
        "healthy-0123456789ab0",
        "mine-0123456789ab",
    ] {
        assert!(!is_layer(&one(theirs)), "{theirs}");
    }
}
