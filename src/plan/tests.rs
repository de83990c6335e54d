use super::*;
use crate::spec::{Lab, example};
use proptest::prelude::*;

/// The model: what is there once a step is done.
fn apply(seen: &mut Observed, lab: &Lab, how: &How, step: &Step) {
    let on = || -> Name { step.on.as_deref().unwrap().parse().unwrap() };
    match step.action {
        Action::BuildImage => seen.image = true,
        Action::StartSupervisor => {
            seen.supervisor = true;
            seen.files = true;
        }
        Action::StartNetwork => drop(seen.networks.insert(on())),
        Action::MakeSharedDisk => drop(seen.shared_disks.insert(on())),
        Action::MakeDisks => {
            assert!(seen.image && seen.supervisor);
            assert!(
                !seen.running.contains(&on()) && !seen.paused.contains(&on()),
                "disks of a living machine"
            );
            seen.disks.insert(on());
            seen.deployed.remove(&on());
        }
        Action::MakeCredentials => drop(seen.credentials.insert(on())),
        Action::StartMachine => {
            let node = lab.node(&on()).unwrap();
            assert!(seen.supervisor && seen.image && seen.disks.contains(&on()) && seen.credentials.contains(&on()));
            assert!(
                node.nics.iter().all(|n| seen.networks.contains(&n.network)),
                "a cable into nothing"
            );
            let shared = lab.shared_disks.iter().filter(|d| d.shared_by.contains(&on()));
            assert!(
                shared.into_iter().all(|d| seen.shared_disks.contains(&d.name)),
                "a disk that is not there"
            );
            assert!(seen.running.insert(on()), "started twice");
        }
        Action::RunAfter => assert!(seen.healthy || lab.runtime.is_none()),
        Action::Settle => {}
        Action::Preflight => assert!(seen.healthy || lab.is_unwell(), "what is not formed yet is no finding"),
        Action::ResumeMachine => {
            assert!(seen.paused.remove(&on()));
            seen.running.insert(on());
        }
        Action::WaitReady => assert!(seen.running.contains(&on())),
        Action::Deploy => {
            assert!(seen.running.contains(&on()));
            seen.deployed.insert(on());
        }
        Action::WaitHealthy => {
            let deployed = lab.nodes.iter().filter(|n| n.role.is_some());
            assert!(deployed.into_iter().all(|n| seen.deployed.contains(&n.name)));
            seen.healthy = true;
        }
        Action::Restore => apply_restore(seen, lab, &on()),
        Action::Checkpoint => apply_checkpoint(seen, lab, how, &on()),
    }
}

fn apply_restore(seen: &mut Observed, lab: &Lab, from: &Name) {
    assert!(seen.supervisor);
    let layer = match seen.restoring.take() {
        Some(cut) => {
            assert_eq!(cut.from, *from);
            cut.layer
        }
        None => {
            let kept = seen.kept.iter().find(|k| k.name == *from).unwrap();
            assert_eq!(kept.unfit, None);
            Some(kept.layer)
        }
    };
    let kept = std::mem::take(&mut seen.kept);
    *seen = Observed {
        healthy: false,
        kept,
        ..all_up(lab)
    };
    if layer == Some(Layer::Booted) {
        seen.complete = false;
        seen.deployed.clear();
    }
}

fn apply_checkpoint(seen: &mut Observed, lab: &Lab, how: &How, name: &Name) {
    let all: BTreeSet<Name> = lab.nodes.iter().map(|n| n.name.clone()).collect();
    assert_eq!(seen.running, all);
    let layer = if name.starts_with("booted-") {
        Layer::Booted
    } else {
        Layer::Healthy
    };
    match layer {
        Layer::Booted => assert!(seen.deployed.is_empty(), "something of the runtime is there"),
        Layer::Healthy => assert!(lab.runtime.is_none() || seen.healthy),
    }
    let inputs = how.inputs.clone().unwrap();
    assert_eq!(layer.name(&inputs), *name);
    seen.kept.retain(|k| k.name != *name);
    seen.kept.push(kept(layer, &inputs));
}

fn kept(layer: Layer, inputs: &Inputs) -> Kept {
    Kept {
        name: layer.name(inputs),
        layer,
        inputs: inputs.clone(),
        unfit: None,
    }
}

fn how(lab: &Lab) -> How {
    How {
        inputs: Some(Inputs::of(lab)),
        cold: false,
    }
}

