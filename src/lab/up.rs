//! `up`: carries out the plan, undoes what it made where a step fails.

use super::cancel::Cancel;
use super::checkpoint::Store;
use super::engine::Engine;
use super::machines;
use super::protocol::{Look, RestoreArgs, UpArgs};
use super::record::{DesiredState, LabRecord};
use crate::deploy;
use crate::error::{Cause, Error, IoContext, Problem, Result};
use crate::event::{Draft, Severity, Source, Step};
use crate::guest;
use crate::hypervisor::{DiskFormat, DomainState, mgmt_is_up};
use crate::image::qemu_img::QemuImg;
use crate::plan::{self, Action, Observed, Plan};
use crate::spec::{Lab, Node};
use crate::wait::{Deadline, Probe, wait_led, wait_until};
use serde_json::{Value, json};
use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// The longest that a machine may take from its start until SSH answers, on a fast host (measured: 13 s alone under TCG).
const BOOT: Duration = Duration::from_secs(120);
/// The longest that installing the runtime on one machine may take, on a fast host.
const DEPLOY: Duration = Duration::from_secs(90);
/// The longest that the cluster may take from the last deployed node until it is healthy, on a fast host.
const FORM: Duration = Duration::from_secs(90);
/// How long the cluster is waited for before its events are followed, on a fast host.
const LISTEN: Duration = Duration::from_secs(8);

impl Engine {
    /// Makes what is missing until the lab is healthy.
    pub(super) fn up(&self, args: UpArgs, cancel: &Cancel) -> Result<Value> {
        super::observe::same_lab(&self.home, &args.desired.lab)?;
        let before = self.try_record();
        let begun = std::time::Instant::now();
        let mut observed = self.observed(before.as_deref())?;
        self.consider_warm(&args, &mut observed);
        let plan = plan::up(&args.desired.lab, &observed);
        if plan.steps.is_empty() {
            return Ok(json!({"steps": 0, "seconds": 0.0}));
        }
        let made = if observed.restore.is_some() {
            self.carry_out(&args.desired.lab, &plan, cancel)
        } else {
            self.prepare(before, args.desired)
                .and_then(|record| self.carry_out(&record.desired.lab, &plan, cancel))
        };
        match made {
            Ok(()) => {
                let record = self.record()?;
                let mut complete = (*record).clone();
                complete.complete = true;
                self.keep(complete)?;
                // Every disk has the programs: whoever boots again takes the image's own initramfs.
                let _ = fs_err::remove_file(self.files.seed());
                Ok(json!({"steps": plan.steps.len(), "seconds": begun.elapsed().as_secs_f64()}))
            }
            Err(e) if args.keep => Err(e),
            // A lab that was whole before keeps what it had; one that `up` began goes away again.
            Err(e) if observed.complete => Err(e),
            Err(e) => {
                let failures = self.down().err().map(|e| e.to_string());
                Err(e.with_rollback(failures))
            }
        }
    }

    /// What there is of the lab, as the plan wants to know it.
    fn observed(&self, record: Option<&LabRecord>) -> Result<Observed> {
        let Some(record) = record else {
            return Ok(Observed::nothing_but_image());
        };
        Ok(super::observe::of(record, &self.status(Look::default())?, &self.files))
    }

    /// Whether to come back from a checkpoint instead of a boot. A damaged one is not fit: the lab boots, and it is kept anew.
    fn consider_warm(&self, args: &UpArgs, observed: &mut Observed) {
        if observed.files {
            return;
        }
        let (lab, key) = (&args.desired.lab, &args.desired.input_key);
        super::observe::warm(&self.home, lab, key, args.cold, observed);
        let Some(name) = observed.restore.clone() else { return };
        if let Err(e) = Store::of(&self.home, &lab.name).get(&name).and_then(|c| c.verify()) {
            let draft = Draft::new(Source::Tool, "checkpoint.unfit").severity(Severity::Warning);
            self.journal()
                .emit(draft.data(json!({"text": format!("the lab boots: {e}")})));
            observed.restore = None;
            observed.keep = Some(name);
        }
    }

