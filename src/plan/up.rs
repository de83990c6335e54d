//! What `up` has to do.

use super::layers::{self, How, Layer, Origin};
use super::{Observed, Plan, Restoring, id_on};
use crate::spec::{Lab, Node};
use crate::units::Name;
use serde::Serialize;
use std::collections::BTreeMap;

/// What a step of `up` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Builds the image of the lab's machines.
    BuildImage,
    /// Starts the lab's supervisor.
    StartSupervisor,
    /// Starts forwarding on a network.
    StartNetwork,
    /// Makes a disk that several machines have open.
    MakeSharedDisk,
    /// Makes a machine's overlay on the image and its own disks.
    MakeDisks,
    /// Makes a machine's boot credentials.
    MakeCredentials,
    /// Starts a machine.
    StartMachine,
    /// Lets a suspended machine go on.
    ResumeMachine,
    /// Waits until a machine answers.
    WaitReady,
    /// Installs what a machine runs.
    Deploy,
    /// Waits until the runtime says that all is well.
    WaitHealthy,
    /// Runs what a machine has to do once the lab is healthy.
    RunAfter,
    /// Waits until a lab that is misconfigured on purpose is as that makes it.
    Settle,
    /// Looks for what is wrong before the next failure shows it. What is found is told and stops nothing.
    Preflight,
    /// Brings the whole lab back from a checkpoint.
    Restore,
    /// Keeps the lab as a checkpoint.
    Checkpoint,
}

impl Action {
    /// Its name, as in `--json`: `start-machine`.
    pub fn word(self) -> &'static str {
        match self {
            Action::BuildImage => "build-image",
            Action::StartSupervisor => "start-supervisor",
            Action::StartNetwork => "start-network",
            Action::MakeSharedDisk => "make-shared-disk",
            Action::MakeDisks => "make-disks",
            Action::MakeCredentials => "make-credentials",
            Action::StartMachine => "start-machine",
            Action::ResumeMachine => "resume-machine",
            Action::WaitReady => "wait-ready",
            Action::Deploy => "deploy",
            Action::WaitHealthy => "wait-healthy",
            Action::RunAfter => "run-after",
            Action::Settle => "settle",
            Action::Preflight => "preflight",
            Action::Restore => "restore",
            Action::Checkpoint => "checkpoint",
        }
    }
}

/// The steps from what is there to a lab that is up; none where it is.
pub fn up(lab: &Lab, how: &How, seen: &Observed) -> Plan {
    let mut plan = Plan::new();
    plan.origin = match &seen.restoring {
        Some(Restoring { from, layer }) => Some(Origin {
            from: Some(from.clone()),
            layer: *layer,
            reason: "it was cut short".into(),
        }),
        None if seen.files => None,
        None => Some(layers::origin(how, &seen.kept)),
    };
    let last = match plan.origin.clone() {
        Some(Origin {
            from: Some(name),
            layer,
            ..
        }) => {
            let restored = restore(&mut plan, seen, &name);
            if layer != Some(Layer::Booted) {
                if lab.says_how_it_is() {
                    let who = lab.runtime.as_ref().map_or("it", |r| r.name());
                    let reason = format!("{who} has to find itself as it was");
                    let wait = if lab.is_unwell() {
                        Action::Settle
                    } else {
                        Action::WaitHealthy
                    };
                    plan.add(wait, None, reason, vec![restored]);
                }
                return plan;
            }
            let after = vec![restored];
            let mut last = after.clone();
            for node in lab.in_waiting_order() {
                last.extend(deploy(&mut plan, lab, node, after.clone()));
            }
            last
        }
        _ => boot(&mut plan, lab, how, seen),
    };
    form(&mut plan, lab, how, seen, last);
    plan
}

