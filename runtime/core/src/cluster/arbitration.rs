//! The witness: a third voter that is a file. Whoever holds it open exclusively and has written into it has its vote.
//!
//! Nobody holds the file while both members hear each other. The leader opens it as soon as the other member is suspect
//! (so that its right to serve does not run out meanwhile); a challenger when the other member is lost, after the
//! arbitration delay. Any error means that the vote is gone. What the file says is read before anything is written: a
//! node that has not seen the record for which the witness voted last must not go on alone (*partition in time*).

use super::lease::{MAX_UNSEEN_PAUSE_US, Source};
use super::membership::Membership;
use super::{Cluster, votes};
use crate::ctx::Ctx;
use crate::io::{Now, WitnessAction, WitnessResult};
use crate::op::{Pending, WitnessStep};
use crate::planted::Bug;
use crate::record::RecordId;
use crate::wire::{self, WitnessFile};
use ccr_contract::event::{Claimant, EventKind};

/// Between two attempts to have the file, in microseconds. Where more than [`RETRIES_BEFORE_BACKOFF`] of them failed it
/// doubles; but not for a file that is held: a takeover waits for the moment in which it is free.
const RETRY_US: u64 = 300_000;
/// The longest such wait, without what is drawn; a probe that succeeds again ends it sooner.
const LONGEST_RETRY_US: u64 = 1_200_000;
/// The longest such wait, in microseconds.
pub(crate) const LONGEST_WAIT_US: u64 = LONGEST_RETRY_US + LONGEST_RETRY_US / 4;
/// Failures before the waits become longer: a share that is away for a moment costs no quorum.
const RETRIES_BEFORE_BACKOFF: u32 = 3;
/// Between two events about attempts that gave nothing for different reasons, in microseconds.
const REPORT_US: u64 = 5_000_000;

/// This node's lock on the witness file.
///
/// ```text
///   No --> Opening --> Held --> Closing --> No
///    ^        |         |
///    +--------+---------+  refused, failed, lost
/// ```
#[derive(Debug, Default, PartialEq, Eq)]
enum WitnessLock {
    #[default]
    No,
    /// The opening is under way.
    Opening,
    /// The file is open, for this node alone.
    Held {
        /// The record written last under this handle: the witness has voted for it.
        written: Option<RecordId>,
        /// The record in the write under way.
        writing: Option<RecordId>,
    },
    /// It is given up: the last write or the close is under way.
    Closing {
        /// Whether the witness had voted.
        voted: bool,
    },
    /// An operation at a share that is no witness any more is under way.
    Abandoned,
}

/// Why an attempt to have the file gave nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum AttemptFailure {
    /// It says what keeps this node from it.
    Ours,
    /// Somebody has it.
    Free,
    /// The share does not do what it is asked.
    Working,
}

/// Why the witness gives no vote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoVote {
    /// It has voted for a cluster that this node does not know.
    NewerCluster,
    /// Anything else, in words.
    Other(String),
}

impl std::fmt::Display for NoVote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::NewerCluster => "the witness has voted for a newer cluster",
            Self::Other(why) => why,
        })
    }
}

/// What this node knows of the witness and does with it.
#[derive(Debug, Default)]
pub struct Witness {
    lock: WitnessLock,
    /// No attempt before then.
    retry_at: u64,
    /// Attempts that failed since the last good write.
    failures: u32,
    /// When the first of these failed since the share answered an opening.
    failing_since: Option<u64>,
    /// When the next beat is due.
    beat_at: u64,
    beat: u64,
    /// A holder before us may believe until then that it may serve.
    pub(super) safe_at: u64,
    /// What was told last of attempts that gave nothing, and when.
    last_loss_reported: Option<(AttemptFailure, u64)>,
    /// Why the last attempt gave nothing.
    pub(super) why: Option<NoVote>,
    /// As what this node arbitrates, where it does and has said so: the previous owner, or a challenger.
    claimant: Option<Claimant>,
    probing: bool,
    probe_at: u64,
    /// The last probe: when, and the error where it failed.
    pub(super) probed: Option<(u64, Option<String>)>,
}