    /// Chooses ports and names for a lab that is new; lights its networks.
    fn prepare(&self, before: Option<Arc<LabRecord>>, desired: DesiredState) -> Result<Arc<LabRecord>> {
        if let Some(record) = before {
            return Ok(record);
        }
        self.files
            .check_socket_paths(desired.lab.nodes.iter().map(|n| n.name.as_str()))?;
        let machines = machines::choose(&desired)?;
        let mut record = LabRecord {
            schema: 1,
            instance: self.instance.clone(),
            machines,
            ports: Vec::new(),
            complete: false,
            restored_from: None,
            restoring: None,
            desired,
        };
        let fabric = self.start_fabric(&record, Vec::new())?;
        record.ports = fabric.ports();
        self.make_seed(&record)?;
        self.keep_fabric(fabric);
        self.keep(record)
    }

    /// What brings the runtime's programs into new machines.
    fn make_seed(&self, record: &LabRecord) -> Result<()> {
        let Some(pack) = super::channel::pack(record)? else {
            return Ok(());
        };
        let artifacts = deploy::Artifacts::beside_executable(Some(&pack), self.files.keys())?;
        let base = &record.desired.image.initrd;
        let base = fs_err::read(base).tried("read the image's initramfs", base.display())?;
        let seed = self.files.seed();
        fs_err::write(&seed, deploy::boot_with_programs(base, &pack, &artifacts)?)
            .tried("write the machines' initramfs", seed.display())
    }

