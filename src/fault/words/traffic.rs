//! The words of faults that are done to frames: whose, which, and what happens to them.

use super::{Kind, Target, Words};
use crate::error::Result;
use crate::fabric::groups::{self, Direction, Flow, Topology};
use crate::fabric::{Effect, Flap, Match, Proto, nonsense};
use crate::fault::{Traffic, TrafficKind};
use crate::spec::Lab;
use std::fmt::Display;
use std::str::FromStr;

impl Words {
    /// Checks what can be checked without a lab.
    pub(super) fn check_traffic(&self, kind: TrafficKind) -> Result<()> {
        self.direction()?;
        self.frames(None)?;
        self.effect(kind)?;
        self.seed()?;
        self.sides()?;
        let two = self.between()?;
        if kind.needs_target() {
            return Ok(());
        }
        if !kind.takes_frames() {
            return match &self.on {
                Some(_) => Err(self.wrong("it hits no single machine", "leave the target out")),
                None => Ok(()),
            };
        }
        match (&self.on, two) {
            (Some(_), Some(_)) => Err(self.wrong("it has both a target and `between`", "leave one of them out")),
            (None, None) if self.list("network").is_none() => Err(self.wrong(
                format!(
                    "nothing says what is {}",
                    if kind == TrafficKind::Cut { "cut" } else { "hit" }
                ),
                "name a machine or role, two of them with `between`, or a network",
            )),
            (None, None) if self.direction()? != Direction::Both => Err(self.wrong(
                "a whole network has no direction",
                "name a machine or role, or two of them with `between`",
            )),
            _ => Ok(()),
        }
    }

    /// What it is in this lab.
    pub(super) fn traffic(
        &self,
        kind: TrafficKind,
        lab: &Lab,
        on: Option<Target>,
        who: &dyn Fn(&str) -> Result<Target>,
    ) -> Result<Traffic> {
        let two = match self.between()? {
            Some([a, b]) => Some([who(a)?, who(b)?]),
            None => None,
        };
        let side = |names: Vec<&str>| names.into_iter().map(who).collect();
        let sides: Vec<Vec<Target>> = self.sides()?.into_iter().map(side).collect::<Result<_>>()?;
        let direction = self.direction()?;
        let matches = match kind {
            TrafficKind::CutWitness => groups::witness(),
            _ => self.frames(Some(lab))?,
        };
        Ok(Traffic {
            flows: self.flows(kind, lab, on.as_ref(), two.as_ref(), &sides)?,
            on,
            between: two,
            sides,
            direction,
            matches,
            effect: self.effect(kind)?,
            seed: self.seed()?,
        })
    }

    fn flows(
        &self,
        kind: TrafficKind,
        lab: &Lab,
        on: Option<&Target>,
        two: Option<&[Target; 2]>,
        sides: &[Vec<Target>],
    ) -> Result<Vec<Flow>> {
        let topology = Topology::of(lab);
        let (named, direction) = (self.list("network").unwrap_or_default(), self.direction()?);
        match (kind, on, two) {
            (TrafficKind::CutWitness, Some(t), _) => {
                let host = lab.witness().ok_or_else(|| {
                    self.wrong(
                        "the lab has no share `witness`",
                        "cut it off from a machine with `cut between=a,b`",
                    )
                })?;
                topology.between(&t.node, host, direction, &named)
            }
            (TrafficKind::Partition, ..) => {
                let names = |side: &Vec<Target>| side.iter().map(|t| t.node.clone()).collect();
                topology.partition(&sides.iter().map(names).collect::<Vec<_>>(), &named)
            }
            (_, Some(t), _) => topology.isolate(&t.node, direction, &named),
            (_, None, Some([a, b])) => topology.between(&a.node, &b.node, direction, &named),
            (_, None, None) => topology.switch_dead(&named),
        }
    }

    /// What happens to the frames.
    fn effect(&self, kind: TrafficKind) -> Result<Effect> {
        let mut e = Effect::default();
        match kind {
            TrafficKind::Loss => (e.loss, e.burst) = (self.needed("loss")?, self.value("burst")?),
            TrafficKind::Delay => {
                (e.delay, e.jitter) = (self.needed("delay")?, self.value("jitter")?);
                e.distribution = self.value("distribution")?;
            }
            TrafficKind::Duplicate => e.duplicate = self.needed("duplicate")?,
            TrafficKind::Reorder => (e.reorder, e.delay) = (self.needed("reorder")?, self.needed("delay")?),
            TrafficKind::Rate => (e.rate, e.queue) = (self.needed("rate")?, self.value("queue")?),
            TrafficKind::Mtu => e.mtu = self.needed("mtu")?,
            TrafficKind::Corrupt => {
                (e.corrupt, e.mend) = (self.needed("corrupt")?, self.value("mend")?.unwrap_or(false))
            }
            TrafficKind::Flap => {
                let (down, up) = (self.needed("down")?, self.needed("up")?);
                e.flap = down.zip(up).map(|(down, up)| Flap { down, up });
            }
            _ => e.cut = true,
        }
        match nonsense(&e) {
            Some(why) => Err(self.wrong(why, "docs/fabric.md has every effect with its bounds")),
            None => Ok(e),
        }
    }

