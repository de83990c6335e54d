//! Verdicts and the document of `verify --json` (CONTRACTS "Verify's JSON").

use super::{Distribution, Moment, Observation};
use crate::spec::Lab;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What can be said of a check, a scenario or a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It holds.
    Pass,
    /// It is violated.
    Fail,
    /// The evidence is not enough to say.
    Unknown,
    /// It was not run, with the reason.
    Skipped,
}

impl Verdict {
    /// The verdict over both: fail, then unknown, then pass, then skipped.
    #[must_use]
    pub fn and(self, other: Verdict) -> Verdict {
        let rank = |v| match v {
            Verdict::Fail => 3,
            Verdict::Unknown => 2,
            Verdict::Pass => 1,
            Verdict::Skipped => 0,
        };
        if rank(self) >= rank(other) { self } else { other }
    }

    /// The exit code that a run with this verdict ends with.
    pub fn exit_code(self) -> u8 {
        match self {
            Verdict::Pass => 0,
            Verdict::Fail => 1,
            Verdict::Unknown | Verdict::Skipped => 3,
        }
    }
}

/// The one document on stdout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The lab.
    pub lab: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// `kvm` or `tcg`.
    pub accel: String,
    /// `machines` or `sim`.
    pub on: String,
    /// Over all scenarios.
    pub verdict: Verdict,
    /// What is wrong with the lab on purpose.
    #[serde(flatten)]
    pub on_purpose: OnPurpose,
    /// Each scenario.
    pub scenarios: Vec<ScenarioReport>,
    /// The figures of those that were run more than once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub distributions: Vec<Distribution>,
}

/// What is wrong with a lab on purpose: a verdict is of the lab with that.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnPurpose {
    /// Its misconfigurations, for people: `M13 (Rights on the share, not on its folder)`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mutations: Vec<String>,
    /// Ids of the rules and of preflight's checks that it breaks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waived: Vec<String>,
}

impl OnPurpose {
    /// As the lab's file has it.
    pub fn of(lab: &Lab) -> Self {
        Self {
            mutations: lab.mutations.iter().map(ToString::to_string).collect(),
            waived: lab.on_purpose.clone(),
        }
    }

    /// Each part in a line, for people; none where nothing is.
    pub fn lines(&self) -> Vec<String> {
        let mutations = self.mutations.iter().map(|m| format!("misconfigured on purpose: {m}"));
        let waived = (!self.waived.is_empty()).then(|| format!("broken on purpose: {}", self.waived.join(", ")));
        mutations.chain(waived).collect()
    }
}

/// One scenario's result.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScenarioReport {
    /// Its id.
    pub id: String,
    /// Its title.
    pub title: String,
    /// Which of its repeats this is, from 1.
    #[serde(default = "first", skip_serializing_if = "is_first")]
    pub turn: u32,
    /// Over all its invariants, expectations, requirements and faults.
    pub verdict: Verdict,
    /// Why it is not a pass.
    pub why: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Phases of the failover, in milliseconds; null where it had none.
    pub timings: Timings,
    /// What was lost.
    pub loss: Loss,
    /// The faults, as resolved, with their proof.
    pub faults: Vec<FaultRecord>,
    /// The invariants.
    pub invariants: Vec<InvariantReport>,
    /// Everything else that the verdict rests on: steps, expectations, evidence that was required, forbidden patterns.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// How slow the host was; absent in reports of older builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostSpeed>,
    /// How closely the lab was seen; absent where no node said when what it says was so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub looks: Option<Looks>,
}

/// How closely a lab was seen.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Looks {
    /// How often.
    pub count: usize,
    /// The same a second, from the first look to the last.
    pub per_second: f64,
    /// Median of the times between hearing what a node says and using it, in milliseconds.
    pub median_age_ms: f64,
}

impl Looks {
    /// Of all looks of a run.
    pub fn of(observations: &[Observation]) -> Option<Self> {
        let age = |o: &Observation, m: Moment| o.t_us.saturating_sub(m.heard_us) as f64 / 1e3;
        let of_look = |o: &Observation| -> Vec<f64> {
            let said = o.nodes.values().filter_map(|v| v.moment);
            said.map(|m| age(o, m)).collect()
        };
        let mut ages: Vec<f64> = observations.iter().flat_map(of_look).collect();
        ages.sort_by(f64::total_cmp);
        let seconds = observations.last()?.t_us.saturating_sub(observations.first()?.t_us) as f64 / 1e6;
        let tenths = |v: f64| (v * 10.0).round() / 10.0;
        Some(Self {
            count: observations.len(),
            per_second: tenths((observations.len() - 1) as f64 / seconds.max(1e-6)),
            median_age_ms: tenths(*ages.get(ages.len() / 2)?),
        })
    }
}