impl Witness {
    /// Whether the file is held.
    pub fn holds(&self) -> bool {
        matches!(self.lock, WitnessLock::Held { .. })
    }
    /// Whether this node holds the file or tries to: it grants nothing then.
    pub fn engaged(&self) -> bool {
        self.lock != WitnessLock::No
    }
    /// Whether the witness, held now, has this record.
    pub fn voted_for(&self, id: &RecordId) -> bool {
        matches!(&self.lock, WitnessLock::Held { written: Some(written), .. } if written == id)
    }
    /// Another file is the witness now: nothing is known of it.
    pub(super) fn forget(&mut self) {
        let idle = matches!(self.lock, WitnessLock::No | WitnessLock::Held { writing: None, .. });
        *self = Self {
            lock: if idle { WitnessLock::No } else { WitnessLock::Abandoned },
            probing: self.probing,
            beat: self.beat,
            safe_at: self.safe_at,
            ..Self::default()
        };
    }
    /// The vote is not needed any more: what failed on the way says nothing of the share by the time of the next arbitration.
    fn arbitration_over(&mut self) {
        self.claimant = None;
        self.last_loss_reported = None;
        self.failing_since = None;
        self.failures = 0;
    }
    /// The next attempt may be made at once.
    pub(super) fn attempt_now(&mut self) {
        self.retry_at = 0;
    }
    /// Whether the last probe, which ended after `since`, failed.
    pub(super) fn failed_since(&self, since: u64) -> bool {
        self.probed
            .as_ref()
            .is_some_and(|(at, error)| *at > since && error.is_some())
    }
    /// Whether the last probe, which ended after `since`, locked a file at the share.
    fn answered_since(&self, since: u64) -> bool {
        self.probed
            .as_ref()
            .is_some_and(|(at, error)| *at > since && error.is_none())
    }
    /// A path fell silent: what the last probe found may be over.
    pub(super) fn probe_now(&mut self, now: Now) {
        self.probe_at = now.boot_us;
    }
    /// Whether the last probe locked a file at the share.
    pub(super) fn could_be_locked(&self) -> bool {
        self.probed.as_ref().is_some_and(|(_, error)| error.is_none())
    }
    pub(super) fn probe_for_peer(&self, now: Now) -> Option<(u64, bool)> {
        let (at, error) = self.probed.as_ref()?;
        Some((now.boot_us.saturating_sub(*at) / 1000, error.is_none()))
    }
}

impl Cluster {
    fn timeout_us(&self) -> u64 {
        self.settings.witness_timeout_ms * 1000
    }

    /// Whether the witness's vote is needed now.
    fn wants_witness(&mut self, ctx: &mut Ctx<Pending>) -> bool {
        if self.witness_path.is_none() || self.electorate.is_one_member() || self.saved.witness_change_pending {
            return false;
        }
        let delay_us = self.settings.arbitration_delay_ms * 1000;
        // Given up only when the other member's grant carries the lease, and it is part of the cluster.
        let keeps = self.witness.holds() && !(self.membership.has_peer() && self.leased_or_idle(ctx.now));
        let leader = self.saved.record.quorum_owner == self.me;
        match self.membership {
            Membership::Up { .. } if leader => self.peer_suspect(ctx) || self.peer.view.is_none() || keeps,
            Membership::Up { .. } => (self.peer_lost(ctx) && ctx.due(self.isolated_since_lost() + delay_us)) || keeps,
            Membership::Forming { .. } if self.force.is_requested() => true,
            Membership::Forming { isolated_since } => {
                if self.peer_is_there(ctx) {
                    return false;
                }
                let heard = if self.peer_lost(ctx) {
                    self.peer.mutual_at.unwrap_or(0)
                } else {
                    0
                };
                if !votes::may_form_alone(self.stand(), self.has_lost_its_record(), self.index == 0) {
                    return false;
                }
                let owner = leader || self.saved.record.id.is_fresh();
                let from = isolated_since.max(heard);
                ctx.due(from + self.node_tolerance_us() + if owner { 0 } else { delay_us })
            }
            Membership::Unread | Membership::Restarting { .. } | Membership::Evicted => false,
        }
    }
    fn leased_or_idle(&self, now: Now) -> bool {
        !self.report.wants_lease || self.leased_by_member(now)
    }
    fn arbitrates_as(&self) -> Claimant {
        match self.witness.claimant {
            None if self.saved.record.quorum_owner == self.me => Claimant::Owner,
            None => Claimant::Challenger,
            Some(claimant) => claimant,
        }
    }
    /// When the other member began to count as lost.
    fn isolated_since_lost(&self) -> u64 {
        self.peer.mutual_at.unwrap_or(0) + self.node_tolerance_us()
    }

