//! A member: the cluster layer, the storage groups with their copies, and the service on top of them.
//!
//! Every input is handled by the layer it belongs to; then [`Member::reconcile`] lets each layer look at what changed. No
//! layer calls another one: what one must know of another is handed over there.

pub mod clients;
mod ending;
mod fence;
mod handoff;
mod operator;
mod orderly;
mod salvage;
mod schedule;
mod service;
mod stage;
mod status;
mod verify;

use crate::cluster::{CLUSTER_FILE, Cluster, NodeReport};
use crate::ctx::Ctx;
use crate::io::{AddressKind, Boot, ConnId, DiskAction, DiskResult, Effect, Input, MemoryUse, Node, Now};
use crate::links::{End, PeerStreams};
use crate::op::{CompactStep, CopyStep, Op, Part, Pending, ReplayStep, TailStep};
use crate::replication::copy::{Copy, Role};
use crate::replication::repair::Repair;
use crate::replication::source;
use crate::store::{Outcome, Store};
use crate::wire::{self, GroupView, Msg};
use ccr_contract::config::Config;
use ccr_contract::event::EventKind;
use clients::Clients;
use stage::Service;
use std::collections::BTreeSet;

/// One of the two members.
#[derive(Debug)]
pub struct Member {
    config: Config,
    version: String,
    ctx: Ctx<Pending>,
    cluster: Cluster,
    stores: Vec<Store>,
    copies: Vec<Copy>,
    /// What is damaged here while this node serves.
    repairs: Vec<Repair>,
    /// The number of the last verification that the other member asked for.
    verification: u64,
    service: Service,
    clients: Clients,
    streams: PeerStreams,
    /// Streams of the other member on which it follows our groups.
    followers: BTreeSet<ConnId>,
    operators: operator::Operators,
    /// The Cluster Group's address is up, or going up, here.
    cluster_address: bool,
    /// Why this node halts as soon as so many operations that make room on its disk have ended.
    stopping: Option<(String, usize)>,
    /// The daemon was told to end.
    ending: Option<ending::Ending>,
    halted: bool,
}

impl Member {
    /// A member that has not started yet.
    pub fn new(config: Config, boot: Boot) -> Self {
        let mut ctx = Ctx::new(&boot);
        let incarnation = ctx.random() | 1;
        let bytes = config.settings.generation_bytes;
        let stores: Vec<Store> = config
            .settings
            .groups
            .iter()
            .enumerate()
            .map(|(i, name)| Store::new(i, name, bytes))
            .collect();
        Self {
            version: boot.version,
            cluster: Cluster::new(&config, incarnation),
            copies: stores.iter().map(|_| Copy::new()).collect(),
            repairs: stores.iter().map(|_| Repair::default()).collect(),
            verification: 0,
            stores,
            service: Service::new(&config),
            clients: Clients::default(),
            streams: PeerStreams::new(&config),
            followers: BTreeSet::new(),
            operators: operator::Operators::default(),
            cluster_address: false,
            stopping: None,
            ending: None,
            halted: false,
            ctx,
            config,
        }
    }