    /// Runs the plan's steps, each as soon as those it waits for are done. The first failure stops the rest.
    fn carry_out(&self, lab: &Lab, plan: &Plan, cancel: &Cancel) -> Result<()> {
        let mut waiting: Vec<&plan::Step> = plan.steps.iter().collect();
        let mut done: BTreeSet<&str> = BTreeSet::new();
        let mut failed: Option<Error> = None;
        std::thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let mut running = 0;
            loop {
                if failed.is_none() && cancel.check().is_ok() {
                    waiting.retain(|step| {
                        let ready = step.after.iter().all(|id| done.contains(id.as_str()));
                        if ready {
                            let (tell, step) = (tell.clone(), *step);
                            scope.spawn(move || {
                                let result = self.act(lab, step, cancel);
                                drop(tell.send((step.id.as_str(), result)));
                            });
                            running += 1;
                        }
                        !ready
                    });
                }
                if running == 0 {
                    break;
                }
                let (id, result) = told.recv().expect("a running step tells how it ended");
                running -= 1;
                match result {
                    Ok(()) => drop(done.insert(id)),
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

    fn act(&self, lab: &Lab, step: &plan::Step, cancel: &Cancel) -> Result<()> {
        cancel.check()?;
        let on = step.on.as_deref().unwrap_or_default();
        let unknown = |what: &str| Error::Bug(Problem::new(format!("find the step's {what}")).on(on));
        let node = || lab.node(on).ok_or_else(|| unknown("node"));
        let name = || on.parse().map_err(|_| unknown("checkpoint"));
        if step.action == Action::Restore {
            let (lab, checkpoint) = (lab.name.clone(), name()?);
            return self.restore(&RestoreArgs { lab, checkpoint }, cancel).map(drop);
        }
        let record = self.record()?;
        match step.action {
            // Done before the supervisor was asked, or with the record.
            Action::BuildImage | Action::StartSupervisor | Action::StartNetwork | Action::Restore => Ok(()),
            Action::MakeSharedDisk => self.make_shared_disk(&record, on),
            Action::MakeDisks => self.make_disks(&record, node()?),
            Action::MakeCredentials => self.credentials(&record, node()?).map(drop),
            Action::StartMachine => self.start_machine(&record, node()?),
            Action::ResumeMachine => self.hypervisor()?.resume(&node()?.name),
            Action::WaitReady => self.wait_ready(&record, node()?, cancel),
            Action::Deploy => self.deploy(&record, node()?, cancel),
            Action::WaitHealthy => self.wait_healthy(&record, cancel),
            Action::Checkpoint => {
                self.keep_warm(&record, &name()?);
                Ok(())
            }
        }
    }

    fn make_disks(&self, record: &LabRecord, node: &Node) -> Result<()> {
        let files = self.files.node(&node.name);
        fs_err::create_dir_all(&files.dir).tried("make the node's folder", files.dir.display())?;
        let qemu_img = QemuImg::default();
        let image = &record.desired.image;
        qemu_img.create_overlay(&files.root_overlay(), &image.disk, image.format)?;
        for disk in &node.disks {
            qemu_img.create(&files.disk(&disk.name), DiskFormat::Qcow2, disk.size)?;
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

    fn wait_ready(&self, record: &LabRecord, node: &Node, cancel: &Cancel) -> Result<()> {
        let step = Step::begin(self.journal(), "boot", Some(&node.name), "waiting for SSH");
        let way = super::channel::way(&self.files, record, &node.name)?;
        self.wait_port(record, node, cancel)?;
        let deadline = Deadline::scaled(BOOT, record.desired.slowness);
        let (ssh, ready) = guest::wait_ready(&way, deadline, &mut |seen| {
            step.say(seen);
            self.alive(&node.name)?;
            cancel.check()
        })?;
        let remote = self
            .channels
            .over_agent(record, &node.name, deadline)
            .unwrap_or_else(|e| {
                let text = format!("SSH is the way in: {e}");
                let silent = Draft::new(Source::Tool, "agent.silent").node(node.name.to_string());
                self.journal()
                    .emit(silent.severity(Severity::Warning).data(json!({"text": text})));
                Box::new(ssh)
            });
        self.channels.keep(&node.name, remote);
        step.done(&match ready.failed.as_slice() {
            [] => "answers SSH".to_owned(),
            failed => format!("answers SSH; failed units: {}", failed.join(", ")),
        });
        Ok(())
    }

    /// A connection that comes too early is kept by QEMU and handed to the machine when it hears: each of them then costs it the
    /// beginning of a handshake without a peer. So no connection is made before its port is up, or half of the time that it may take has passed.
    fn wait_port(&self, record: &LabRecord, node: &Node, cancel: &Cancel) -> Result<()> {
        let hypervisor = self.hypervisor()?;
        let patience = Deadline::scaled(BOOT / 2, record.desired.slowness);
        wait_until("see the machine's port come up", patience, || {
            cancel.check()?;
            self.alive(&node.name)?;
            Ok(if patience.passed() || mgmt_is_up(&*hypervisor, &node.name)? {
                Probe::Ready(())
            } else {
                Probe::NotYet("it is booting".into())
            })
        })
    }

    /// A machine that went away will never answer: no use in waiting for the deadline.
    fn alive(&self, node: &str) -> Result<()> {
        match self.hypervisor()?.lookup(node)? {
            Some(d) if d.state != DomainState::Off => Ok(()),
            _ => Err(Error::Operation(
                Problem::new("boot the machine")
                    .on(node)
                    .observed(format!(
                        "it is gone; its console ends with: {}",
                        self.console_tail(node)
                    ))
                    .remedy("failoverlab doctor"),
            )),
        }
    }

    fn console_tail(&self, node: &str) -> String {
        let text = fs_err::read(self.files.node(node).console_log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.lines()
            .rev()
            .find(|l| !l.trim().is_empty())
            .unwrap_or("nothing")
            .trim()
            .to_owned()
    }

    fn deploy(&self, record: &LabRecord, node: &Node, cancel: &Cancel) -> Result<()> {
        let step = Step::begin(self.journal(), "deploy", Some(&node.name), "installing");
        let pack = super::channel::pack(record)?;
        let deadline = Deadline::scaled(DEPLOY, record.desired.slowness);
        let mut remote = self.channels.take(record, &node.name, deadline)?;
        let artifacts = deploy::Artifacts::beside_executable(pack.as_ref(), self.files.keys())?;
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

    pub(super) fn wait_healthy(&self, record: &LabRecord, cancel: &Cancel) -> Result<()> {
        if record.desired.lab.runtime.is_none() {
            return Ok(());
        }
        let record = self.record()?;
        // What the runtime says from its beginning on is of interest where it takes long. Else it is heard later, all of it: a cluster is
        // healthy sooner without further handshakes on its processors.
        let patience = Deadline::scaled(LISTEN, record.desired.slowness);
        let step = Step::begin(self.journal(), "form", None, "waiting for the cluster");
        self.channels.watch(&record);
        let heard = Cell::new(0);
        wait_led(
            "see the cluster healthy",
            Deadline::scaled(FORM, record.desired.slowness),
            |most| {
                self.channels.news().wait(heard.get(), most);
            },
            || {
                cancel.check()?;
                let status = self.status(Look::default())?;
                heard.set(status.heard);
                Ok(match status.unhealthy {
                    None => Probe::Ready(()),
                    Some(why) => {
                        step.say(&why);
                        if patience.passed() {
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