/// Carries a plan out in an order that its `after` allows, the last possible step first: the order of the list must not matter.
fn carry_out(plan: &Plan, lab: &Lab, how: &How, seen: &mut Observed) {
    let mut waiting: Vec<&Step> = plan.steps.iter().collect();
    let mut done = BTreeSet::new();
    while !waiting.is_empty() {
        let ready = waiting
            .iter()
            .rposition(|s| s.after.iter().all(|a| done.contains(a.as_str())));
        let step = waiting.remove(ready.expect("no cycle, and nothing waits for a step that is not there"));
        apply(seen, lab, how, step);
        assert!(done.insert(step.id.as_str()), "{} twice", step.id);
    }
    seen.complete = true;
    seen.files = true;
}

fn all_up(lab: &Lab) -> Observed {
    let mut seen = Observed::default();
    let how = How::default();
    carry_out(&up(lab, &how, &seen), lab, &how, &mut seen);
    seen.healthy = true;
    seen
}

fn one(name: &str) -> Name {
    name.parse().unwrap()
}

#[test]
fn up_of_ccr_from_nothing() {
    insta::assert_snapshot!(up(&example("ccr"), &How::default(), &Observed::default()).render());
}

#[test]
fn up_of_bare_from_nothing() {
    let plan = up(&example("bare"), &How::default(), &Observed::default());
    insta::assert_snapshot!(plan.render());
    insta::assert_json_snapshot!(plan.steps[0..8]);
}

#[test]
fn a_lab_that_is_up_needs_nothing() {
    for lab in ["ccr", "bare"].map(example) {
        assert_eq!(up(&lab, &How::default(), &all_up(&lab)).steps, []);
    }
}

#[test]
fn a_machine_that_is_off_is_started_and_waited_for() {
    let lab = example("ccr");
    let mut seen = all_up(&lab);
    seen.running.remove("node2");
    seen.healthy = false;
    insta::assert_snapshot!(up(&lab, &How::default(), &seen).render(), @r"
    start-machine  node2  it is not running
    wait-ready     node2  it has to boot
    wait-healthy          exmbx is not known to be healthy
    ");
}

#[test]
fn a_machine_that_lost_its_disk_is_made_anew() {
    let lab = example("ccr");
    let mut seen = all_up(&lab);
    seen.running.remove("node2");
    seen.disks.remove("node2");
    let plan = up(&lab, &How::default(), &seen);
    let ids: Vec<&str> = plan.steps.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "make-disks:node2",
            "start-machine:node2",
            "wait-ready:node2",
            "deploy:node2",
            "wait-healthy"
        ]
    );
}