    fn handle(&mut self, input: Input) {
        let ctx = &mut self.ctx;
        match input {
            Input::Start => self.start(),
            Input::Tick => {}
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
                    self.on_address(which, up, result);
                }
            }
            Input::LmtpDone { .. } => {}
            Input::Client { req, request } => self.on_client(req, request),
            Input::Operator { req, command } => self.on_operator(operator::Asker::Local(req), command),
            Input::End => self.begin_end(),
        }
    }

    fn start(&mut self) {
        let action = DiskAction::Read {
            file: CLUSTER_FILE.into(),
            offset: 0,
            len: 1 << 20,
        };
        self.ctx.disk(Pending::ClusterRead, action);
        for store in &mut self.stores {
            store.recover(&mut self.ctx);
        }
        // Whatever an earlier life of the daemon left on the interfaces goes.
        for which in [AddressKind::Service, AddressKind::Cluster] {
            self.ctx.address(Pending::Address(which, false), which, false);
        }
    }

    fn halt(&mut self, why: String) {
        self.halted = true;
        self.ctx.emit(Effect::CloseClients);
        self.ctx.emit(Effect::Halt { why });
    }

    /// A full disk: nothing is acknowledged any more, and the reserve logs make room for what the next life must write to
    /// close what this one has acknowledged.
    fn stop_for_room(&mut self, why: String) {
        self.ctx.emit(Effect::CloseClients);
        self.clients.forget();
        let mut left = 0;
        for store in &mut self.stores {
            if store.reserved {
                let group = store.name.clone();
                self.ctx.event(EventKind::LogFull { group });
            }
            for file in store.reserve_files() {
                left += 1;
                self.ctx.disk(Pending::Room, DiskAction::Delete { file });
            }
        }
        self.stopping = Some((why, left));
    }

    fn on_disk_done(&mut self, op: crate::io::OpId, result: DiskResult) {
        let Some(what) = self.ctx.completed(op) else { return };
        let unread = match (&what, &result) {
            (Pending::Group(_, Op::Recover(step)), DiskResult::Failed(_)) => step.unread(&self.ctx),
            _ => None,
        };
        let result = unread.unwrap_or(result);
        let reads = matches!(
            what,
            Pending::ClusterRead
                | Pending::Group(
                    _,
                    Op::Recover(_)
                        | Op::Mount(_)
                        | Op::Body { .. }
                        | Op::Scrub(_)
                        | Op::Part { .. }
                        | Op::Tail(TailStep::Read)
                        | Op::Replay(ReplayStep::Read(_))
                        | Op::Compact(CompactStep::Read(_))
                )
                | Pending::Group(_, Op::Copy(CopyStep::Inspect(_) | CopyStep::SeedRead(_)))
        );
        // What a recovery could not read is not absent: the next life asks again.
        let recovers = matches!(what, Pending::Group(_, Op::Recover(_)));
        // A failed write or flush is the end of this life: what is on the disk is known only after a recovery.
        if (!reads || recovers) && matches!(result, DiskResult::Failed(_)) {
            return self.halt(format!("{what:?}: {result:?}"));
        }
        let spared = matches!(
            what,
            Pending::Group(_, Op::Tail(_) | Op::Copy(CopyStep::SeedSegment(_) | CopyStep::Seeded))
        );
        if !reads && !spared && result == DiskResult::Full {
            return self.stop_for_room(format!("{what:?}: {result:?}"));
        }
        match what {
            Pending::ClusterRead => match result {
                DiskResult::Bytes(bytes) => self.start_cluster(Some(&bytes)),
                DiskResult::Missing => self.start_cluster(None),
                other => self.halt(format!("{CLUSTER_FILE}: {other:?}")),
            },
            Pending::ClusterSaved => self.cluster.on_saved(&mut self.ctx),
            Pending::Group(g, op) => self.on_group_disk(g, op, result),
            Pending::Witness(_) | Pending::Address(..) | Pending::Room | Pending::Quiet => {}
        }
    }

    fn start_cluster(&mut self, file: Option<&[u8]>) {
        match self.cluster.start(&mut self.ctx, file) {
            Ok(()) => self.service.start(self.cluster.record()),
            Err(why) => self.halt(why),
        }
    }

    fn on_group_disk(&mut self, g: usize, op: Op, result: DiskResult) {
        let outcomes = match op {
            Op::Copy(step) => {
                self.stores[g].ended();
                let out = self.copies[g].on_disk(&mut self.ctx, &mut self.stores[g], step, result);
                return self.send_to_source(out);
            }
            Op::Part {
                generation, segment, ..
            } => {
                self.stores[g].ended();
                if result == DiskResult::Missing {
                    let part = if segment { Part::Segment } else { Part::Log };
                    self.stores[g].suspect(part(generation));
                }
                return source::part_read(&mut self.ctx, g, &op, result);
            }
            Op::Body { req, part, crc } => {
                self.stores[g].ended();
                return self.on_body(g, req, (part, crc), result);
            }
            op => self.stores[g].on_disk(&mut self.ctx, op, result),
        };
        for outcome in outcomes {
            match outcome {
                Outcome::Landed(tickets) => self.on_landed(g, &tickets),
                Outcome::Closed(generation) => self.on_log_closed(g, generation),
                Outcome::Replayed(generation) => {
                    let group = self.stores[g].name.clone();
                    self.ctx.event(EventKind::CopyReplayed { group, generation });
                }
                Outcome::ReplayFailed(why) | Outcome::MountFailed(why) => {
                    self.stores[g].report_trouble(&mut self.ctx, &why);
                    if !self.stores[g].mounted() {
                        self.copies[g].begin_again(&mut self.ctx);
                    }
                }
                Outcome::Damaged(part, why) => self.on_damaged(g, part, &why),
                Outcome::Mounted => {}
            }
        }
    }

    /// A file of this node is not what it was. Who serves goes on and repairs it; a copy fetches it again, or has failed.
    fn on_damaged(&mut self, g: usize, part: Part, why: &str) {
        let (store, copy) = (&mut self.stores[g], &mut self.copies[g]);
        if store.mounted() {
            let (group, why) = (store.name.clone(), why.to_owned());
            self.ctx.event(EventKind::DatabaseDamaged { group, why });
        } else {
            copy.damaged(&mut self.ctx, store, part, why);
        }
    }

    fn on_log_closed(&mut self, g: usize, generation: u64) {
        let store = &mut self.stores[g];
        store.source_state.generated = store.source_state.generated.max(generation);
        let epoch = self.service.epoch();
        if let Some(msg) = source::offer(&self.ctx, store, epoch) {
            for conn in &self.followers {
                source::send(&mut self.ctx, *conn, &msg);
            }
        }
    }

    fn send_to_source(&mut self, out: Vec<Msg>) {
        if out.is_empty() {
            return;
        }
        let peer = self.cluster.peer_name().to_owned();
        for msg in out {
            self.streams.send(&mut self.ctx, &peer, &msg);
        }
    }

    fn on_closed(&mut self, conn: ConnId) {
        self.followers.remove(&conn);
        if self
            .streams
            .closed(conn)
            .is_some_and(|who| who == self.cluster.peer_name())
        {
            for copy in &mut self.copies {
                copy.on_disconnected(&mut self.ctx);
            }
        }
    }

    fn on_frame(&mut self, conn: ConnId, bytes: &[u8]) {
        let end = self.streams.end(conn);
        let decoded = wire::decode_frame(bytes);
        let (Some(end), Ok((msg, body))) = (end, decoded) else {
            self.ctx.emit(Effect::Disconnect { conn });
            return self.on_closed(conn);
        };
        match (end, &msg) {
            (End::Stranger, Msg::Hello { cluster, node }) if self.streams.hello(conn, cluster, node) => {}
            (End::Stranger, _) => {
                self.ctx.emit(Effect::Disconnect { conn });
                self.on_closed(conn);
            }
            (End::Accepted(who), _) if who == self.cluster.peer_name() => self.on_request(conn, msg),
            (End::Dialled(who), _) if who == self.cluster.peer_name() => self.on_answer(&msg, body),
            (End::Dialled(hub), Msg::Redelivered { epoch, count }) => {
                self.service.redelivered(&mut self.ctx, &hub, *epoch, *count);
            }
            _ => {}
        }
    }

    /// The other member asks.
    fn on_request(&mut self, conn: ConnId, msg: Msg) {
        match msg {
            Msg::Attach { group }
            | Msg::Chain { group, .. }
            | Msg::Pull { group, .. }
            | Msg::Seed { group }
            | Msg::Segment { group, .. } => {
                let epoch = self.service.epoch();
                let Some(store) = self.stores.get_mut(group).filter(|s| s.recovered()) else {
                    return source::send(&mut self.ctx, conn, &Msg::NotSource { group });
                };
                self.followers.insert(conn);
                source::answer(&mut self.ctx, store, conn, &msg, epoch);
            }
            Msg::Verify { id } => self.on_verify(conn, id),
            Msg::Forward { id, command } => self.on_operator(operator::Asker::Remote(conn, id), command),
            _ => {}
        }
    }

    /// The other member answers.
    fn on_answer(&mut self, msg: &Msg, body: &[u8]) {
        match msg {
            Msg::Source { group, .. }
            | Msg::NotSource { group }
            | Msg::Links { group, .. }
            | Msg::Part { group, .. }
            | Msg::Missing { group, .. }
            | Msg::Offer { group, .. }
            | Msg::SegmentPart { group, .. } => {
                let (Some(store), Some(copy)) = (self.stores.get_mut(*group), self.copies.get_mut(*group)) else {
                    return;
                };
                let mut out = copy.on_msg(&mut self.ctx, store, msg, body);
                self.repairs[*group].on_msg(&mut self.ctx, store, msg, body, &mut out);
                self.send_to_source(out);
            }
            Msg::Verified {
                id,
                done,
                total,
                ended,
                fault,
            } => self.on_verified(*id, (*done, *total), *ended, fault.as_deref()),
            Msg::Answer { id, done, text } => self.on_operator_answer(*id, *done, text),
            _ => {}
        }
    }

    /// Every layer looks at what changed.
    fn reconcile(&mut self) {
        // The layers depend on each other in a circle: the second round lets the cluster layer tell what the service
        // decided, and the service see what the cluster layer decided.
        for _ in 0..2 {
            let report = self.report();
            self.cluster.drive(&mut self.ctx, report);
            self.drive_service();
            self.drive_groups();
        }
        self.drive_cluster_address();
        self.drive_clients();
        self.drive_operators();
        let report = self.report();
        self.cluster.drive(&mut self.ctx, report);
        self.drive_end();
    }

    fn report(&self) -> NodeReport {
        let groups = self.stores.iter().zip(&self.copies).map(|(s, c)| GroupView {
            generated: if s.mounted() {
                s.last().generation
            } else {
                s.source_state.generated
            },
            inspected: s.last().generation,
            replayed: c.replayed(s),
            status: c.status(self.ctx.now.boot_us, s, self.config.settings.status_probe_ms * 1000),
            mounted: s.mounted(),
            open: s.has_open(),
            common: s.source_state.common.filter(|_| !s.mounted()),
        });
        NodeReport {
            service: self.service_state(),
            service_epoch: self.service.epoch(),
            wants_lease: self.service.wants_lease(),
            handed_over: self.service.has_given_all(),
            redelivered: self.service.all_redeliver(),
            groups: groups.collect(),
            history: self.history(),
        }
    }

    /// The highest epoch that the stores tell of: 0 where all are empty, none before all were read.
    fn history(&self) -> Option<u64> {
        self.stores
            .iter()
            .map(Store::history)
            .try_fold(0, |most, epoch| Some(most.max(epoch?)))
    }

    fn drive_groups(&mut self) {
        let settings = &self.config.settings;
        let probe_us = settings.status_probe_ms * 1000;
        let record = self.cluster.record();
        let serving = self.cluster.member_heartbeat().filter(|v| {
            let appointed = v.service_epoch != 0 && v.service_epoch == record.owner_epoch;
            appointed && record.owner == v.from && !self.service.is_engaged()
        });
        let role = |g: usize| match serving {
            _ if self.service.salvages() => Role::Salvage(record.served(g)),
            Some(v) if v.groups.get(g).is_some_and(|g| g.mounted) => Role::Follow,
            _ => Role::None,
        };
        let roles: Vec<Role> = (0..self.stores.len()).map(role).collect();
        // Which logs the source has closed is known from whatever was heard of it, whoever has a majority now.
        let heartbeat = self.cluster.last_heartbeat().filter(|v| v.service_epoch != 0);
        // A heartbeat from before the source closed its last log takes nothing back from whoever is about to mount.
        let salvages = self.service.salvages();
        for (g, store) in self.stores.iter_mut().enumerate() {
            let source = heartbeat.filter(|v| {
                let appointed = record.owner == v.from && v.service_epoch == record.owner_epoch;
                appointed || v.service_epoch == record.served(g)
            });
            if let Some(v) = source.and_then(|v| v.groups.get(g)).filter(|v| v.mounted)
                && store.recovered()
                && store.stream.is_some()
                && !store.mounted()
                && !store.is_mounting()
                && (v.generated > store.source_state.generated
                    || (v.generated < store.source_state.generated && !salvages))
            {
                store.source_state.generated = v.generated;
                store.save_source_state(&mut self.ctx);
            }
        }
        let peer: Vec<u64> = self
            .cluster
            .member_heartbeat()
            .map_or_else(Vec::new, |v| v.groups.iter().map(|g| g.replayed).collect());
        let mut reconnect = false;
        let mut out = Vec::new();
        for (g, (store, copy)) in self.stores.iter_mut().zip(&mut self.copies).enumerate() {
            store.recover_when_stale(&mut self.ctx);
            out.extend(copy.drive(&mut self.ctx, store, roles[g], probe_us, &mut reconnect));
            let status = copy.status(self.ctx.now.boot_us, store, probe_us);
            if !store.mounted() && !self.service.is_engaged() {
                copy.report_status(&mut self.ctx, store, status);
            }
            if store.mounted() {
                store.roll_when_idle(&mut self.ctx, settings.idle_roll_ms * 1000);
                let through = store.last().generation.saturating_sub(settings.resilience_depth);
                store.replay_towards(&mut self.ctx, through);
                store.compact(&mut self.ctx);
            }
            let rests = store.mounted() || !(self.service.is_engaged() || copy.busy() || copy.seeds());
            if rests {
                store.scrub(&mut self.ctx, settings.scrub_ms * 1000);
            }
            self.repairs[g].drive(&mut self.ctx, store, &mut out);
            if let Some(elsewhere) = peer.get(g)
                && store.recovered()
                && !copy.busy()
                && !copy.seeds()
            {
                store.truncate(&mut self.ctx, *elsewhere, settings.circular);
            }
        }
        if reconnect {
            let peer = self.cluster.peer_name().to_owned();
            self.streams.reset(&mut self.ctx, &peer);
            for copy in &mut self.copies {
                copy.on_disconnected(&mut self.ctx);
            }
        }
        self.send_to_source(out);
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
}

impl Node for Member {
    fn step(&mut self, now: Now, input: Input) -> Vec<Effect> {
        if self.halted {
            return Vec::new();
        }
        self.ctx.begin(now);
        if let Some((why, left)) = &mut self.stopping {
            if let Input::DiskDone { op, .. } = input
                && self.ctx.completed(op) == Some(Pending::Room)
            {
                *left -= 1;
                if *left == 0 {
                    let why = why.clone();
                    self.halt(why);
                }
            }
            return self.ctx.take_effects();
        }
        self.handle(input);
        if !self.halted && self.stopping.is_none() {
            self.reconcile();
        }
        self.ctx.take_effects()
    }
    fn memory_use(&self) -> MemoryUse {
        MemoryUse {
            waiting: self.clients.waiting(),
            remembered: self.stores.iter().map(|s| s.index.remembered()).sum(),
            ..MemoryUse::default()
        }
    }
    fn next_deadline(&self) -> Option<u64> {
        if self.halted { None } else { self.ctx.wake() }
    }
}
