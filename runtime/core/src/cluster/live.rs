//! Live configuration: what a majority has agreed to beside the configuration file. It is part of the record, so that each
//! change raises the configuration tag and needs a majority.
//!
//! * Heartbeat interval and tolerances: the member that does not own the service restarts its cluster service, as the
//!   original's do node by node. While it is away the other one needs the witness; so they are refused while the witness
//!   cannot be locked, unless forced.
//! * The witness: a new one is in force only after the quorum resource came online again (the Cluster Group was moved), and
//!   only when both members have agreed to it: otherwise each could win one of the two. A member that does not know
//!   whether the other one has agreed uses neither.
//! * Membership: an evicted member neither votes nor forms; the one that is left is a majority by itself.

use super::Cluster;
use crate::ctx::Ctx;
use crate::io::Effect;
use crate::op::Pending;
use crate::record::Record;
use crate::wire::Phase;
use ccr_contract::config::{Config, Dial, Settings};
use ccr_contract::event::EventKind;
use ccr_contract::status::NetworkRole;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// How much longer a restarting cluster service is away than a node that is left alone looks for a majority, in microseconds.
const RESTART_US: u64 = 2_000_000;
/// The record's name of the witness setting.
const WITNESS: &str = "witness";
/// Fewest missed heartbeats that say something about a path: with one, each that comes a moment late takes it for down, and the other
/// member, told so, takes the answers for missing. The original's `HeartBeatLostInterfaceTicks` are 2 to 3.
const LEAST_TOLERANCE: u64 = 2;

/// What the configuration file says, below the record's settings.
#[derive(Debug)]
pub(super) struct ConfigDefaults {
    settings: Settings,
    roles: Vec<NetworkRole>,
    witness: Option<String>,
    /// Addresses of nodes by name, on the network of the service where they are on it.
    hosts: BTreeMap<String, Ipv4Addr>,
}

impl ConfigDefaults {
    pub fn new(config: &Config) -> Self {
        let host = |p: &ccr_contract::config::Peer| {
            let address = p.addresses.get(&config.service_network).or(p.addresses.values().next());
            address.map(|a| (p.name.clone(), *a))
        };
        Self {
            settings: config.settings.clone(),
            roles: config.networks.iter().map(|n| n.role).collect(),
            witness: config.witness.as_ref().map(|w| w.path.clone()),
            hosts: config.members.iter().chain(&config.hubs).filter_map(host).collect(),
        }
    }
}

fn number(value: &str, least: u64, most: u64) -> Result<u64, String> {
    let n = value.parse::<u64>().ok().filter(|n| (least..=most).contains(n));
    n.ok_or_else(|| format!("`{}` is no number from {least} to {most}", value.escape_debug()))
}

fn dial(value: &str) -> Result<Dial, String> {
    match value {
        "lossless" => Ok(Dial::Lossless),
        "good-availability" => Ok(Dial::GoodAvailability),
        "best-availability" => Ok(Dial::BestAvailability),
        _ => Err("the dial is lossless, good-availability or best-availability (or Lossless, GoodAvailability, BestAvailability)".into()),
    }
}

/// A setting as the record has it. An operator may write what a lab file says (`heartbeat`, `1.2 s`), and the original's words
/// (`AutoDatabaseMountDial`, `BestAvailability`).
fn as_recorded(key: &str, value: &str) -> Result<(String, String), String> {
    let (key, value) = (key.trim(), value.trim());
    if key.starts_with("network.") {
        return Ok((key.to_owned(), value.to_ascii_lowercase()));
    }
    let key = match key.replace('-', "_") {
        k if k == "heartbeat" => "heartbeat_ms".to_owned(),
        k if k.eq_ignore_ascii_case("AutoDatabaseMountDial") => "dial".to_owned(),
        k => k,
    };
    let value = match key.as_str() {
        "heartbeat_ms" => milliseconds(value)?.to_string(),
        "dial" => match value.to_ascii_lowercase().replace('-', "").as_str() {
            "goodavailability" => "good-availability".to_owned(),
            "bestavailability" => "best-availability".to_owned(),
            other => other.to_owned(),
        },
        _ => value.to_owned(),
    };
    Ok((key, value))
}