    /// The value of a parameter that cannot be left out.
    fn needed<T: FromStr<Err: Display>>(&self, name: &str) -> Result<Option<T>> {
        match self.value(name)? {
            None => Err(self.missing(name)),
            some => Ok(some),
        }
    }

    fn seed(&self) -> Result<Option<u64>> {
        self.value("seed")
    }

    pub(super) fn between(&self) -> Result<Option<[&str; 2]>> {
        match self.list("between").as_deref() {
            None => Ok(None),
            Some(&[a, b]) if a == b => Err(self.wrong(format!("both are {a}"), "name two machines")),
            Some(&[a, b]) if !a.is_empty() && !b.is_empty() => Ok(Some([a, b])),
            Some(_) => Err(self.wrong("`between` is not two machines", "write between=a,b")),
        }
    }

    pub(super) fn sides(&self) -> Result<Vec<Vec<&str>>> {
        if self.kind != Kind::Traffic(TrafficKind::Partition) {
            return Ok(Vec::new());
        }
        let wrong = |seen: &str| Err(self.wrong(seen, "write sides=a/b,hub"));
        let Some(text) = self.parameters.get("sides") else {
            return wrong("nothing says who is on which side");
        };
        let sides: Vec<Vec<&str>> = text.split('/').map(|s| s.split(',').map(str::trim).collect()).collect();
        if sides.len() < 2 || sides.iter().flatten().any(|n| n.is_empty()) {
            return wrong("`sides` are not two sides or more, with somebody on each");
        }
        Ok(sides)
    }

    fn direction(&self) -> Result<Direction> {
        match self.parameters.get("direction").map(String::as_str) {
            None | Some("both") => Ok(Direction::Both),
            Some("in") => Ok(Direction::In),
            Some("out") => Ok(Direction::Out),
            Some(other) => Err(self.wrong(
                format!("`{}` is no direction", other.escape_debug()),
                "it is both, in or out",
            )),
        }
    }

    /// Which frames; a name as address is looked up in the lab, where there is one.
    fn frames(&self, lab: Option<&Lab>) -> Result<Match> {
        let text = |name| self.parameters.get(name).map(|t| t.trim());
        let wrong =
            |what: &str, t: &str, help: &str| Err(self.wrong(format!("`{}` is no {what}", t.escape_debug()), help));
        let mut m = Match::default();
        m.proto = match text("proto") {
            None => None,
            Some("tcp") => Some(Proto::Tcp),
            Some("udp") => Some(Proto::Udp),
            Some("icmp") => Some(Proto::Icmp),
            Some(other) => return wrong("protocol", other, "it is tcp, udp or icmp"),
        };
        m.port = match text("port").map(|p| (p, p.parse::<u16>())) {
            None => None,
            Some((_, Ok(port))) if port > 0 && m.proto != Some(Proto::Icmp) => Some(port),
            Some((t, _)) => return wrong("port", t, "it is a number from 1 to 65535, of tcp or udp"),
        };
        m.ethertype = match text("ethertype") {
            None => None,
            Some(t) => match ethertype(t) {
                Some(n) => Some(n),
                None => {
                    return wrong(
                        "ethertype",
                        t,
                        "it is arp, ipv4, ipv6 or a number from 0x0600 to 0xffff",
                    );
                }
            },
        };
        m.address = match (text("address"), lab) {
            (Some(t), Some(lab)) => match address(lab, t) {
                Some(a) => Some(a),
                None => {
                    let names = lab.runtime.iter().flat_map(|r| r.endpoints().map(|e| e.name.as_str()));
                    let known: Vec<&str> = std::iter::once("an IPv4 address").chain(names).collect();
                    return wrong("address", t, &format!("it is {}", known.join(", ")));
                }
            },
            _ => None,
        };
        Ok(m)
    }
}

fn ethertype(text: &str) -> Option<u16> {
    match text {
        "arp" => return Some(0x0806),
        "ipv4" => return Some(0x0800),
        "ipv6" => return Some(0x86dd),
        _ => {}
    }
    let n = match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16),
        None => text.parse(),
    };
    // Below are lengths (IEEE 802.3).
    n.ok().filter(|n| *n >= 0x0600)
}

fn address(lab: &Lab, text: &str) -> Option<std::net::Ipv4Addr> {
    let endpoint = |r: &crate::spec::Runtime| r.endpoints().find(|e| e.name.as_str() == text).cloned();
    text.parse()
        .ok()
        .or_else(|| lab.runtime.as_ref().and_then(endpoint).map(|e| e.address))
}