#[test]
fn a_suspended_machine_goes_on() {
    let lab = example("bare");
    let mut seen = all_up(&lab);
    seen.running.remove("b");
    seen.paused.insert(one("b"));
    insta::assert_snapshot!(up(&lab, &How::default(), &seen).render(), @r"
    resume-machine  b  it is suspended
    wait-ready      b  it has to answer again
    ");
}

#[test]
fn an_unhealthy_lab_is_waited_for() {
    let lab = example("ccr");
    let mut seen = all_up(&lab);
    seen.healthy = false;
    insta::assert_snapshot!(up(&lab, &How::default(), &seen).render(), @"wait-healthy    exmbx is not known to be healthy");
}

#[test]
fn commands_of_a_bare_machine_are_deployed() {
    let mut lab = example("bare");
    lab.nodes[1].run = vec![vec!["true".into()]];
    let plan = up(&lab, &How::default(), &Observed::default());
    let deploys: Vec<&str> = plan
        .steps
        .iter()
        .filter(|s| s.action == Action::Deploy)
        .map(|s| s.reason.as_str())
        .collect();
    assert_eq!(deploys, ["its own commands: not there yet"]);
}

mod layers;

#[test]
fn a_plan_in_json_has_the_words_of_the_text() {
    let plan = up(&example("ccr"), &How::default(), &Observed::default());
    for step in &plan.steps {
        assert_eq!(serde_json::to_value(step.action).unwrap(), step.action.word());
    }
    for action in [Action::Restore, Action::Checkpoint] {
        assert_eq!(serde_json::to_value(action).unwrap(), action.word());
    }
}

/// Any part of the names, whatever the combination.
fn some_of(names: Vec<Name>) -> impl Strategy<Value = BTreeSet<Name>> {
    let n = names.len();
    proptest::sample::subsequence(names, 0..=n).prop_map(|v| v.into_iter().collect())
}

/// The lab as it is asked for, and as it was when something of it was kept: with another setting, or other machines.
fn any_kept(lab: &Lab) -> impl Strategy<Value = Vec<Kept>> + use<> {
    let mut labs = [lab.clone(), lab.clone(), lab.clone()];
    labs[1].title.push('!');
    labs[2].nodes[0].vcpus += 1;
    let layers = [Layer::Booted, Layer::Healthy];
    let mut all: Vec<Kept> = labs
        .iter()
        .flat_map(|lab| layers.map(|layer| kept(layer, &Inputs::of(lab))))
        .collect();
    all.sort_by_key(|k| k.name.clone());
    all.dedup_by_key(|k| k.name.clone());
    let n = all.len();
    let unfit = prop::collection::vec(any::<bool>(), n);
    (proptest::sample::subsequence(all, 0..=n), unfit).prop_map(|(mut kept, unfit)| {
        for (k, unfit) in kept.iter_mut().zip(unfit) {
            k.unfit = unfit.then(|| "damaged".to_owned());
        }
        kept
    })
}

fn any_observed(lab: &Lab) -> impl Strategy<Value = Observed> + use<> {
    let nodes: Vec<Name> = lab.nodes.iter().map(|n| n.name.clone()).collect();
    let networks = lab.networks.iter().map(|n| n.name.clone()).collect();
    let shared = lab.shared_disks.iter().map(|d| d.name.clone()).collect();
    let flags = any::<[bool; 5]>();
    let layer = prop_oneof![Just(None), Just(Some(Layer::Booted)), Just(Some(Layer::Healthy))];
    let from = |layer| Restoring {
        from: one("cut-short"),
        layer,
    };
    let restoring = prop::option::of(layer.prop_map(from));
    let of_lab = (some_of(networks), some_of(shared), restoring, any_kept(lab));
    let of_nodes = (
        some_of(nodes.clone()),
        some_of(nodes.clone()),
        some_of(nodes.clone()),
        some_of(nodes.clone()),
        some_of(nodes),
    );
    (flags, of_lab, of_nodes).prop_map(|(flags, (networks, shared_disks, restoring, kept), nodes)| {
        let [image, supervisor, files, complete, healthy] = flags;
        let (disks, credentials, running, paused, deployed) = nodes;
        let paused = paused.difference(&running).cloned().collect();
        Observed {
            image,
            supervisor,
            files,
            // The record says so.
            complete: complete && files,
            healthy,
            networks,
            shared_disks,
            disks,
            credentials,
            running,
            paused,
            // Nothing is in a machine that is not there.
            deployed: if files { deployed } else { BTreeSet::new() },
            restoring,
            kept,
        }
    })
}

proptest! {
    #[test]
    fn from_any_state_one_plan_is_enough(
        (lab, seen, cold) in prop_oneof!["ccr", "bare"].prop_flat_map(|name| {
            let lab = example(&name);
            let seen = any_observed(&lab);
            (Just(lab), seen, any::<bool>())
        })
    ) {
        let how = How { cold, ..how(&lab) };
        let plan = up(&lab, &how, &seen);
        for (i, step) in plan.steps.iter().enumerate() {
            for before in &step.after {
                prop_assert!(plan.steps[..i].iter().any(|s| s.id == *before), "{} is not before {}", before, step.id);
            }
        }
        let mut then = seen.clone();
        carry_out(&plan, &lab, &how, &mut then);
        prop_assert_eq!(&up(&lab, &how, &then).steps, &[]);
        // The next lab from the same file needs no boot; with other settings, none either.
        if !seen.files && seen.running.is_empty() && seen.paused.is_empty() && seen.disks.is_empty() && seen.restoring.is_none() {
            let next = Observed { kept: then.kept, ..Observed::default() };
            let boots = |lab: &Lab| up(lab, &self::how(lab), &next).steps.iter().any(|s| s.action == Action::StartMachine);
            prop_assert!(!boots(&lab));
        }
    }
}

#[test]
fn a_machine_that_waits_for_another_is_deployed_behind_it() {
    let mut lab = example("bare");
    for node in &mut lab.nodes {
        node.run = vec![vec!["true".into()]];
    }
    lab.nodes[0].after = vec!["c".parse().unwrap()];
    let plan = up(&lab, &How::default(), &Observed::default());
    let deploys: Vec<&Step> = plan.steps.iter().filter(|s| s.action == Action::Deploy).collect();
    let ids: Vec<&str> = deploys.iter().map(|s| s.id.as_str()).collect();
    assert_eq!(ids, ["deploy:b", "deploy:c", "deploy:a"]);
    assert!(deploys[2].after.contains(&"deploy:c".to_owned()));
    assert!(
        deploys[..2]
            .iter()
            .all(|s| s.after.iter().all(|a| !a.starts_with("deploy")))
    );
    // Where the other one has nothing to do, there is nothing to wait for.
    lab.nodes[2].run.clear();
    let plan = up(&lab, &How::default(), &Observed::default());
    let last = plan.steps.iter().find(|s| s.id == "deploy:a").unwrap();
    assert!(last.after.iter().all(|a| !a.starts_with("deploy")));
}

#[test]
fn a_lab_with_health_is_waited_for_before_it_is_kept_and_when_it_comes_back() {
    let mut lab = example("bare");
    lab.health = Some(crate::spec::Health {
        must: vec!["true".into()],
        within: crate::units::Span::secs(1),
        probes: Vec::new(),
    });
    let words = |seen: &Observed| -> Vec<&str> {
        let plan = up(&lab, &how(&lab), seen);
        let last = plan.steps.iter().rev().take(2).rev();
        last.map(|s| s.action.word()).collect()
    };
    let mut seen = Observed::default();
    assert_eq!(words(&seen), ["wait-healthy", "checkpoint"]);
    let plan = up(&lab, &how(&lab), &seen);
    carry_out(&plan, &lab, &how(&lab), &mut seen);
    let kept = Observed {
        kept: seen.kept.clone(),
        ..Observed::default()
    };
    assert_eq!(words(&kept), ["restore", "wait-healthy"]);
    // One that is up and not well is waited for again.
    seen.healthy = false;
    assert_eq!(up(&lab, &how(&lab), &seen).steps.len(), 1);
    seen.healthy = true;
    assert!(up(&lab, &how(&lab), &seen).is_empty());
}

#[test]
fn a_misconfigured_lab_is_changed_when_it_is_healthy_and_then_settles() {
    let words = |lab: &Lab, seen: &Observed| -> Vec<(&str, Option<String>)> {
        let plan = up(lab, &How::default(), seen);
        let last = plan.steps.into_iter().skip_while(|s| s.action != Action::Deploy);
        let late = last.filter(|s| s.action != Action::Deploy);
        late.map(|s| (s.action.word(), s.on)).collect()
    };
    let mut lab = example("ccr");
    let on = |node: &str| Some(node.to_owned());
    lab.nodes[1].run_after = vec![vec!["true".into()]];
    lab.nodes[2].run_after = vec![vec!["true".into()]];
    let changed = [
        ("wait-healthy", None),
        ("run-after", on("node2")),
        ("run-after", on("hub")),
        ("settle", None),
        ("preflight", None),
    ];
    assert_eq!(words(&lab, &Observed::default()), changed);
    // One that never becomes healthy is not waited for.
    let unwell = crate::spec::Mutation {
        id: "X".into(),
        title: "x".into(),
        healthy: false,
    };
    lab.mutations = vec![unwell];
    assert_eq!(words(&lab, &Observed::default()), changed);
    lab.nodes.iter_mut().for_each(|n| n.run_after.clear());
    assert_eq!(
        words(&lab, &Observed::default()),
        [("settle", None), ("preflight", None)]
    );
    // Once it is up there is nothing to do, healthy or not.
    let mut seen = Observed {
        complete: true,
        files: true,
        ..Observed::nothing_but_image()
    };
    for node in &lab.nodes {
        for set in [
            &mut seen.disks,
            &mut seen.credentials,
            &mut seen.running,
            &mut seen.deployed,
        ] {
            set.insert(node.name.clone());
        }
    }
    seen.networks.extend(lab.networks.iter().map(|n| n.name.clone()));
    assert!(up(&lab, &How::default(), &seen).is_empty());
    lab.mutations.clear();
    assert_eq!(up(&lab, &How::default(), &seen).steps.len(), 1);
}