    pub(super) fn drive_witness(&mut self, ctx: &mut Ctx<Pending>) {
        self.probe_witness(ctx);
        let want = self.wants_witness(ctx);
        match &mut self.witness.lock {
            WitnessLock::No if want => {
                if !ctx.due(self.witness.retry_at) {
                    return;
                }
                if self.witness.claimant.is_none() {
                    let (claimant, epoch) = (self.arbitrates_as(), self.epoch());
                    self.witness.claimant = Some(claimant);
                    ctx.event(EventKind::ArbitrationBegin { claimant, epoch });
                }
                self.witness.lock = WitnessLock::Opening;
                let deadline = self.open_deadline_us();
                ctx.witness(Pending::Witness(WitnessStep::Open), WitnessAction::Open, deadline);
            }
            WitnessLock::No => {
                self.witness.arbitration_over();
            }
            WitnessLock::Held { written, writing } if writing.is_none() => {
                let stale = self.saving.is_none() && written.as_ref() != Some(&self.saved.record.id);
                if !want {
                    let voted = written.is_some();
                    self.witness.lock = WitnessLock::Closing { voted };
                    // From now on the file says that nobody relies on it.
                    self.lease.drop_source(Source::Witness);
                    self.write(ctx, WitnessStep::LastWrite, false);
                } else if self.saving.is_none() && (stale || ctx.due(self.witness.beat_at)) {
                    *writing = Some(self.saved.record.id.clone());
                    self.witness.beat_at = ctx.after_ms(self.settings.witness_beat_ms);
                    self.write(ctx, WitnessStep::Write(ctx.now), true);
                }
            }
            WitnessLock::Opening | WitnessLock::Held { .. } | WitnessLock::Closing { .. } | WitnessLock::Abandoned => {}
        }
    }

    fn write(&mut self, ctx: &mut Ctx<Pending>, step: WitnessStep, held: bool) {
        self.witness.beat += 1;
        let file = WitnessFile {
            cluster: self.name.clone(),
            id: self.saved.record.id.clone(),
            writer: self.me.clone(),
            held,
            forced: self.force.is_marked(),
            beat: self.witness.beat,
            intent: self.saved.record.intent,
        };
        let bytes = wire::encode_witness(&file);
        ctx.witness(
            Pending::Witness(step),
            WitnessAction::Write { bytes },
            self.timeout_us(),
        );
    }

    pub(super) fn probe_witness(&mut self, ctx: &mut Ctx<Pending>) {
        if self.witness_path.is_some() && !self.witness.probing && ctx.due(self.witness.probe_at) {
            self.witness.probing = true;
            self.witness.probe_at = ctx.after_ms(self.settings.witness_check_ms);
            let patience = self.probe_deadline_us();
            ctx.witness(Pending::Witness(WitnessStep::Probe), WitnessAction::Probe, patience);
        }
    }

    /// A witness operation ended.
    pub fn on_witness(&mut self, ctx: &mut Ctx<Pending>, step: WitnessStep, result: WitnessResult) {
        if self.witness.lock == WitnessLock::Abandoned && step != WitnessStep::Probe {
            self.witness.lock = WitnessLock::No;
            return;
        }
        let votes_anyway = match (step, &result) {
            (WitnessStep::Open, WitnessResult::Held) => ctx.plays(Bug::BothWinArbitration),
            (WitnessStep::Open, WitnessResult::Failed(_)) => ctx.plays(Bug::UnreachableWitnessVotes),
            (WitnessStep::Write(_) | WitnessStep::LastWrite, WitnessResult::Failed(_)) => {
                ctx.plays(Bug::BothWinArbitration) || ctx.plays(Bug::UnreachableWitnessVotes)
            }
            _ => false,
        };
        let result = match step {
            WitnessStep::Open if votes_anyway => WitnessResult::Opened(Vec::new()),
            _ if votes_anyway => WitnessResult::Done,
            _ => result,
        };
        match (step, result) {
            (WitnessStep::Probe, result) => self.probed(ctx, result),
            (WitnessStep::Open, WitnessResult::Opened(content)) => {
                self.witness.failing_since = None;
                self.opened(ctx, &content);
            }
            (WitnessStep::Open, WitnessResult::Held) => {
                self.witness.failing_since = None;
                let why = "the other member holds the file";
                if self.force.is_requested() {
                    self.force_refused(why);
                }
                self.not_won(ctx, why, AttemptFailure::Free);
            }
            (WitnessStep::Open, WitnessResult::Failed(why)) => {
                self.not_won(ctx, &why, AttemptFailure::Working);
                if self.force.is_requested() && self.is_forming() && self.saving.is_none() {
                    self.force_alone(ctx, &format!("the witness cannot be seen ({why})"));
                }
            }
            (WitnessStep::Write(begun), WitnessResult::Done) => self.beat_written(ctx, begun),
            (WitnessStep::LastWrite, WitnessResult::Done) => {
                ctx.witness(
                    Pending::Witness(WitnessStep::Close),
                    WitnessAction::Close,
                    self.timeout_us(),
                );
            }
            (WitnessStep::Close, _) => self.let_go(ctx),
            (WitnessStep::Write(_) | WitnessStep::LastWrite, result) => {
                let voted = match &self.witness.lock {
                    WitnessLock::Held { written, .. } => written.is_some(),
                    WitnessLock::Closing { voted } => *voted,
                    lock => unreachable!("a write ended, and the lock is {lock:?}"),
                };
                self.let_go(ctx);
                // What was held and is lost is asked for again at once; what could never be written is not.
                let wait = if voted { 0 } else { self.next_wait(ctx) };
                self.witness.retry_at = ctx.now.boot_us + wait;
                self.report_lost(ctx, NoVote::Other(format!("{result:?}")), AttemptFailure::Working);
            }
            (WitnessStep::Open, WitnessResult::Done) => {
                self.not_won(ctx, "no answer that makes sense", AttemptFailure::Working)
            }
        }
    }