/// `1200`, `1200 ms`, `1.2 s`.
fn milliseconds(text: &str) -> Result<u64, String> {
    let refused = || format!("`{}` is no time: write 1200, 1200 ms or 1.2 s", text.escape_debug());
    let (number, in_seconds) = match text.strip_suffix("ms") {
        Some(number) => (number, false),
        None => text.strip_suffix('s').map_or((text, false), |number| (number, true)),
    };
    let number = number.trim_end();
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let plain = !whole.is_empty() && whole.len() <= 9 && digits(whole) && part.len() <= 3 && digits(part);
    if !plain || (number.contains('.') && (part.is_empty() || !in_seconds)) {
        return Err(refused());
    }
    let whole: u64 = whole.parse().map_err(|_| refused())?;
    if !in_seconds {
        return Ok(whole);
    }
    let part: u64 = format!("{part:0<3}").parse().map_err(|_| refused())?;
    Ok(whole * 1000 + part)
}

fn role(value: &str) -> Result<NetworkRole, String> {
    match value {
        "mixed" => Ok(NetworkRole::Mixed),
        "internal" => Ok(NetworkRole::Internal),
        "client" => Ok(NetworkRole::Client),
        _ => Err("a role is mixed, internal or client".into()),
    }
}

/// `network.NAME.role` → NAME.
fn network_of(key: &str) -> Option<&str> {
    key.strip_prefix("network.")?.strip_suffix(".role")
}

/// Settings with one value changed; the error says what it may be.
fn with(settings: &Settings, key: &str, value: &str) -> Result<Settings, String> {
    let mut s = settings.clone();
    match key {
        "heartbeat_ms" => s.heartbeat_ms = number(value, 100, s.lease_ms / 3)?,
        "node_tolerance" => s.node_tolerance = number(value, u64::from(s.interface_tolerance), 100)? as u32,
        "interface_tolerance" => {
            s.interface_tolerance = number(value, LEAST_TOLERANCE, u64::from(s.node_tolerance))? as u32
        }
        "dial" => s.dial = dial(value)?,
        _ => {
            return Err(format!(
                "`{}` cannot be set while the cluster runs: heartbeat_ms, node_tolerance, interface_tolerance, dial, witness, \
                 network.NAME.role can",
                key.escape_debug()
            ));
        }
    }
    Ok(s)
}

/// Whether a setting takes a restart of the cluster services.
fn restarts(key: &str) -> bool {
    matches!(key, "heartbeat_ms" | "node_tolerance" | "interface_tolerance")
}

impl Cluster {
    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The record with one live setting changed, and what to tell the operator when it is agreed to.
    pub fn set(&self, key: &str, value: &str, force: bool) -> Result<(Record, String), String> {
        let (key, value) = as_recorded(key, value)?;
        let value = value.as_str();
        let mut answer = format!("{key}={value}");
        if let Some(name) = network_of(&key) {
            self.check_role(name, value)?;
        } else if key == WITNESS {
            let Some(_) = &self.defaults.witness else {
                return Err("this cluster was made without a witness".into());
            };
            self.locate(value)?;
            answer += "; in force when the Cluster Group comes online again (move-group cluster)";
        } else {
            with(&self.settings, &key, value)?;
        }
        if restarts(&key) && self.witness_path.is_some() && !self.witness_can_be_locked() {
            if !force {
                return Err(
                    "the witness cannot be locked now: a cluster service restarts for this, and without the witness that \
                     ends the quorum (--force does it all the same)"
                        .into(),
                );
            }
            answer +=
                "; forced although the witness cannot be locked: the quorum is lost while a cluster service restarts";
        }
        let mut next = self.saved.record.next(&self.epoch_owner);
        next.settings.insert(key, value.to_owned());
        Ok((next, answer))
    }

    fn witness_can_be_locked(&self) -> bool {
        let peer = self
            .peer
            .view
            .as_ref()
            .filter(|_| self.membership.has_peer())
            .and_then(|v| v.probe);
        self.witness.could_be_locked() && peer.is_none_or(|(_, ok)| ok)
    }

    fn check_role(&self, name: &str, value: &str) -> Result<(), String> {
        let role = role(value)?;
        let Some(at) = self.peer.interfaces.iter().position(|p| p.name == name) else {
            return Err(format!("there is no network `{}`", name.escape_debug()));
        };
        let carries = |(i, p): (usize, &super::heartbeat::PeerInterface)| {
            let role = if i == at { role } else { p.role };
            role != NetworkRole::Client && p.peer.is_some()
        };
        if !self.peer.interfaces.iter().enumerate().any(carries) {
            return Err("no network would be left that carries heartbeats".into());
        }
        Ok(())
    }

