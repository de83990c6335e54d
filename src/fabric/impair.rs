//! What one rule does to one frame in one flow. Pure: the same seed and the same frames give the same decisions.

use super::frame::{self, Summary};
use super::rules::{Distribution, Effect, Match, Proto, Rule};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Bound of a rate's queue where the rule has none.
pub const DEFAULT_QUEUE: u64 = 64 << 10;

/// What was decided for a frame so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Decision {
    /// Nanoseconds that it will be delayed.
    pub delay: u64,
    /// How many more copies arrive.
    pub extra: u8,
    /// Bytes to change.
    pub damage: Vec<Damage>,
}

/// One byte to change: see [`frame::corrupt`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Where, as a fraction of 2³² of what may be touched.
    pub place: u32,
    /// Bits to flip.
    pub xor: u8,
    /// Whether checksums are mended.
    pub mend: bool,
    /// The rule that asked for it, by its index in the set.
    pub rule: usize,
}

/// Why a frame is dropped by a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drop {
    /// A cut, or the down time of a flapping cable.
    Cut,
    /// Random loss.
    Loss,
    /// Longer than the rule's MTU.
    Mtu,
    /// The rate's queue is full.
    Queue,
}

/// Most copies of one frame, however many rules duplicate it.
const MAX_EXTRA: u8 = 7;

/// What a rule remembers of one flow (of one sender, to one receiver, or of one pair).
#[derive(Debug, Clone)]
pub struct FlowState {
    rng: ChaCha8Rng,
    /// In a burst of losses.
    bad: bool,
    /// When the rate's wire is free again.
    free_at: u64,
    /// When the last frame of this flow is due: what comes later arrives later.
    last_due: u64,
    since: u64,
}

