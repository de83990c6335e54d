//! `up`: carries out the plan, undoes what it made where a step fails.

use super::Engine;
use crate::deploy;
use crate::error::{Cause, Error, IoContext, Problem, Result};
use crate::event::{Draft, Severity, Source, Step};
use crate::fabric::RuleSets;
use crate::guest::Command;
use crate::hypervisor::DiskFormat;
use crate::lab::cancel::Cancel;
use crate::lab::checkpoint::Store;
use crate::lab::protocol::{Look, RestoreArgs, UpArgs};
use crate::lab::record::{DesiredState, LabRecord};
use crate::lab::{channel, machines, observe};
use crate::plan::{self, Action, How, Observed, Plan};
use crate::spec::{Lab, Node};
use crate::units::Name;
use crate::wait::{Deadline, Probe, wait_led, wait_until};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// The longest that installing the runtime on one machine may take, on a fast host.
const DEPLOY: Duration = Duration::from_secs(90);
/// The longest that the cluster may take from the last deployed node until it is healthy, on a fast host.
const FORM: Duration = Duration::from_secs(90);
/// How long the same must be wrong with a misconfigured lab until that is how it is, on a fast host: longer than any probe's period.
const STEADY: Duration = Duration::from_secs(8);
/// How long the cluster is waited for before its events are followed, on a fast host.
const LISTEN: Duration = Duration::from_secs(8);

/// How old an answer of a probe may be while a lab is waited for, on a fast host.
const PROBED: Duration = Duration::from_secs(1);

/// How long the lab may take until it is healthy.
fn patience(record: &LabRecord) -> Deadline {
    let health = record.desired.lab.health.as_ref();
    let within = health.map_or(FORM, |h| h.within.duration());
    Deadline::scaled(within, record.desired.slowness)
}

impl Engine {
    /// Makes what is missing until the lab is healthy.
    pub(super) fn up(&self, args: UpArgs, cancel: &Cancel) -> Result<Value> {
        observe::same_lab(&self.home, &args.desired.lab)?;
        let before = self.try_record();
        let begun = std::time::Instant::now();
        let mut observed = self.observed(before.as_deref(), &args)?;
        let how = How {
            inputs: Some(args.desired.inputs.clone()),
            cold: args.cold,
        };
        loop {
            let mut done = Vec::new();
            let plan = self.fit_plan(&args.desired.lab, &how, &mut observed);
            if plan.steps.is_empty() {
                return Ok(json!({"steps": 0, "seconds": 0.0}));
            }
            let origin = plan.origin.as_ref().and_then(|o| o.from.clone());
            let Err(e) = self.make(&plan, before.clone(), &args.desired, cancel, &mut done) else {
                return Ok(json!({"steps": plan.steps.len(), "seconds": begun.elapsed().as_secs_f64()}));
            };
            // A lab that is new and could not come back is gone: the layer below may do, or a boot.
            let undone = before.is_none() && self.try_record().is_none();
            match origin {
                Some(name) if undone && !matches!(e, Error::Interrupted) => {
                    self.unfit(&mut observed, &name, &e);
                }
                _ if args.keep => return Err(e),
                // A lab that was whole before keeps what it had; one that `up` began goes away again.
                _ if observed.complete => return Err(e.with_rollback(self.undo(&args.desired.lab, &done))),
                _ => {
                    let failures = self.down().err().map(|e| e.to_string());
                    return Err(e.with_rollback(failures));
                }
            }
        }
    }