    /// A beat is durable: the witness has voted for what was in it.
    fn beat_written(&mut self, ctx: &mut Ctx<Pending>, begun: Now) {
        let (claimant, epoch) = (self.arbitrates_as(), self.epoch());
        let WitnessLock::Held { written, writing } = &mut self.witness.lock else {
            unreachable!("a beat ended, and the lock is {:?}", self.witness.lock);
        };
        assert!(writing.is_some(), "a beat ends that was begun");
        let first = written.is_none();
        *written = writing.take();
        if first {
            ctx.event(EventKind::ArbitrationWon { claimant, epoch });
        }
        self.witness.failures = 0;
        self.witness.failing_since = None;
        self.witness.last_loss_reported = None;
        self.witness.why = None;
        self.lease.renew(Source::Witness, begun);
    }

    fn let_go(&mut self, ctx: &mut Ctx<Pending>) {
        self.witness.lock = WitnessLock::No;
        self.lease.drop_source(Source::Witness);
        self.witness.retry_at = self.witness.retry_at.max(ctx.now.boot_us + RETRY_US);
    }

    fn opened(&mut self, ctx: &mut Ctx<Pending>, content: &[u8]) {
        let file = match wire::decode_witness(content) {
            Ok(file) => file,
            Err(e) => {
                let why = format!("the witness file is not readable: {e}");
                if self.force.is_requested() {
                    self.force_refused(&why);
                }
                return self.refuse(ctx, NoVote::Other(why));
            }
        };
        assert!(
            self.witness.lock == WitnessLock::Opening,
            "the file that was opened was asked for"
        );
        self.witness.lock = WitnessLock::Held {
            written: None,
            writing: None,
        };
        self.witness.beat_at = ctx.now.boot_us;
        let floor = file.as_ref().map(|f| f.id.clone()).unwrap_or_default();
        if self.force.is_requested() && self.is_forming() && self.saving.is_none() {
            if let Err(why) = self.force_with_witness(ctx, file.as_ref()) {
                return self.refuse(ctx, NoVote::Other(why));
            }
            self.wait_for_holder(ctx, file.as_ref());
            return;
        }
        if let Some(file) = &file {
            if file.cluster != self.name {
                let why = format!("the witness file belongs to cluster {}", file.cluster);
                return self.refuse(ctx, NoVote::Other(why));
            }
            if let Some(why) = self.forced_elsewhere(file) {
                return self.refuse(ctx, NoVote::Other(why));
            }
            // Its own unfinished claim is no news: nobody else can have agreed to it.
            let own = file.id.by == self.me && file.writer == self.me && file.id.epoch <= self.saved.highest_epoch;
            if !self.stand().knows(&file.id) && !own {
                ctx.event(EventKind::PartitionInTime {
                    seen: file.id.epoch,
                    seen_tag: file.id.tag,
                    epoch: self.epoch(),
                    tag: self.saved.record.id.tag,
                });
                return self.refuse(ctx, NoVote::NewerCluster);
            }
        }
        self.wait_for_holder(ctx, file.as_ref());
        if self.is_forming() && self.saving.is_none() {
            self.claim(ctx, floor, 0);
        }
    }

    /// Whoever held the file last may believe for a while that it may serve.
    fn wait_for_holder(&mut self, ctx: &mut Ctx<Pending>, file: Option<&WitnessFile>) {
        if file.is_some_and(|f| f.held && f.writer != self.me) {
            let wait = self.witness_lease_us() + MAX_UNSEEN_PAUSE_US;
            self.witness.safe_at = self.witness.safe_at.max(ctx.now.boot_us + wait);
        }
    }