    /// Host and share of a path `\\HOST\SHARE`. A host is a node of this cluster or an address: a resolver would have
    /// timeouts of its own.
    fn locate(&self, path: &str) -> Result<(Ipv4Addr, String), String> {
        let parts = path.strip_prefix(r"\\").and_then(|p| p.split_once('\\'));
        let (host, share) = parts.ok_or_else(|| r"a witness is \\HOST\SHARE".to_owned())?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'$' | b'.');
        if share.is_empty() || share.len() > 80 || !share.bytes().all(plain) {
            return Err(format!("`{}` is no name of a share", share.escape_debug()));
        }
        let known = self.defaults.hosts.get(host).copied();
        let address = known.or_else(|| host.parse().ok());
        let address =
            address.ok_or_else(|| format!("`{}` is no node of this cluster and no address", host.escape_debug()))?;
        Ok((address, share.to_owned()))
    }

    /// The witness that is configured; in force perhaps later.
    pub(super) fn configured_witness(&self) -> Option<String> {
        let set = self.saved.record.settings.get(WITNESS).cloned();
        set.or_else(|| self.defaults.witness.clone())
    }

    /// Whether the quorum resource is online on `to`, with the witness that is configured.
    pub fn is_online_on(&self, to: &str) -> bool {
        let configured = self.saved.record.settings.get(WITNESS);
        self.saved.record.quorum_owner == to
            && (configured.is_none() || configured == self.saved.record.witness.as_ref())
    }

    /// The record with which the quorum resource comes online on `to`: the configured witness is the one in force then.
    pub fn bring_online_on(&self, to: &str) -> Result<Record, String> {
        let mut next = self.saved.record.next(&self.epoch_owner);
        to.clone_into(&mut next.quorum_owner);
        let configured = self.saved.record.settings.get(WITNESS).cloned();
        if configured.is_some() && configured != next.witness {
            if !self.membership.has_peer() {
                return Err(format!(
                    "the witness was changed: both members must agree to the new one, and {} is not up",
                    self.peer.name
                ));
            }
            next.witness = configured;
        }
        Ok(next)
    }

    /// The record without, or again with, the other member.
    pub fn set_membership(&self, node: &str, evict: bool, ctx: &mut Ctx<Pending>) -> Result<Record, String> {
        let record = &self.saved.record;
        if node == self.me {
            return Err(format!(
                "{node} owns the Cluster Group: move it first, or ask about the other member"
            ));
        }
        if node != self.peer.name {
            return Err(format!("`{}` is not a member of this cluster", node.escape_debug()));
        }
        let evicted = record.evicted.as_deref() == Some(node);
        match (evict, evicted) {
            (true, true) => return Err(format!("{node} was evicted already")),
            (false, false) => return Err(format!("{node} is a member")),
            (true, false) if record.owner == node => {
                return Err(format!("the service is on {node}: move it first"));
            }
            (false, true) if self.peer_lost(ctx) => {
                return Err(format!("{node} is not heard: start it first"));
            }
            _ => {}
        }
        let mut next = record.next(&self.epoch_owner);
        next.evicted = evict.then(|| node.to_owned());
        Ok(next)
    }

    /// Whether the other member is no member any more.
    pub(crate) fn peer_evicted(&self) -> bool {
        self.saved.record.evicted.as_deref() == Some(self.peer.name.as_str())
    }

    /// A record is on the disk: what it says beside ownership takes effect.
    pub(super) fn apply_live(&mut self, ctx: &mut Ctx<Pending>, before: &BTreeMap<String, String>, committed: bool) {
        let record = &self.saved.record;
        let mut settings = self.defaults.settings.clone();
        // Each value was checked when it was set; in another order one may need the other, so that each gets two tries.
        for (key, value) in record.settings.iter().chain(&record.settings) {
            settings = with(&settings, key, value).unwrap_or(settings);
        }
        for (interface, default) in self.peer.interfaces.iter_mut().zip(&self.defaults.roles) {
            let set = record.settings.get(&format!("network.{}.role", interface.name));
            interface.role = set.and_then(|v| role(v).ok()).unwrap_or(*default);
        }
        let changed: Vec<(String, String)> = record
            .settings
            .iter()
            .filter(|(k, v)| before.get(*k) != Some(*v))
            .map(|(k, v)| (k.clone(), v.clone()))
            .collect();
        let restart = committed && record.owner != self.me && changed.iter().any(|(k, _)| restarts(k));
        self.settings = settings;
        for (key, value) in &changed {
            let id = &self.saved.record.id;
            ctx.event(EventKind::Configured {
                key: key.clone(),
                value: value.clone(),
                tag: id.tag,
                epoch: id.epoch,
            });
        }
        if restart && self.is_up() {
            // As long as the original's services took: the other member misses it, and looks for another majority.
            let until = ctx.now.boot_us + self.node_tolerance_us() + self.patience_us() + RESTART_US;
            // Its agreement goes out first: where nobody else can vote, the leader would not hear of it any more.
            self.next_beat = ctx.now.boot_us;
            self.send_heartbeats(ctx);
            self.restart(ctx, until);
        }
        self.use_witness(ctx);
        if committed {
            self.apply_membership(ctx);
        }
    }

    /// Tells the shell which witness is in force.
    fn use_witness(&mut self, ctx: &mut Ctx<Pending>) {
        if self.saved.witness_change_pending || self.defaults.witness.is_none() {
            return;
        }
        let path = self
            .saved
            .record
            .witness
            .clone()
            .or_else(|| self.defaults.witness.clone());
        if path == self.witness_path {
            return;
        }
        if let Some((address, share)) = path.as_deref().and_then(|p| self.locate(p).ok()) {
            self.witness_path = path;
            self.witness.forget();
            self.lease.drop_source(super::lease::Source::Witness);
            ctx.emit(Effect::UseWitness { address, share });
        }
    }

    /// An evicted node waits for the other member to take it back.
    pub(super) fn drive_evicted(&mut self, ctx: &mut Ctx<Pending>) {
        let Some(view) = &self.peer.view else { return };
        let mine = &self.saved.record.id;
        if (view.phase == Phase::Up || view.committed)
            && self.saving.is_none()
            && view.last_committed.covers_agreed(&self.saved.last_committed)
            && let Some(record) = view.record.as_ref().filter(|r| r.id == view.id && r.id != *mine)
        {
            let record = record.clone();
            self.save(ctx, record, true);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_lab_file_and_of_the_original_are_taken() {
        for (key, value, recorded) in [
            ("heartbeat_ms", "1200", "heartbeat_ms=1200"),
            ("heartbeat-ms", " 1200 ", "heartbeat_ms=1200"),
            ("heartbeat", "1.2 s", "heartbeat_ms=1200"),
            ("heartbeat", "1.25s", "heartbeat_ms=1250"),
            ("heartbeat", "300 ms", "heartbeat_ms=300"),
            ("heartbeat", "2s", "heartbeat_ms=2000"),
            ("dial", "Lossless", "dial=lossless"),
            ("AutoDatabaseMountDial", "GoodAvailability", "dial=good-availability"),
            ("dial", "best-availability", "dial=best-availability"),
            ("network.Public.role", "Mixed", "network.Public.role=mixed"),
            ("witness", r"\\hub\Share", r"witness=\\hub\Share"),
            ("node-tolerance", "5", "node_tolerance=5"),
        ] {
            let (key, value) = as_recorded(key, value).unwrap();
            assert_eq!(format!("{key}={value}"), recorded);
        }
        let (_, value) = as_recorded("dial", "BestAvailability").unwrap();
        assert_eq!(dial(&value), Ok(Dial::BestAvailability));
    }

    #[test]
    fn what_is_no_time_or_dial_is_refused() {
        let bad = [
            "",
            "1.2",
            "1.2 ms",
            ".5 s",
            "1.s",
            "1.2345 s",
            "-1",
            "1e3",
            "12 h",
            "s",
            "ms",
            "١",
            "9999999999",
        ];
        for bad in bad {
            assert!(as_recorded("heartbeat", bad).is_err(), "{bad}");
        }
        let (_, value) = as_recorded("dial", "SomeAvailability").unwrap();
        assert!(dial(&value).unwrap_err().contains("BestAvailability"));
    }
}