/// Makes what is missing and deploys what the machines run; the steps after which all is done with each.
fn boot(plan: &mut Plan, lab: &Lab, how: &How, seen: &Observed) -> Vec<String> {
    let image = build_image(plan, lab, seen);
    let ground = start_supervisor(plan, seen);
    for network in lab.networks.iter().filter(|n| !seen.networks.contains(&n.name)) {
        let reason = format!("{} carries no frames yet", network.subnet);
        plan.add(Action::StartNetwork, Some(&network.name), reason, ground.clone());
    }
    for disk in lab.shared_disks.iter().filter(|d| !seen.shared_disks.contains(&d.name)) {
        let reason = format!("{} shared by {}, not made yet", disk.size, disk.shared_by.join(", "));
        plan.add(Action::MakeSharedDisk, Some(&disk.name), reason, ground.clone());
    }
    let mut ready: Vec<Vec<String>> = Vec::new();
    for node in &lab.nodes {
        let step = machine(plan, lab, seen, node, image.as_ref(), &ground);
        ready.push(step.into_iter().collect());
    }
    // Only of machines that have never run anything else.
    let is_new = lab.nodes.iter().all(|n| is_fresh(seen, &n.name));
    let kept = layers::layers(lab)
        .contains(&Layer::Booted)
        .then(|| layers::to_keep(how, Layer::Booted, &seen.kept))
        .flatten()
        .filter(|_| is_new);
    if let Some(name) = kept {
        let reason = "so that what its machines run can change without a boot";
        let kept = plan.add(Action::Checkpoint, Some(&name), reason, ready.concat());
        ready.iter_mut().for_each(|after| *after = vec![kept.clone()]);
    }
    let mut last = Vec::new();
    let mut ready: BTreeMap<&Name, Vec<String>> = lab.nodes.iter().map(|n| &n.name).zip(ready).collect();
    for node in lab.in_waiting_order() {
        let after = ready.remove(&node.name).unwrap_or_default();
        let there = seen.deployed.contains(&node.name) && !is_fresh(seen, &node.name);
        let deployed = (!there).then(|| deploy(plan, lab, node, after.clone())).flatten();
        last.extend(deployed.map_or(after, |id| vec![id]));
    }
    last
}

/// Waits until all is well, and keeps it.
fn form(plan: &mut Plan, lab: &Lab, how: &How, seen: &Observed, mut last: Vec<String>) {
    let unwell = lab.is_unwell();
    let nothing_to_do = plan.is_empty() && (seen.healthy || seen.complete && unwell);
    // What is done to a healthy lab needs one.
    let first = !seen.complete && lab.with_run_after().next().is_some();
    if lab.says_how_it_is() && !nothing_to_do && (first || !unwell) {
        let reason = match (&lab.runtime, seen.complete) {
            (Some(runtime), true) => {
                let who = runtime.service.as_ref().map_or(runtime.name(), |s| &s.name);
                format!("{who} is not known to be healthy")
            }
            (Some(runtime), false) => format!("{} has to form", runtime.name()),
            (None, _) => "it is not known to be healthy".to_owned(),
        };
        last = vec![plan.add(Action::WaitHealthy, None, reason, last)];
    }
    // One after the other: what is done on one machine may rest on what was done on another.
    for node in lab.with_run_after().filter(|_| first) {
        let reason = "its commands for a healthy lab: not run yet";
        last = vec![plan.add(Action::RunAfter, Some(&node.name), reason, last)];
    }
    if lab.says_how_it_is() && !nothing_to_do && (first || unwell) {
        let reason = if unwell {
            "it is misconfigured on purpose"
        } else {
            "it was changed"
        };
        last = vec![plan.add(Action::Settle, None, reason, last)];
    }
    // What comes back from a checkpoint was looked at before that was made.
    if lab.runtime.is_some() && !seen.complete {
        let reason = "what is wrong shows at the next failure, if not before";
        last = vec![plan.add(Action::Preflight, None, reason, last)];
    }
    if let Some(name) = layers::to_keep(how, Layer::Healthy, &seen.kept).filter(|_| !seen.complete) {
        let reason = "so that the next `up` comes back from here";
        plan.add(Action::Checkpoint, Some(&name), reason, last);
    }
}

fn start_supervisor(plan: &mut Plan, seen: &Observed) -> Vec<String> {
    (!seen.supervisor)
        .then(|| plan.add(Action::StartSupervisor, None, "nothing runs this lab yet", Vec::new()))
        .into_iter()
        .collect()
}