    /// Carries out a plan for a lab that is new or there; then it is complete.
    fn make<'p>(
        &self,
        plan: &'p Plan,
        before: Option<Arc<LabRecord>>,
        desired: &DesiredState,
        cancel: &Cancel,
        done: &mut Vec<&'p plan::Step>,
    ) -> Result<()> {
        // One that comes back has a record from then on.
        if !plan.steps.iter().any(|s| s.action == Action::Restore) {
            self.prepare(before, desired)?;
        }
        self.carry_out(desired, plan, cancel, done)?;
        self.keep(LabRecord {
            complete: true,
            ..LabRecord::clone(&*self.record()?)
        })
        .map(drop)
    }

    /// Takes back what was made in a lab that was whole before, the last first; what could not be taken back.
    fn undo(&self, lab: &Lab, done: &[&plan::Step]) -> Vec<String> {
        let undo = |step: &&plan::Step| {
            let on = step.on.as_deref().unwrap_or_default();
            match (step.action, lab.node(on)) {
                (Action::StartMachine, _) => self.hypervisor()?.destroy(on),
                (Action::ResumeMachine, _) => self.hypervisor()?.suspend(on),
                (Action::MakeDisks, Some(node)) => self.remove_disks(node),
                _ => Ok(()),
            }
        };
        let tried = done.iter().rev().map(undo);
        tried.filter_map(|t| t.err().map(|e| e.to_string())).collect()
    }

    /// What there is of the lab, as the plan wants to know it.
    fn observed(&self, record: Option<&LabRecord>, args: &UpArgs) -> Result<Observed> {
        let mut observed = match record {
            None => Observed::nothing_but_image(),
            Some(record) => observe::of(record, &self.status(Look::default())?, &self.files),
        };
        let (kept, unreadable) = observe::kept(&Store::of(&self.home, &args.desired.lab.name))?;
        for e in unreadable {
            self.tell_unfit(&e);
        }
        if let Some(cut) = &mut observed.restoring {
            cut.layer = observe::layer(&kept, &cut.from);
        }
        observed.kept = kept;
        Ok(observed)
    }

    /// The plan, whose checkpoint is whole: one that is damaged is told, and the layer below it or a boot takes its place.
    fn fit_plan(&self, lab: &Lab, how: &How, observed: &mut Observed) -> Plan {
        loop {
            let plan = plan::up(lab, how, observed);
            // One that was cut short has nothing to fall back on: the restore itself says what is wrong with it.
            let from = plan.origin.as_ref().and_then(|o| o.from.clone());
            let Some(name) = from.filter(|_| observed.restoring.is_none()) else {
                return plan;
            };
            match Store::of(&self.home, &lab.name).get(&name).and_then(|c| c.verify()) {
                Ok(()) => return plan,
                Err(e) => self.unfit(observed, &name, &e),
            }
        }
    }

    /// Notes that a checkpoint cannot be used, and tells it.
    fn unfit(&self, observed: &mut Observed, name: &Name, e: &Error) {
        self.tell_unfit(e);
        for kept in observed.kept.iter_mut().filter(|k| k.name == *name) {
            kept.unfit = Some(e.to_string());
        }
    }

    fn tell_unfit(&self, e: &Error) {
        let draft = Draft::new(Source::Tool, "checkpoint.unfit").severity(Severity::Warning);
        let text = format!("what was kept cannot be used: {e}");
        self.journal().emit(draft.data(json!({"text": text})));
    }

    /// Chooses ports and names for a lab that is new; lights its networks.
    fn prepare(&self, before: Option<Arc<LabRecord>>, desired: &DesiredState) -> Result<()> {
        if before.is_some() {
            return Ok(());
        }
        self.files
            .check_socket_paths(desired.lab.nodes.iter().map(|n| n.name.as_str()))?;
        let machines = machines::choose(desired)?;
        let mut record = LabRecord::new(&self.instance, desired.clone(), machines);
        let fabric = self.start_fabric(&record, RuleSets::default())?;
        record.ports = fabric.ports();
        self.keep_fabric(fabric);
        self.keep(record).map(drop)
    }

    /// Runs the plan's steps, each as soon as those it waits for are done. The first failure stops the rest; `done` gets those that
    /// went well.
    fn carry_out<'p>(
        &self,
        desired: &DesiredState,
        plan: &'p Plan,
        cancel: &Cancel,
        done: &mut Vec<&'p plan::Step>,
    ) -> Result<()> {
        // A failure ends the other steps, not the request: another plan may follow.
        let cancel = &cancel.child();
        let mut waiting: Vec<&plan::Step> = plan.steps.iter().collect();
        let mut failed: Option<Error> = None;
        std::thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let mut running = 0;
            loop {
                if failed.is_none() && cancel.check().is_ok() {
                    waiting.retain(|step| {
                        let ready = step.after.iter().all(|id| done.iter().any(|d| d.id == *id));
                        if ready {
                            let (tell, step) = (tell.clone(), *step);
                            scope.spawn(move || {
                                let result = self.act(desired, step, cancel);
                                drop(tell.send((step, result)));
                            });
                            running += 1;
                        }
                        !ready
                    });
                }
                if running == 0 {
                    break;
                }
                let (step, result) = told.recv().expect("a running step tells how it ended");
                running -= 1;
                match result {
                    Ok(()) => done.push(step),
                    // Steps that were interrupted because another failed are not the cause.
                    Err(e) if failed.as_ref().is_none_or(|f| matches!(f, Error::Interrupted)) => {
                        cancel.cancel();
                        failed = Some(e);
                    }
                    Err(_) => {}
                }
            }
        });
        match failed {
            Some(e) => Err(e),
            None if waiting.is_empty() => Ok(()),
            None => cancel.check().and(Err(Error::Bug(
                Problem::new("carry out the plan").observed(format!("{} steps wait for each other", waiting.len())),
            ))),
        }
    }

    fn act(&self, desired: &DesiredState, step: &plan::Step, cancel: &Cancel) -> Result<()> {
        cancel.check()?;
        let lab = &desired.lab;
        let on = step.on.as_deref().unwrap_or_default();
        let unknown = |what: &str| Error::Bug(Problem::new(format!("find the step's {what}")).on(on));
        let node = || lab.node(on).ok_or_else(|| unknown("node"));
        let name = || on.parse().map_err(|_| unknown("checkpoint"));
        if step.action == Action::Restore {
            let (lab, checkpoint) = (lab.name.clone(), name()?);
            return self
                .restore(&RestoreArgs { lab, checkpoint }, Some(desired), cancel)
                .map(drop);
        }
        let record = self.record()?;
        match step.action {
            // Done before the supervisor was asked, or with the record.
            Action::BuildImage | Action::StartSupervisor | Action::StartNetwork | Action::Restore => Ok(()),
            Action::MakeSharedDisk => self.make_shared_disk(&record, on),
            Action::MakeDisks => self.make_disks(&record, node()?),
            Action::MakeCredentials => self.credentials(&record, node()?).map(drop),
            Action::StartMachine => self.start_machine(&record, node()?),
            Action::ResumeMachine => {
                self.hypervisor()?.resume(on)?;
                self.channels.clock_jumped(on);
                Ok(())
            }
            Action::WaitReady => self.wait_ready(&record, node()?, cancel),
            Action::Deploy => self.deploy(&record, node()?, cancel),
            Action::WaitHealthy => self.wait_healthy(&record, cancel),
            Action::RunAfter => self.run_after(&record, node()?, cancel),
            Action::Settle => self.settle(&record, cancel),
            Action::Preflight => self.tell_preflight(),
            Action::Checkpoint => {
                self.keep_layer(&record, &name()?);
                Ok(())
            }
        }
    }

    fn make_disks(&self, record: &LabRecord, node: &Node) -> Result<()> {
        let files = self.files.node(&node.name);
        fs_err::create_dir_all(&files.dir).tried("make the node's folder", files.dir.display())?;
        let qemu_img = &self.backends.qemu_img;
        let image = &record.desired.image;
        qemu_img.create_overlay(&files.root_overlay(), &image.disk, image.format)?;
        for disk in &node.disks {
            qemu_img.create(&files.disk(&disk.name), DiskFormat::Qcow2, disk.size)?;
        }
        Ok(())
    }

    fn remove_disks(&self, node: &Node) -> Result<()> {
        let files = self.files.node(&node.name);
        let own = node.disks.iter().map(|disk| files.disk(&disk.name));
        for path in own.chain([files.root_overlay()]) {
            fs_err::remove_file(&path).tried("remove the machine's disk", path.display())?;
        }
        Ok(())
    }

    fn make_shared_disk(&self, record: &LabRecord, name: &str) -> Result<()> {
        let path = self.files.shared_disk(name);
        let Some(disk) = record.desired.lab.shared_disks.iter().find(|d| d.name.as_str() == name) else {
            return Err(Error::Bug(Problem::new("find the shared disk").on(name)));
        };
        let folder = path.parent().expect("a file in a folder");
        fs_err::create_dir_all(folder).tried("make the folder of shared disks", folder.display())?;
        let file = fs_err::File::create(&path).tried("make the shared disk", path.display())?;
        file.set_len(disk.size.bytes())
            .tried("make the shared disk", path.display())
    }

    fn start_machine(&self, record: &LabRecord, node: &Node) -> Result<()> {
        let step = Step::begin(self.journal(), "start", Some(&node.name), "creating the machine");
        let mut created = self.create_machine(record, &node.name);
        if let Err(Error::Operation(p)) = &created
            && p.cause == Some(Cause::PortTaken)
        {
            // Another process took the port since it was chosen: another one, not a failure.
            let mut changed = (*self.record()?).clone();
            let port = machines::another_ssh_port()?;
            changed
                .machines
                .iter_mut()
                .filter(|m| m.node == node.name.as_str())
                .for_each(|m| m.ssh_port = port);
            let changed = self.keep(changed)?;
            created = self.create_machine(&changed, &node.name);
        }
        created?;
        step.done("created");
        Ok(())
    }

    fn deploy(&self, record: &LabRecord, node: &Node, cancel: &Cancel) -> Result<()> {
        let step = Step::begin(self.journal(), "deploy", Some(&node.name), "installing");
        let pack = channel::pack(record)?;
        let deadline = Deadline::scaled(DEPLOY, record.desired.slowness);
        let mut remote = self.channels.take(record, &node.name, deadline)?;
        let artifacts = deploy::Artifacts::of(pack.as_ref(), &self.backends.programs, self.files.keys())?;
        let report = deploy::deploy(
            &mut *remote,
            &record.desired.lab,
            node,
            pack.as_ref(),
            &artifacts,
            deadline,
            &mut |seen| {
                step.say(seen);
                cancel.check()
            },
        )?;
        self.channels.keep(&node.name, remote);
        step.done(if report.changed {
            "installed"
        } else {
            "is installed already"
        });
        Ok(())
    }

    /// Runs what a machine has to do once the lab is healthy.
    fn run_after(&self, record: &LabRecord, node: &Node, cancel: &Cancel) -> Result<()> {
        let step = Step::begin(self.journal(), "change", Some(&node.name), "running its commands");
        let deadline = Deadline::scaled(DEPLOY, record.desired.slowness);
        let mut remote = self.channels.take(record, &node.name, deadline)?;
        for argv in &node.run_after {
            cancel.check()?;
            let line = argv.join(" ");
            step.say(&line);
            remote
                .exec(&Command::new(argv.iter().cloned()), deadline)?
                .check_ok(&format!("run its command on {}", node.name), line)?;
        }
        self.channels.keep(&node.name, remote);
        step.done(&format!("{} commands run", node.run_after.len()));
        Ok(())
    }

    /// Waits until the lab is healthy; one that is misconfigured so that it is not, until what is wrong stays the same for a while.
    pub(super) fn settle(&self, record: &LabRecord, cancel: &Cancel) -> Result<()> {
        if !record.desired.lab.says_how_it_is() {
            return Ok(());
        }
        if !record.desired.lab.is_unwell() {
            return self.wait_healthy(record, cancel);
        }
        let record = self.record()?;
        let step = Step::begin(self.journal(), "settle", None, "waiting for what is wrong to show");
        self.channels.watch(&record);
        self.channels.follow(&record);
        let slowness = record.desired.slowness;
        let last: RefCell<(Option<String>, Instant)> = RefCell::new((None, Instant::now()));
        wait_until("see what is wrong with the lab", patience(&record), || {
            cancel.check()?;
            let why = self.status(self.fresh(&record))?.unhealthy;
            let mut last = last.borrow_mut();
            if last.0 != why {
                *last = (why.clone(), Instant::now());
            }
            let stays = last.1.elapsed() >= slowness.scale(STEADY);
            Ok(match why {
                Some(why) if stays => {
                    step.say(&why);
                    Probe::Ready(())
                }
                Some(why) => Probe::NotYet(format!("it is new that {why}")),
                None => Probe::NotYet("it is healthy, though it is misconfigured so that it should not be".into()),
            })
        })?;
        step.done("as its misconfiguration makes it");
        Ok(())
    }

    /// As new as a watch makes it; of probes, which nobody watches, not old.
    fn fresh(&self, record: &LabRecord) -> Look {
        match record.desired.lab.health {
            None => Look::default(),
            Some(_) => {
                let age = record.desired.slowness.scale(PROBED).as_micros() as u64;
                Look::since(self.journal().now_us().saturating_sub(age))
            }
        }
    }

    pub(super) fn wait_healthy(&self, record: &LabRecord, cancel: &Cancel) -> Result<()> {
        if !record.desired.lab.says_how_it_is() {
            return Ok(());
        }
        let record = self.record()?;
        // What the runtime says from its beginning on is of interest where it takes long. Else it is heard later, all of it: a cluster is
        // healthy sooner without further handshakes on its processors.
        let unheard = Deadline::scaled(LISTEN, record.desired.slowness);
        let (what, doing) = match record.desired.lab.runtime {
            Some(_) => ("see the cluster healthy", "waiting for the cluster"),
            None => ("see the lab healthy", "waiting until it is healthy"),
        };
        let step = Step::begin(self.journal(), "form", None, doing);
        self.channels.watch(&record);
        let heard = Cell::new(0);
        wait_led(
            what,
            patience(&record),
            |most| {
                self.channels.news().wait(heard.get(), most);
            },
            || {
                cancel.check()?;
                let status = self.status(self.fresh(&record))?;
                heard.set(status.heard);
                Ok(match status.unhealthy {
                    None => Probe::Ready(()),
                    Some(why) => {
                        step.say(&why);
                        if unheard.passed() {
                            self.channels.follow(&record);
                        }
                        Probe::NotYet(why)
                    }
                })
            },
        )?;
        step.done("healthy");
        self.channels.follow(&record);
        Ok(())
    }
}
