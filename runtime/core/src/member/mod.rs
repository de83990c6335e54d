//! A member: the cluster layer, the storage groups with their copies, and the service on top of them.
//!
//! Every part owns its state, and none of them knows this file. An input is handled by the part that it belongs to; then
//! [`Member::reconcile`] lets each one look at what changed, in one order. What a part must know of another one is handed to it
//! there: the cluster layer as a [`Snapshot`](crate::cluster::snapshot::Snapshot), the rest as values.

mod asker;
mod clients;
mod ending;
#[cfg(test)]
pub(crate) mod fixture;
mod groups;
mod life;
mod operators;
mod service;

use crate::cluster::{CLUSTER_FILE, Cluster, NodeReport};
use crate::command::{Command, GroupName};
use crate::ctx::Ctx;
use crate::io::{
    AddressKind, Boot, ConnId, DiskAction, DiskResult, Effect, Input, MemoryUse, Node, Now, Obstacle, OpId, Reply,
};
use crate::links::{End, PeerStreams};
use crate::op::Pending;
use crate::wire::{self, Msg};
use asker::Asker;
use ccr_contract::config::Config;
use ccr_contract::dump::Dump;
use ccr_contract::status::{Intent, Status};
use clients::{Backend, Clients};
use ending::Ending;
use groups::Groups;
use life::{Life, Verdict};
use operators::{Here, Operators, Route};
use service::{MoveOrder, Round, Service};

/// One of the two members.
#[derive(Debug)]
pub struct Member {
    config: Config,
    version: String,
    ctx: Ctx<Pending>,
    streams: PeerStreams,
    cluster: Cluster,
    groups: Groups,
    service: Service,
    clients: Clients,
    operators: Operators,
    /// The Cluster Group's address is up, or going up, here.
    cluster_address: bool,
    /// The daemon was told to end.
    ending: Option<Ending>,
    life: Life,
}

impl Member {
    /// A member that has not started yet.
    pub fn new(config: Config, boot: Boot) -> Self {
        let mut ctx = Ctx::new(&boot);
        let incarnation = ctx.random() | 1;
        Self {
            version: boot.version,
            streams: PeerStreams::new(&config),
            cluster: Cluster::new(&config, incarnation),
            groups: Groups::new(&config),
            service: Service::new(&config),
            clients: Clients::new(&config),
            operators: Operators::default(),
            cluster_address: false,
            ending: None,
            life: Life::Runs,
            ctx,
            config,
        }
    }

    fn handle(&mut self, input: Input) {
        let ctx = &mut self.ctx;
        match input {
            Input::Start => self.start(),
            Input::Tick | Input::LmtpDone { .. } => {}
            Input::Datagram { network, from, bytes } => self.cluster.on_datagram(ctx, &network, from, &bytes),
            Input::Accepted { conn, from } => self.streams.accepted(ctx, conn, from),
            Input::Connected { conn } => self.streams.connected(ctx, conn),
            Input::Frame { conn, bytes } => self.on_frame(conn, &bytes),
            Input::Closed { conn, .. } => self.on_closed(conn),
            Input::WitnessDone { op, result } => {
                if let Some(Pending::Witness(step)) = ctx.completed(op) {
                    self.cluster.on_witness(ctx, step, result);
                }
            }
            Input::DiskDone { op, result } => self.on_disk_done(op, result),
            Input::AddressDone { op, result } => {
                if let Some(Pending::Address(which, up)) = ctx.completed(op) {
                    self.with_service(|service, round| service.on_address(round, which, up, result));
                }
            }
            Input::Client { req, request } => {
                let serves = self.service.serves();
                self.with_clients(|clients, backend| clients.on_client(backend, serves, req, request));
            }
            Input::Operator { req, command } => self.on_operator(Asker::Local(req), command),
            // Told twice, it ends no sooner.
            Input::End => _ = self.ending.get_or_insert(Ending::new(ctx.now.boot_us, &self.service)),
        }
    }

    fn start(&mut self) {
        let action = DiskAction::Read {
            file: CLUSTER_FILE.into(),
            offset: 0,
            len: 1 << 20,
        };
        self.ctx.disk(Pending::ClusterRead, action);
        self.groups.recover(&mut self.ctx);
        // Whatever an earlier life of the daemon left on the interfaces goes.
        for which in [AddressKind::Service, AddressKind::Cluster] {
            self.ctx.address(Pending::Address(which, false), which, false);
        }
    }

