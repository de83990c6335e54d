//! `forward`: a lab address on a loopback port, so that a person's own mail program works through a failover.

use super::target::{LabArg, running};
use super::{Ended, on_interrupt, output, unknown};
use crate::error::{Error, Problem, Result};
use crate::fabric::Forward;
use crate::files::Home;
use crate::lab::client::Client;
use crate::spec::Lab;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

/// How long the lab may take to answer a connection.
const CONNECT: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The lab (as for the other verbs)
    lab: String,
    /// Port on 127.0.0.1, where to, and its port: `8025:exmbx:25`. WHERE is a node, the service, the cluster or an address
    #[arg(value_name = "PORT:WHERE:PORT", required = true)]
    forwards: Vec<Spec>,
    /// Print where it listens as JSON
    #[arg(long)]
    json: bool,
}

/// `8025:exmbx:25`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Spec {
    listen: u16,
    name: String,
    port: u16,
}

impl std::str::FromStr for Spec {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let parsed = || {
            let (listen, rest) = s.split_once(':')?;
            let (name, port) = rest.rsplit_once(':')?;
            let port = port.parse().ok().filter(|p| *p > 0)?;
            let (listen, name) = (listen.parse().ok()?, name.to_owned());
            (!name.is_empty()).then_some(Spec { listen, name, port })
        };
        parsed().ok_or_else(|| "write it like 8025:exmbx:25; a first port of 0 is any free one".to_owned())
    }
}

pub fn run(home: &Home, args: Args) -> Ended {
    let lab = running(home, &LabArg { lab: Some(args.lab) })?;
    let spec = &lab.record.desired.lab;
    let to = |f: &Spec| Ok(SocketAddrV4::new(address(spec, &f.name)?, f.port));
    let targets: Vec<SocketAddrV4> = args.forwards.iter().map(to).collect::<Result<_>>()?;
    let mut open = Vec::new();
    for (f, to) in args.forwards.iter().zip(targets) {
        let (home, instance) = (home.clone(), lab.instance.clone());
        // A supervisor that died is replaced by the first connection that needs it.
        let dial = move || {
            Ok(Client::find_or_start(&home, &instance)?
                .dial(to, CONNECT)?
                .into_halves())
        };
        let forward = Forward::start(f.listen, Arc::new(dial))?;
        if args.json {
            output::json(&serde_json::json!({"listen": forward.address(), "to": to, "name": f.name}))?;
        } else {
            output::text_out(&format!("{} leads to {} ({to})", forward.address(), f.name))?;
        }
        open.push(forward);
    }
    let (interrupted, wait) = channel();
    on_interrupt(move || {
        let _ = interrupted.send(());
    })?;
    // The interrupt's thread lives as long as the process: this ends by Ctrl-C only.
    let _ = wait.recv();
    let (served, failed) = open
        .iter()
        .map(Forward::counts)
        .fold((0, 0), |(a, b), (c, d)| (a + c, b + d));
    output::remark(&format!("{served} connections carried, {failed} found nobody"));
    Ok(0)
}

/// What a name stands for in the lab: a node's first address, the service's, the cluster's, or the address itself.
fn address(lab: &Lab, name: &str) -> Result<Ipv4Addr> {
    if let Ok(address) = name.parse::<Ipv4Addr>() {
        if lab.networks.iter().any(|n| n.subnet.has_host(address)) {
            return Ok(address);
        }
        let subnets = lab.networks.iter().map(|n| format!("{} {}", n.name, n.subnet));
        return Err(Error::Usage(
            Problem::new("forward a port")
                .on(address)
                .observed("it is on none of the lab's networks")
                .remedy(format!("networks: {}", subnets.collect::<Vec<_>>().join(", "))),
        ));
    }
    let endpoints = lab.runtime.iter().flat_map(|r| r.endpoints());
    let nodes = lab
        .nodes
        .iter()
        .filter_map(|n| Some((n.name.as_str(), n.nics.first()?.address)));
    let known: Vec<(&str, Ipv4Addr)> = endpoints.map(|e| (e.name.as_str(), e.address)).chain(nodes).collect();
    match known.iter().find(|(n, _)| *n == name) {
        Some((_, address)) => Ok(*address),
        None => Err(unknown(
            "address",
            name,
            known.iter().map(|(n, a)| format!("{n} ({a})")),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec;

    #[test]
    fn names_of_the_lab_are_addresses() {
        let lab = spec::example("ccr");
        let runtime = lab.runtime.as_ref().unwrap();
        assert_eq!(
            address(&lab, &runtime.service.as_ref().unwrap().name).unwrap(),
            runtime.service.as_ref().unwrap().address
        );
        let node = &lab.nodes[0];
        assert_eq!(address(&lab, &node.name).unwrap(), node.nics[0].address);
        assert_eq!(address(&lab, "10.77.1.99").unwrap(), Ipv4Addr::new(10, 77, 1, 99));
        for (bad, known) in [("exmby", "exmbx (10.77.1.21)"), ("192.0.2.1", "public 10.77.1.0/24")] {
            let e = address(&lab, bad).unwrap_err();
            assert_eq!(e.exit_code(), 2);
            assert!(format!("{:?}", e.problem()).contains(known), "{e:?}");
        }
    }

    #[test]
    fn a_forward_is_three_words() {
        let spec = |listen, name: &str, port| {
            Ok(Spec {
                listen,
                name: name.into(),
                port,
            })
        };
        assert_eq!("8025:exmbx:25".parse(), spec(8025, "exmbx", 25));
        assert_eq!("0:10.77.1.21:25".parse(), spec(0, "10.77.1.21", 25));
        for bad in [
            "",
            "25",
            "8025:exmbx",
            "x:exmbx:25",
            "8025::25",
            "8025:exmbx:0",
            "8025:exmbx:70000",
            "-1:a:1",
        ] {
            assert!(bad.parse::<Spec>().is_err(), "{bad}");
        }
    }
}