    /// Not to be held by us: close, and look again after a while.
    fn refuse(&mut self, ctx: &mut Ctx<Pending>, why: NoVote) {
        self.witness.lock = WitnessLock::Closing { voted: false };
        ctx.witness(
            Pending::Witness(WitnessStep::Close),
            WitnessAction::Close,
            self.timeout_us(),
        );
        let text = why.to_string();
        self.retry_later(ctx, why, AttemptFailure::Ours);
        self.lose_quorum(ctx, &text);
    }

    fn not_won(&mut self, ctx: &mut Ctx<Pending>, why: &str, refused: AttemptFailure) {
        self.witness.lock = WitnessLock::No;
        self.retry_later(ctx, NoVote::Other(why.to_owned()), refused);
    }

    fn retry_later(&mut self, ctx: &mut Ctx<Pending>, why: NoVote, refused: AttemptFailure) {
        let wait = match refused {
            AttemptFailure::Ours => self.settings.witness_check_ms * 1000,
            AttemptFailure::Free => RETRY_US,
            AttemptFailure::Working => self.next_wait(ctx),
        };
        self.witness.retry_at = ctx.now.boot_us + wait;
        self.report_lost(ctx, why, refused);
    }

    /// How long the opening may take. Where a probe has shown meanwhile that the server is only slow, a node that runs nothing waits as
    /// long as a probe does: otherwise the witness would be *ok*, and nobody would ever have its vote.
    fn open_deadline_us(&self) -> u64 {
        let failing = self.witness.failing_since;
        let slow = failing.is_some_and(|since| self.witness.answered_since(since));
        if slow && self.is_forming() {
            self.probe_deadline_us()
        } else {
            self.timeout_us()
        }
    }

    /// Nothing hangs on a probe but its own verdict: it may take longer than a claim, two tries and all.
    fn probe_deadline_us(&self) -> u64 {
        self.timeout_us().max(self.settings.witness_check_ms * 1000)
    }

    /// Until the next attempt after one that failed; up to a quarter more, so that two members do not ask a server in trouble at the
    /// same time.
    fn next_wait(&mut self, ctx: &mut Ctx<Pending>) -> u64 {
        let doubled = self.witness.failures.saturating_sub(RETRIES_BEFORE_BACKOFF).min(16);
        let wait = (RETRY_US << doubled).min(LONGEST_RETRY_US);
        self.witness.failures = self.witness.failures.saturating_add(1);
        self.witness.failing_since.get_or_insert(ctx.now.boot_us);
        wait + ctx.random() % (wait / 4)
    }

    /// Once for each time that it was had or asked for, and when the reason is another one.
    fn report_lost(&mut self, ctx: &mut Ctx<Pending>, why: NoVote, kind: AttemptFailure) {
        let now = ctx.now.boot_us;
        let last = self.witness.last_loss_reported;
        if last.is_none_or(|(before, at)| before != kind && now >= at + REPORT_US) {
            self.witness.last_loss_reported = Some((kind, now));
            let (why, epoch) = (why.to_string(), self.epoch());
            ctx.event(EventKind::ArbitrationLost { why, epoch });
        }
        self.witness.why = Some(why);
    }

    fn probed(&mut self, ctx: &mut Ctx<Pending>, result: WitnessResult) {
        self.witness.probing = false;
        let error = match result {
            WitnessResult::Done => None,
            WitnessResult::Failed(why) => Some(why),
            other => Some(format!("{other:?}")),
        };
        let before = self.witness.probed.as_ref().map(|(_, e)| e.is_none());
        match (&error, before) {
            (None, None | Some(false)) => {
                // What failed before may work now.
                self.witness.retry_at = self.witness.retry_at.min(ctx.now.boot_us + RETRY_US);
                ctx.event(EventKind::WitnessOk { epoch: self.epoch() });
            }
            (Some(why), None | Some(true)) => {
                let (error, epoch) = (why.clone(), self.epoch());
                ctx.event(EventKind::WitnessFailed { error, epoch });
            }
            _ => {}
        }
        if error.is_some() {
            // It is known sooner that a witness is back than that it is gone: a cluster waits for it, and the probe is its news.
            let soon = ctx.after_ms(self.settings.witness_check_ms / 5);
            self.witness.probe_at = self.witness.probe_at.min(soon);
        }
        self.witness.probed = Some((ctx.now.boot_us, error));
    }
}