impl FlowState {
    /// The state of `rule` for the flow from `from` to `to` (either may be `*`), at `now`. Its random choices come from the seed, the flow
    /// and which frames it is about; not from its id, which counts the faults of a lab's life.
    pub fn new(rule: &Rule, from: &str, to: &str, now: u64) -> Self {
        let mut h = blake3::Hasher::new();
        h.update(&rule.seed.to_le_bytes());
        for part in [&rule.matches.to_string(), &rule.network, from, to] {
            h.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        Self {
            rng: ChaCha8Rng::from_seed(*h.finalize().as_bytes()),
            bad: false,
            free_at: 0,
            last_due: 0,
            since: now,
        }
    }

    /// Applies `effect` to a frame that matched. `len` is the frame's length in bytes, `s` its summary.
    ///
    /// Each random effect draws the same number of values for every matching frame, whatever the outcome.
    pub fn apply(
        &mut self,
        effect: &Effect,
        len: usize,
        s: &Summary,
        now: u64,
        decision: &mut Decision,
    ) -> Option<Drop> {
        if effect.cut {
            return Some(Drop::Cut);
        }
        if let Some(f) = &effect.flap {
            let (down, up) = (f.down.0.as_nanos() as u64, f.up.0.as_nanos() as u64);
            if now.saturating_sub(self.since) % (down + up) < down {
                return Some(Drop::Cut);
            }
        }
        if effect
            .mtu
            .is_some_and(|mtu| len.saturating_sub(s.payload) > usize::from(mtu))
        {
            return Some(Drop::Mtu);
        }
        let lost = self.lost(effect);
        let damage = self.damage(effect);
        let twice = effect.duplicate.is_some_and(|p| self.chance(p.0 / 100.0));
        let delay = self.delay(effect);
        if lost {
            return Some(Drop::Loss);
        }
        decision.damage.extend(damage);
        if twice {
            decision.extra = (decision.extra * 2 + 1).min(MAX_EXTRA);
        }
        let arrival = now + decision.delay;
        let mut due = arrival;
        if let Some(rate) = effect.rate {
            let begin = self.free_at.max(arrival);
            let waiting = u128::from(begin - arrival) * u128::from(rate.0) / 8_000_000_000;
            let bound = effect.queue.map_or(DEFAULT_QUEUE, |q| q.0);
            if waiting + len as u128 > u128::from(bound) {
                return Some(Drop::Queue);
            }
            self.free_at = begin + (len as u128 * 8_000_000_000 / u128::from(rate.0)) as u64;
            due = self.free_at;
        }
        if let Some((extra, false)) = delay {
            due = (due + extra).max(self.last_due);
            self.last_due = due;
        }
        decision.delay = due - now;
        None
    }

    fn chance(&mut self, p: f64) -> bool {
        self.rng.random::<f64>() < p
    }

    fn lost(&mut self, effect: &Effect) -> bool {
        let Some(p) = effect.loss.map(|p| p.0 / 100.0) else {
            return false;
        };
        let Some(burst) = effect.burst.map(f64::from) else {
            return self.chance(p);
        };
        // Two states (Gilbert): the mean stay in the bad one is `burst` frames, its share of all frames is p.
        let leave = if self.bad { 1.0 / burst } else { p / (burst * (1.0 - p)) };
        if p >= 1.0 || self.chance(leave) {
            self.bad = !self.bad || p >= 1.0;
        }
        self.bad
    }

    fn damage(&mut self, effect: &Effect) -> Option<Damage> {
        let p = effect.corrupt?.0 / 100.0;
        let (hit, place, xor) = (self.chance(p), self.rng.random(), self.rng.random_range(1..=u8::MAX));
        hit.then_some(Damage {
            place,
            xor,
            mend: effect.mend,
            rule: 0,
        })
    }

    /// The delay of this frame, and whether it overtakes instead.
    fn delay(&mut self, effect: &Effect) -> Option<(u64, bool)> {
        let delay = effect.delay?.0.as_nanos() as f64;
        let overtakes = effect.reorder.is_some_and(|p| self.chance(p.0 / 100.0));
        let Some(jitter) = effect.jitter.map(|j| j.0.as_nanos() as f64) else {
            return Some((delay as u64, overtakes));
        };
        let by = match effect.distribution.unwrap_or_default() {
            Distribution::Uniform => self.rng.random::<f64>() * 2.0 - 1.0,
            Distribution::Normal => {
                // The sum of twelve uniform values has variance 1; cut at three deviations.
                let sum: f64 = (0..12).map(|_| self.rng.random::<f64>()).sum();
                (sum - 6.0).clamp(-3.0, 3.0)
            }
            // Shape 3: mean 0.5 jitters above the delay, one frame in a thousand nine above.
            Distribution::Pareto => (1.0 - self.rng.random::<f64>()).powf(-1.0 / 3.0).min(20.0) - 1.0,
        };
        Some(((delay + by * jitter).max(0.0) as u64, overtakes))
    }
}

/// Whether the rule is about this frame.
pub fn matches(m: &Match, s: &Summary) -> bool {
    m.ethertype.is_none_or(|t| t == s.ethertype)
        && m.proto.is_none_or(|p| s.proto.is_some_and(|n| is_proto(p, n)))
        && m.port.is_none_or(|p| s.ports.is_some_and(|(a, b)| a == p || b == p))
        && m.address
            .is_none_or(|a| s.addresses.is_some_and(|(x, y)| x == a || y == a))
}

fn is_proto(p: Proto, n: u8) -> bool {
    match p {
        Proto::Tcp => n == frame::TCP,
        Proto::Udp => n == frame::UDP,
        Proto::Icmp => n == frame::ICMP || n == frame::ICMPV6,
    }
}

/// Why an effect makes no sense by itself, in words that fit behind "rule `x`: ".
pub fn nonsense(e: &Effect) -> Option<String> {
    if *e == Effect::default() {
        return Some("it has no effect".into());
    }
    if e.rate.is_some_and(|r| r.0 == 0) {
        return Some("a rate of zero is a cut: write `cut`".into());
    }
    if let Some(f) = e.flap
        && (f.down.0.is_zero() || f.up.0.is_zero())
    {
        return Some("a flap needs both a time down and a time up above zero".into());
    }
    for (name, p) in [
        ("loss", e.loss),
        ("corrupt", e.corrupt),
        ("duplicate", e.duplicate),
        ("reorder", e.reorder),
    ] {
        if p.is_some_and(|p| !(0.0..=100.0).contains(&p.0)) {
            return Some(format!("its {name} is not between 0% and 100%"));
        }
    }
    if let Some(burst) = e.burst {
        let Some(loss) = e.loss else {
            return Some("a burst needs a loss".into());
        };
        if burst == 0 {
            return Some("a burst has at least one frame".into());
        }
        let most = f64::from(burst) / f64::from(burst + 1) * 100.0;
        if loss.0 < 100.0 && loss.0 > most {
            return Some(format!(
                "bursts of {burst} frames allow a loss of at most {most:.1}%, or 100%"
            ));
        }
    }
    for (has, what) in [(e.jitter.is_some(), "jitter"), (e.reorder.is_some(), "reorder")] {
        if has && e.delay.is_none() {
            return Some(format!("{what} needs a delay"));
        }
    }
    if e.distribution.is_some() && e.jitter.is_none() {
        return Some("a distribution needs a jitter".into());
    }
    if e.queue.is_some() && e.rate.is_none() {
        return Some("a queue needs a rate".into());
    }
    if e.mend && e.corrupt.is_none() {
        return Some("`mend` needs `corrupt`".into());
    }
    if e.delay.is_some_and(|d| d.0.as_secs() > 60) || e.jitter.is_some_and(|d| d.0.as_secs() > 60) {
        return Some("a delay is at most 60 s".into());
    }
    None
}

#[cfg(test)]
mod tests;