    /// Every part looks at what changed.
    fn reconcile(&mut self) {
        // Two rounds, as each of the two sides decides on what the other one says: the service on the snapshot of the cluster layer,
        // and that one tells the other member, in heartbeats, what the service does. In the first round the service acts on what the
        // input changed in the cluster layer; in the second one the cluster layer has a report of that, and the service goes on from
        // what follows (a grant that is free now, a record that may be proposed). The third look of the cluster layer has the report
        // of what the second round led to, and only that one is told to the other member.
        for _ in 0..2 {
            self.drive_cluster();
            self.drive_service();
            self.drive_groups();
        }
        self.drive_cluster_address();
        self.drive_clients();
        self.drive_operators();
        self.drive_cluster();
        self.cluster.tell_peer(&mut self.ctx);
        self.drive_ending();
    }

    fn drive_cluster(&mut self) {
        let cluster = self.cluster.snapshot(&self.ctx);
        let report = NodeReport {
            service: self.service.state(&cluster),
            service_epoch: self.service.epoch(),
            wants_lease: self.service.wants_lease(),
            handed_over: self.service.has_given_all(),
            given_up: self.service.is_released() && !self.service.has_given_all(),
            redelivered: self.service.all_redeliver(),
            groups: self.groups.views(self.ctx.now.boot_us),
            history: self.groups.history(),
        };
        self.cluster.drive(&mut self.ctx, report);
    }

    fn drive_service(&mut self) {
        let cluster = self.cluster.snapshot(&self.ctx);
        if let Some(next) = self.service.schedule(&cluster, &self.groups, self.ending.is_some()) {
            // The only refusal is that a change is under way: the next round tries again.
            let _ = self.cluster.propose(&mut self.ctx, next);
        }
        self.with_service(Service::drive);
    }

    fn drive_groups(&mut self) {
        let cluster = self.cluster.snapshot(&self.ctx);
        let used = self.service.uses_groups();
        self.groups.drive(&mut self.ctx, &mut self.streams, &cluster, used);
    }

    /// The Cluster Group's address goes with the quorum resource.
    fn drive_cluster_address(&mut self) {
        let here = self.cluster.is_leader() && self.cluster.committed();
        if here != self.cluster_address {
            self.cluster_address = here;
            let which = AddressKind::Cluster;
            self.ctx.address(Pending::Address(which, here), which, here);
        }
    }

    fn drive_clients(&mut self) {
        let cluster = self.cluster.snapshot(&self.ctx);
        let epoch = self.service.reported_epoch(&cluster);
        self.clients
            .drive(&mut self.ctx, &cluster, self.service.serves(), epoch);
    }

    fn drive_operators(&mut self) {
        let here = Here {
            state: self.service.state(&self.cluster.snapshot(&self.ctx)),
            offline: !self.service.is_engaged(),
            given_all: self.service.has_given_all(),
        };
        let (ctx, cluster) = (&mut self.ctx, &mut self.cluster);
        self.operators.drive(ctx, cluster, &self.groups, here);
    }

    fn drive_ending(&mut self) {
        let Some(ending) = &mut self.ending else { return };
        let cluster = self.cluster.snapshot(&self.ctx);
        match ending.drive(&mut self.ctx, &cluster, &self.service, &self.groups) {
            ending::Next::Wait => {}
            ending::Next::MoveClusterGroup => {
                let (group, to) = (GroupName::Cluster, cluster.peer.to_owned());
                self.perform(Asker::Nobody, Command::MoveGroup { group, to });
            }
            ending::Next::End => self.life.end(&mut self.ctx),
        }
    }