/// How slow the host was. Times in the scenario and limits of its invariants are multiplied by both, together at most by 5.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct HostSpeed {
    /// By itself, as it was measured before.
    pub slowness: f64,
    /// How many times longer than on an idle host things took, in the worst five seconds of the scenario.
    pub busy: f64,
}

impl HostSpeed {
    /// For people, where it is not as it should be.
    pub fn summary(self) -> Option<String> {
        let Self { slowness, busy } = self;
        (slowness > 1.0 || busy > 1.0).then(|| {
            let all = crate::wait::Slowness::new(slowness * busy).factor();
            format!("host: slowness {slowness:.1}, busy {busy:.1}: limits × {all:.1}")
        })
    }
}

impl ScenarioReport {
    /// What it is called among all that were run: no two have one name.
    pub fn name(&self) -> String {
        turn_name(&self.id, self.turn)
    }
    /// A report with a verdict and nothing else.
    pub fn empty(id: &str, title: &str, verdict: Verdict) -> Self {
        Self {
            id: id.to_owned(),
            title: title.to_owned(),
            turn: first(),
            verdict,
            why: None,
            seconds: 0.0,
            timings: Timings::default(),
            loss: Loss::default(),
            faults: Vec::new(),
            invariants: Vec::new(),
            checks: Vec::new(),
            host: None,
            looks: None,
        }
    }
}

fn first() -> u32 {
    1
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes it so")]
fn is_first(turn: &u32) -> bool {
    *turn == first()
}

/// The name of one run of a scenario: `F05`, and `F05.2` for its second.
pub fn turn_name(id: &str, turn: u32) -> String {
    match turn {
        0 | 1 => id.to_owned(),
        n => format!("{id}.{n}"),
    }
}

/// Something that had to be so, and is no invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// `step 4`, `require acks`, `forbid split-brain`, `fault 2`.
    pub id: String,
    /// What it says.
    pub text: String,
    /// Whether it was so.
    pub verdict: Verdict,
    /// What was seen.
    pub detail: String,
}

/// Phases of a failover, in milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timings {
    /// From the fault until the survivor knows.
    pub detect_ms: Option<u64>,
    /// From then until it may serve.
    pub arbitrate_ms: Option<u64>,
    /// From then until the store is mounted.
    pub mount_ms: Option<u64>,
    /// From the fault until the first store answer of the new active.
    pub first_ack_ms: Option<u64>,
    /// Longest time without a successful store answer to a client that kept trying.
    pub outage_ms: Option<u64>,
}

/// What became of acknowledged operations.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Acknowledged writes.
    pub acked: u64,
    /// Acknowledged and missing at the end.
    pub lost: u64,
    /// Delivered again by a hub after the failover.
    pub redelivered: u64,
    /// In the store more than once.
    pub duplicated: u64,
    /// Generations that the survivor had not inspected.
    pub lost_logs: u64,
}

/// A fault as it happened (CONTRACTS "Faults").
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FaultRecord {
    /// Number in the run.
    pub id: u64,
    /// Its word: `power-off`, `cut`.
    pub kind: String,
    /// The target, as resolved: `{"role":"active","node":"node1"}`.
    pub target: Value,
    /// When it took effect, microseconds since the journal began.
    pub begin_us: u64,
    /// When it was undone.
    pub end_us: Option<u64>,
    /// Evidence: counters, states, the instant of the suspend.
    pub proof: Value,
    /// Whether the evidence proves an effect; false or null makes the scenario unknown.
    pub effective: Option<bool>,
    /// It was about to be made: whether it was is not known yet. It is undone like one that is in force.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
}

/// One invariant's verdict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InvariantReport {
    /// `I1` …
    pub id: String,
    /// The verdict.
    pub verdict: Verdict,
    /// What was counted, or what broke it.
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::Verdict::*;

    #[test]
    fn a_fail_outweighs_an_unknown_and_an_unknown_a_pass() {
        assert_eq!(Pass.and(Unknown), Unknown);
        assert_eq!(Unknown.and(Fail), Fail);
        assert_eq!(Skipped.and(Pass), Pass);
        assert_eq!([Pass, Fail, Unknown].map(super::Verdict::exit_code), [0, 1, 3]);
    }
}