fn restore(plan: &mut Plan, seen: &Observed, checkpoint: &Name) -> String {
    let ground = start_supervisor(plan, seen);
    let reason = if seen.restoring.is_some() {
        "it was cut short"
    } else {
        "quicker than a boot"
    };
    plan.add(Action::Restore, Some(checkpoint), reason, ground)
}

fn build_image(plan: &mut Plan, lab: &Lab, seen: &Observed) -> Option<String> {
    let image = &lab.nodes.first().filter(|_| !seen.image)?.image;
    Some(plan.add(
        Action::BuildImage,
        Some(image),
        "no image of this recipe and these packages yet",
        Vec::new(),
    ))
}

/// Brings a machine up; the step after which it is ready, where there is one.
fn machine(
    plan: &mut Plan,
    lab: &Lab,
    seen: &Observed,
    node: &Node,
    image: Option<&String>,
    ground: &[String],
) -> Option<String> {
    let name = Some(node.name.as_str());
    let (up, reason) = if seen.running.contains(&node.name) {
        if seen.complete {
            return None;
        }
        (Vec::new(), "it was not known to be ready when the last `up` ended")
    } else if seen.paused.contains(&node.name) {
        let resumed = plan.add(Action::ResumeMachine, name, "it is suspended", ground.to_vec());
        (vec![resumed], "it has to answer again")
    } else {
        (vec![start(plan, lab, seen, node, image, ground)], "it has to boot")
    };
    Some(plan.add(Action::WaitReady, name, reason, up))
}

fn start(
    plan: &mut Plan,
    lab: &Lab,
    seen: &Observed,
    node: &Node,
    image: Option<&String>,
    ground: &[String],
) -> String {
    let name = Some(node.name.as_str());
    let fresh = !seen.disks.contains(&node.name);
    let mut after = ground.to_vec();
    if fresh {
        let base = ground.iter().chain(image).cloned().collect();
        let reason = match node.disks.len() {
            0 => format!("an overlay on {}, not made yet", node.image),
            n => format!("an overlay on {} and {n} of its own, not made yet", node.image),
        };
        after.push(plan.add(Action::MakeDisks, name, reason, base));
    }
    if !seen.credentials.contains(&node.name) {
        let reason = "keys, addresses and files for its first boot, not made yet";
        after.push(plan.add(Action::MakeCredentials, name, reason, ground.to_vec()));
    }
    // Its kernel comes from the image, its cables and shared disks must be there when it starts.
    after.extend(image.cloned());
    let networks = node.nics.iter().map(|n| (Action::StartNetwork, &n.network));
    let shared = lab.shared_disks.iter().filter(|d| d.shared_by.contains(&node.name));
    for (action, on) in networks.chain(shared.map(|d| (Action::MakeSharedDisk, &d.name))) {
        let id = id_on(action, on);
        if plan.steps.iter().any(|s| s.id == id) {
            after.push(id);
        }
    }
    let reason = if fresh {
        format!("a new machine: {}, {} vcpu", node.memory, node.vcpus)
    } else {
        "it is not running".to_owned()
    };
    plan.add(Action::StartMachine, name, reason, after)
}

/// The step after which all that the machine runs is there; `None` where it runs nothing.
fn deploy(plan: &mut Plan, lab: &Lab, node: &Node, after: Vec<String>) -> Option<String> {
    let pack = lab.runtime.as_ref().filter(|_| node.role.is_some());
    let what = match (pack, !node.has_commands()) {
        (Some(runtime), true) => format!("the runtime {}", runtime.kind),
        (Some(runtime), false) => format!("the runtime {} and its own commands", runtime.kind),
        (None, false) => "its own commands".to_owned(),
        (None, true) => return None,
    };
    let reason = format!("{what}: not there yet");
    let awaited = node.after.iter().map(|n| id_on(Action::Deploy, n));
    let awaited = awaited.filter(|id| plan.steps.iter().any(|s| s.id == *id));
    let after = after.into_iter().chain(awaited).collect();
    Some(plan.add(Action::Deploy, Some(&node.name), reason, after))
}

/// Whether the machine is made anew.
fn is_fresh(seen: &Observed, node: &Name) -> bool {
    !seen.disks.contains(node) && !seen.running.contains(node) && !seen.paused.contains(node)
}