    /// Lets the service act, and passes on what that means for the parts beside it.
    fn with_service<T>(&mut self, act: impl FnOnce(&mut Service, &mut Round<'_>) -> T) -> T {
        let mut round = Round {
            cluster: self.cluster.snapshot(&self.ctx),
            ctx: &mut self.ctx,
            groups: &mut self.groups,
            streams: &mut self.streams,
            ends: self.ending.is_some(),
            outcomes: Vec::new(),
        };
        let result = act(&mut self.service, &mut round);
        for outcome in round.outcomes {
            match outcome {
                service::Outcome::ClientsCut => self.clients.forget(),
                service::Outcome::WentOffline { given } => {
                    self.ending.iter_mut().for_each(|e| e.went_offline(given));
                }
            }
        }
        result
    }

    /// Lets clients be served.
    fn with_clients(&mut self, act: impl FnOnce(&mut Clients, &mut Backend<'_>)) {
        let mut backend = Backend {
            epoch: self.service.epoch(),
            reported_epoch: self.service.reported_epoch(&self.cluster.snapshot(&self.ctx)),
            ctx: &mut self.ctx,
            groups: &mut self.groups,
        };
        act(&mut self.clients, &mut backend);
    }

    fn on_disk_done(&mut self, op: OpId, result: DiskResult) {
        let Some(what) = self.ctx.completed(op) else { return };
        let result = groups::unread(&self.ctx, &what, &result).unwrap_or(result);
        match life::verdict(&what, &result) {
            Verdict::GoesOn => {}
            Verdict::Halts => return self.life.halt(&mut self.ctx, format!("{what:?}: {result:?}")),
            Verdict::MakesRoom => {
                self.clients.forget();
                return self
                    .life
                    .make_room(&mut self.ctx, &self.groups, format!("{what:?}: {result:?}"));
            }
        }
        match what {
            Pending::ClusterRead => match result {
                DiskResult::Bytes(bytes) => self.start_cluster(Some(&bytes)),
                DiskResult::Missing => self.start_cluster(None),
                other => self.life.halt(&mut self.ctx, format!("{CLUSTER_FILE}: {other:?}")),
            },
            Pending::ClusterSaved => self.cluster.on_saved(&mut self.ctx),
            Pending::Group(g, op) => {
                let cluster = self.cluster.snapshot(&self.ctx);
                let known = (&cluster, self.service.epoch());
                let outcomes = self
                    .groups
                    .on_disk(&mut self.ctx, &mut self.streams, known, (g, op), result);
                self.with_clients(|clients, backend| clients.on_outcomes(backend, outcomes));
            }
            Pending::Witness(_) | Pending::Address(..) | Pending::Room | Pending::Quiet => {}
        }
    }

    fn start_cluster(&mut self, file: Option<&[u8]>) {
        match self.cluster.start(&mut self.ctx, file) {
            Ok(()) => self.service.start(self.cluster.record()),
            Err(why) => self.life.halt(&mut self.ctx, why),
        }
    }

    fn on_closed(&mut self, conn: ConnId) {
        let who = self.streams.closed(conn);
        let with_source = who.is_some_and(|who| who == self.cluster.peer_name());
        self.groups.on_closed(&mut self.ctx, conn, with_source);
    }

    fn on_frame(&mut self, conn: ConnId, bytes: &[u8]) {
        let end = self.streams.end(conn);
        let decoded = wire::decode_frame(bytes);
        let (Some(end), Ok((msg, body))) = (end, decoded) else {
            self.ctx.emit(Effect::Disconnect { conn });
            return self.on_closed(conn);
        };
        match (end, msg) {
            (End::Stranger, Msg::Hello { cluster, node }) if self.streams.hello(conn, &cluster, &node) => {}
            (End::Stranger, _) => {
                self.ctx.emit(Effect::Disconnect { conn });
                self.on_closed(conn);
            }
            (End::Accepted(who), msg) if who == self.cluster.peer_name() => self.on_request(conn, msg),
            (End::Dialled(who), msg) if who == self.cluster.peer_name() => self.on_answer(msg, body),
            (End::Dialled(hub), Msg::Redelivered { epoch, count }) => {
                self.service.redelivered(&mut self.ctx, &hub, epoch, count);
            }
            _ => {}
        }
    }

    /// The other member asks.
    fn on_request(&mut self, conn: ConnId, msg: Msg) {
        match msg {
            Msg::Forward { id, command } => self.on_operator(Asker::Remote(conn, id), command),
            msg => self.groups.on_request(&mut self.ctx, conn, &msg, self.service.epoch()),
        }
    }

    /// The other member answers.
    fn on_answer(&mut self, msg: Msg, body: &[u8]) {
        match msg {
            Msg::Verified {
                id,
                done,
                total,
                ended,
                fault,
            } => self.with_service(|service, round| {
                service.on_verified(round, id, (done, total), ended, fault.as_deref());
            }),
            Msg::Answer {
                id,
                done,
                unchanged,
                text,
            } => {
                let reply = asker::handed_back(done, unchanged, text);
                self.operators.on_answer(&mut self.ctx, &mut self.cluster, id, reply);
            }
            msg => {
                let cluster = self.cluster.snapshot(&self.ctx);
                self.groups
                    .on_answer(&mut self.ctx, &mut self.streams, &cluster, &msg, body);
            }
        }
    }

    fn on_operator(&mut self, asker: Asker, command: Command) {
        let cluster = self.cluster.snapshot(&self.ctx);
        let cause = || self.cluster.cause(self.ctx.now).text;
        match (operators::route(&command, asker.is_remote(), &cluster, cause), asker) {
            (Route::Peer, Asker::Local(req)) => {
                let (peer, streams) = (cluster.peer, &mut self.streams);
                self.operators.pass_on(&mut self.ctx, streams, peer, req, command);
            }
            (Route::Here | Route::Peer, asker) => self.perform(asker, command),
            (Route::Nowhere(why), asker) => asker.deny(&mut self.ctx, why),
        }
    }

    fn perform(&mut self, asker: Asker, command: Command) {
        let reply = match command {
            Command::Status => Reply::Status(Box::new(self.status())),
            Command::Dump => Reply::Dump(Box::new(self.dump())),
            Command::Move { .. } | Command::ValidateMove { .. } if self.cluster.record().intent == Intent::Stopped => {
                let (ctx, cluster) = (&mut self.ctx, &mut self.cluster);
                return self.operators.perform(ctx, cluster, &self.groups, asker, command);
            }
            Command::Move {
                to,
                comment,
                ignore_dismounted,
            } => {
                let order = MoveOrder {
                    to,
                    comment,
                    ignore_dismounted,
                };
                return self.with_service(|service, round| service.begin_move(round, order, asker));
            }
            Command::ValidateMove { to, ignore_dismounted } => self.with_service(|service, round| {
                let order = MoveOrder {
                    to,
                    comment: "validation".into(),
                    ignore_dismounted,
                };
                service.validate_move(round, &order)
            }),
            Command::Mount { group } => {
                self.with_service(|service, round| service.accept_loss(round, group.as_deref()))
            }
            Command::Suspend { .. } | Command::Resume { .. } | Command::Reseed { .. } | Command::BackupMark { .. } => {
                self.groups.perform(&mut self.ctx, &command)
            }
            Command::Stop { .. }
            | Command::Start
            | Command::MoveGroup { .. }
            | Command::Set { .. }
            | Command::Evict { .. }
            | Command::Join { .. }
            | Command::ForceQuorum => {
                let (ctx, cluster) = (&mut self.ctx, &mut self.cluster);
                return self.operators.perform(ctx, cluster, &self.groups, asker, command);
            }
        };
        asker.answer(&mut self.ctx, reply);
    }

    fn status(&self) -> Status {
        let cluster = self.cluster.snapshot(&self.ctx);
        let now = self.ctx.now;
        let dismounted = |g: &groups::Group| self.service.dismounted(&self.ctx, &cluster, g);
        Status {
            schema: 1,
            node: self.config.node.clone(),
            version: self.version.clone(),
            epoch: cluster.record.id.epoch,
            cluster: Some(self.cluster.status(now)),
            service: self.service.status(&self.ctx, &cluster, &self.groups, &self.config),
            copies: self.groups.copies(&cluster, now.boot_us, dismounted),
            hub: None,
            // The shell has the stream.
            events: None,
            node_t_us: None,
            facts: Default::default(),
            unread: Default::default(),
            wrong: Vec::new(),
        }
    }

    fn dump(&self) -> Dump {
        Dump {
            schema: 1,
            node: self.config.node.clone(),
            groups: self.groups.dump(),
            queued: Vec::new(),
        }
    }
}

impl Node for Member {
    fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        if self.life.is_over() {
            return Vec::new();
        }
        self.ctx.begin(now);
        if self.life.runs() {
            self.handle(input);
            if self.life.runs() {
                self.reconcile();
            }
        } else {
            self.life.on_input(&mut self.ctx, &input);
        }
        self.ctx.take_effects()
    }
    fn obstacles(&self) -> Vec<Obstacle> {
        let cluster = self.cluster.obstacle(self.ctx.now);
        let groups = self.groups.are_irreparable().then_some(Obstacle::Irreparable);
        cluster.into_iter().chain(groups).collect()
    }
    fn memory_use(&self) -> MemoryUse {
        MemoryUse {
            waiting: self.clients.waiting(),
            remembered: self.groups.stores().map(|s| s.index.remembered()).sum(),
            ..MemoryUse::default()
        }
    }
    fn next_deadline(&self) -> Option<u64> {
        if self.life.is_over() { None } else { self.ctx.wake() }
    }
}
