//! Every check of preflight: one table, used by the judge, by `on-purpose`, by the tests and by docs/mutations.md.

mod machines;
mod networks;
mod runtime;

use super::facts::Facts;

/// One thing that must be so in a lab.
#[derive(Debug, Clone, Copy)]
pub struct Check {
    /// Printed with every finding; what `on-purpose` names. Stable.
    pub id: &'static str,
    /// What it finds.
    pub finds: &'static str,
    /// Why it matters at the next failure.
    pub why: &'static str,
    /// How it is mended.
    pub remedy: &'static str,
    /// How it is found.
    pub(super) judge: fn(&Facts<'_>) -> Vec<Seen>,
}

/// What a check saw. It does not know its own id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub on: String,
    pub what: String,
    pub unknown: bool,
}

/// It is wrong.
fn wrong(on: impl Into<String>, what: impl Into<String>) -> Seen {
    Seen {
        on: on.into(),
        what: what.into(),
        unknown: false,
    }
}

/// It could not be looked at.
fn unknown(on: impl Into<String>, what: impl Into<String>) -> Seen {
    Seen {
        unknown: true,
        ..wrong(on, what)
    }
}

/// Ids of all checks.
pub fn ids() -> Vec<&'static str> {
    CHECKS.iter().map(|c| c.id).collect()
}

macro_rules! checks {
    ($($id:literal $judge:path: $finds:literal, $why:literal, $remedy:literal;)*) => {
        /// All checks: machines, then networks, then what runs on them.
        pub const CHECKS: &[Check] = &[$(Check { id: $id, finds: $finds, why: $why, remedy: $remedy, judge: $judge }),*];
    };
}

checks! {
    "not-seen" machines::not_seen:
        "a machine, or a part of it, that could not be looked at",
        "what was not looked at may be anything",
        "see `failoverlab status` and `failoverlab console`, then try again";
    "machine-id" machines::machine_id:
        "two machines with one machine id, or a machine without one",
        "what tells machines apart takes them for one: leases, logs, names of the node's files",
        "remove /etc/machine-id on the copy, run `systemd-machine-id-setup`, restart the machine";
    "mounted-twice" machines::mounted_twice:
        "one file system that two machines have mounted",
        "each keeps a cache of its own and overwrites the other's work: the data is lost while all looks well",
        "unmount it on one of them; give each member storage of its own";
    "data-on-boot-disk" machines::data_on_boot_disk:
        "the runtime's data on the disk that the machine boots from, though it has one for it",
        "the disk that should hold it is not mounted: what is written now is gone when it is, and a full disk stops the system as well",
        "mount the disk (`systemctl start data.mount`), restart the runtime";
    "space" machines::space:
        "too little room for the logs that an outage of the other member keeps",
        "logs cannot be removed while the copy is away: the disk fills and the service dismounts",
        "give the node a larger disk, or remove what fills it";
    "clock" machines::clock:
        "clocks of two machines that are further apart than a heartbeat",
        "logs of two nodes cannot be read together, and all that carries a time expires too early or too late",
        "set both to the same source of time";
    "packages" machines::packages:
        "members with other packages or versions of them",
        "what is missing is only missed after a failover",
        "install the same on both";
    "configuration" machines::configuration:
        "a file of the runtime that is not what the lab file makes of it",
        "the node will do something else than its peer expects, or will when it starts again",
        "write it as it was (`down`, then `up`), or put the change into the lab file";
    "watchdog" machines::watchdog:
        "a runtime that may hang without an end",
        "who hangs keeps what it holds: the other one cannot take over, or both serve",
        "set WatchdogSec in the unit, below the time in which the other one takes over";
    "same-mac" networks::same_mac:
        "a port with another Ethernet address than its own, or one that two machines have",
        "switches send frames for the one to the other, now here, now there",
        "give each port its own Ethernet address";
    "addresses" networks::addresses:
        "a port without its address, with another prefix, or with one that is nobody's",
        "the service's address does not work there after a failover, or two answer for one",
        "set the address of the lab file (`networkctl reconfigure`)";
    "route" networks::route:
        "a route that does not belong: a gateway on a network of the lab, a subnet through the wrong port",
        "answers leave through a network that is not meant for them, and are lost with it",
        "remove the route (`ip route del`)";
    "mtu" networks::mtu:
        "a port with another largest packet than its network, or large packets that do not arrive",
        "heartbeats and probes are small and arrive, logs and mail do not: the copy falls behind and nobody knows why",
        "set the same MTU on every port of the network";
    "path" networks::path:
        "a path between two machines that carries nothing, or nothing in one direction",
        "the path that should carry on after the next cut is cut already",
        "see cable and packet filter of both ends";
    "names" networks::names:
        "a name that leads to another address than the lab file says",
        "whoever looks it up after a failover ends at an address that it cannot reach",
        "correct the entry in /etc/hosts or in the name service";
    "squatter" networks::squatter:
        "somebody else who answers for the address of the cluster or the service",
        "neighbours believe whoever answers first: a part of the clients is with the wrong one",
        "take the address from the other machine";
    "no-runtime" runtime::no_runtime:
        "a node whose runtime does not answer",
        "it cannot take over, give its vote or tell that it is ill",
        "see `failoverlab logs` and `systemctl status` on the node";
    "members" runtime::members:
        "a cluster without one of its members, or a member that another one does not see",
        "there is nobody to take over",
        "start the runtime on the missing member, or `join` it";
    "witness-not-in-force" runtime::witness_not_in_force:
        "a witness in force that is not the configured one",
        "the configuration looks right and the vote is elsewhere: the next lost node stops the cluster",
        "take the Cluster Group offline and online again, or move it";
    "witness-unreachable" runtime::witness_unreachable:
        "a member that cannot reach the witness share",
        "the third vote is gone and nothing shows it until a node is lost",
        "start the file server, and see the path to it";
    "witness-rights" runtime::witness_rights:
        "a member that reaches the witness share and may not lock, write or delete there",
        "it is noticed when the vote is needed",
        "give the cluster's account full control on the share and on its folder";
    "no-witness" runtime::no_witness:
        "two members in force without a witness",
        "the majority of two is two: the loss of either stops the cluster",
        "add a share `witness` on a third machine";
    "one-heartbeat-path" runtime::one_heartbeat_path:
        "fewer than two networks in force that carry heartbeats between the members",
        "one cut looks like the loss of a node, and the witness decides about two healthy ones",
        "give a second network the role `mixed` or `internal`";
    "owner-elsewhere" runtime::owner_elsewhere:
        "the Cluster Group on the passive node while only one network carries heartbeats",
        "when that network is cut the quorum's owner wins: a healthy service moves",
        "move the Cluster Group to the active node";
    "service-offline" runtime::service_offline:
        "a service or group that is not Online",
        "clients have nobody to talk to, and what is not online fails over to nowhere",
        "start it, and see why it is not (`status`)";
    "copy" runtime::copy:
        "a copy that is not Healthy: suspended, failed, stopped",
        "a failover now loses what was not copied, and the active node's logs fill its disk",
        "resume or reseed the copy";
    "settings" runtime::settings:
        "a setting in force that is not that of the lab file",
        "a running cluster keeps what an operator set; the file says something else, and so does a new one",
        "set it back (`operate set`), or put it into the lab file";
    "versions" runtime::versions:
        "nodes with other versions of the runtime",
        "what one writes the other may not read when it takes over",
        "deploy the same program to all nodes";
}
