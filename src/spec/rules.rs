//! Everything that must hold in a lab file: one table, used by the check, by `on-purpose`, by the tests and by
//! `docs/lab-file.md`.

use super::raw::LabFile;
use super::{Context, Finding, Lab, Severity, checks, known};

/// Memory is the host's business, not the file's: see [`super::parse`].
pub(super) const NOT_ENOUGH_MEMORY: &str = "not-enough-memory";

/// One thing that must hold.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Printed with every finding; what `on-purpose` names. Stable.
    pub id: &'static str,
    /// What it finds.
    pub finds: &'static str,
    /// Why that is wrong.
    pub why: &'static str,
    /// Whether `on-purpose` can turn it into a warning.
    pub waivable: bool,
    /// How it is found; rules about the shape of the file are found while it is read.
    check: Option<fn(&View<'_>) -> Vec<Finding>>,
}

/// What the checks look at.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// The file as written.
    pub file: &'a LabFile,
    /// The same, resolved; what does not exist is left out.
    pub lab: &'a Lab,
    /// What it is checked against.
    pub context: &'a Context,
}

const fn shape(id: &'static str, finds: &'static str, why: &'static str) -> Rule {
    Rule {
        id,
        finds,
        why,
        waivable: false,
        check: None,
    }
}

const fn must(id: &'static str, check: fn(&View<'_>) -> Vec<Finding>, finds: &'static str, why: &'static str) -> Rule {
    Rule {
        id,
        finds,
        why,
        waivable: false,
        check: Some(check),
    }
}

const fn should(
    id: &'static str,
    check: fn(&View<'_>) -> Vec<Finding>,
    finds: &'static str,
    why: &'static str,
) -> Rule {
    Rule {
        waivable: true,
        ..must(id, check, finds, why)
    }
}

/// All rules: first the shape of the file, then references, then what makes sense.
pub const RULES: &[Rule] = &[
    shape(
        "syntax",
        "text that is no TOML, or a key that is there twice",
        "nothing in it can be trusted",
    ),
    shape(
        "unknown-key",
        "a key that no lab file has",
        "a misspelt key would silently leave its default",
    ),
    shape("missing-key", "a key that must be there", "there is no default for it"),
    shape(
        "bad-value",
        "a value of another type, a wrong unit, a name with other letters",
        "it means nothing",
    ),
    must(
        "unsupported-schema",
        checks::unsupported_schema,
        "`schema` other than 1",
        "the keys may mean something else",
    ),
    must(
        "reserved-name",
        checks::reserved_name,
        "a network `mgmt`, a node `workstation` or `localhost`",
        "the tool and every guest use these names themselves",
    ),
    must(
        "duplicate-disk",
        checks::duplicate_disk,
        "two disks of one name in one machine",
        "both would be the same file",
    ),
    must(
        "boot-disk-name",
        checks::boot_disk_name,
        "a disk of a machine's own named `root`",
        "the disk that the machine boots from has this name: both would be the same file",
    ),
    must(
        "listed-twice",
        checks::listed_twice,
        "a name that is in one list twice",
        "the second one says nothing",
    ),
    must(
        "unknown-network",
        checks::unknown_network,
        "a node on a network that the file does not have, or an address on one that the node is not on",
        "there is nothing to plug it into",
    ),
    must(
        "unknown-node",
        checks::unknown_node,
        "a share, a shared disk, a probe or an `after` that names a node which the file does not have",
        "there is no such machine",
    ),
    must(
        "circle-of-waiting",
        checks::circle_of_waiting,
        "machines that wait for each other by `after`, or one for itself",
        "none of them would ever be begun",
    ),
    must(
        "file-without-text",
        checks::file_without_text,
        "a file with both of `text` and `template`, or with neither",
        "it is not known what stands in it",
    ),
    must(
        "bad-template",
        checks::bad_template,
        "a file's template that is none, or that asks for what no template sees",
        "it cannot be filled in",
    ),
    must(
        "bad-health",
        checks::bad_health,
        "an expression of `[health]` that is none, or that asks for a probe or a machine that it does not have; nothing that must hold",
        "it would never be known whether the lab is healthy",
    ),
    must(
        "health-of-a-runtime",
        checks::health_of_a_runtime,
        "`[health]` in a lab with a runtime",
        "its runtime pack says what healthy means",
    ),
    must(
        "unknown-image",
        checks::unknown_image,
        "an image without a recipe",
        "it cannot be built",
    ),
    must(
        "unknown-runtime",
        checks::unknown_runtime,
        "a runtime without a pack",
        "it cannot be deployed",
    ),
    must(
        "moving-addresses",
        checks::moving_addresses,
        "a runtime whose cluster and service move with their addresses, without them; one that moves none, with them",
        "clients find the one by its address; the other has nothing that would answer there",
    ),
    must(
        "role-of-another-pack",
        checks::role_of_another_pack,
        "a role that the runtime's pack does not have",
        "nothing of the pack would be on that machine",
    ),
    must(
        "unknown-setting",
        checks::unknown_setting,
        "a setting that the pack does not declare",
        "a misspelt setting would silently leave its default",
    ),
    must(
        "bad-setting",
        checks::bad_setting,
        "a setting with a value of another type or below its smallest",
        "the runtime could not use it",
    ),
    must(
        "unknown-rule",
        checks::unknown_rule,
        "an id in `on-purpose` that no rule and no check of preflight has, or of a rule that cannot be broken on purpose",
        "it would turn nothing into a warning",
    ),
    must(
        "no-machines",
        checks::no_machines,
        "a lab without a node",
        "there is nothing to bring up",
    ),
    must(
        "different-images",
        checks::different_images,
        "machines with different images",
        "the image of a lab is one recipe with all packages that its machines and its runtime want",
    ),
    must(
        "too-many",
        checks::too_many,
        "more than 254 networks or nodes",
        "the scheme of Ethernet addresses has room for so many",
    ),
    must(
        "unusable-subnet",
        checks::unusable_subnet,
        "a subnet of loopback, multicast or reserved addresses, or one that meets 10.0.2.0/24",
        "guests cannot use them; the last is that of the tool's own port",
    ),
    must(
        "mtu-out-of-range",
        checks::mtu_out_of_range,
        "an mtu outside 576 to 9000",
        "IPv4 and the fabric's frames have these bounds",
    ),
    must(
        "role-without-network",
        checks::role_without_network,
        "a member or hub on no network",
        "no other machine can reach it",
    ),
    must(
        "share-host-without-role",
        checks::share_host_without_role,
        "a share on a machine that is neither member nor hub",
        "the runtime pack goes to members and hubs only: no machine would serve it",
    ),
    should(
        "too-small",
        checks::too_small,
        "a machine with less than 128 MiB, a disk of less than 1 MiB",
        "the guest's kernel does not start with less; a file system does not fit",
    ),
    should(
        "duplicate-name",
        checks::duplicate_name,
        "a node, the cluster and the service with the same name",
        "the hosts file would lead to one of them only",
    ),
    should(
        "duplicate-address",
        checks::duplicate_address,
        "two machines with one address",
        "they answer for each other",
    ),
    should(
        "address-taken",
        checks::address_taken,
        "an address that equals that of the cluster, the service or the workstation",
        "they answer for each other",
    ),
    should(
        "address-outside-subnet",
        checks::address_outside_subnet,
        "an address outside the subnet of its network; a cluster or service address in no subnet that every member is on",
        "no route leads to it",
    ),
    should(
        "overlapping-subnets",
        checks::overlapping_subnets,
        "two networks that share addresses",
        "a guest on both sends to one of them only",
    ),
    should(
        "network-without-members",
        checks::network_without_members,
        "a network that no machine is on",
        "it carries nothing",
    ),
    should(
        "shared-disk-needs-two",
        checks::shared_disk_needs_two,
        "a shared disk in fewer than two machines",
        "no other machine shares it",
    ),
    should(
        "share-without-runtime",
        checks::share_without_runtime,
        "a share in a lab without a runtime",
        "the runtime pack sets up the file server: no machine would serve it",
    ),
    should(
        "role-count",
        checks::role_count,
        "more or fewer machines of a role than the runtime's pack is made for",
        "its majority, or who is left after a failure, is another one",
    ),
    should(
        "ccr-needs-two-members",
        checks::ccr_needs_two_members,
        "`ccr` with one member, or with three and more",
        "continuous replication has one active and one passive node, and the file share witness counts only for two",
    ),
    should(
        "ccr-needs-hub",
        checks::ccr_needs_hub,
        "`ccr` without a hub",
        "nothing takes mail in or delivers it again after a lossy failover",
    ),
    should(
        "ccr-without-witness",
        checks::ccr_without_witness,
        "`ccr` without a share named `witness`",
        "the majority of two votes is two: any single loss stops the cluster",
    ),
    should(
        "witness-on-member",
        checks::witness_on_member,
        "the witness share on a member",
        "two of three votes fail together with that member",
    ),
    should(
        "shared-disk-under-ccr",
        checks::shared_disk_under_ccr,
        "a shared disk in a member of `ccr`",
        "each node has storage of its own there; a shared disk is one point of failure and belongs to another kind of cluster",
    ),
    should(
        "one-heartbeat-network",
        checks::one_heartbeat_network,
        "members of `ccr` with fewer than two networks in common that may carry heartbeats",
        "the loss of one cable looks like the loss of a member",
    ),
    should(
        "internal-network-first",
        checks::internal_network_first,
        "a member of `ccr` whose first network is internal, though it is on another one",
        "its name leads to an address that clients cannot reach",
    ),
    should(
        "no-data-disk",
        checks::no_data_disk,
        "a member of `ccr` without a disk named `data`",
        "its data fills the disk of the system, and a full one stops both",
    ),
    should(
        "dumpster-too-small",
        checks::dumpster_too_small,
        "a dumpster that holds less than the logs that the dial tolerates to lose, or nothing at all",
        "what a lossy failover loses cannot be delivered again",
    ),
    should(
        "automatic-failback",
        checks::automatic_failback,
        "`failback`: the service moves back by itself",
        "each failure has a second outage, at a moment that nobody chose",
    ),
    should(
        "one-shipping-network",
        checks::one_shipping_network,
        "logs that travel over the service's network only",
        "what the clients send delays the copy just when much is written",
    ),
    should(
        NOT_ENOUGH_MEMORY,
        checks::not_enough_memory,
        "machines with more memory than this host can give",
        "the host would swap, or kill one of them",
    ),
];

/// The rule of this id.
pub fn rule(id: &str) -> Option<&'static Rule> {
    RULES.iter().find(|r| r.id == id)
}

/// Every finding of every rule, in the file's order; rules named in `on-purpose` warn.
pub fn check(view: &View<'_>) -> Vec<Finding> {
    let on_purpose = |rule: &Rule| rule.waivable && view.file.on_purpose.iter().any(|id| id.value == rule.id);
    let mut findings = Vec::new();
    for rule in RULES {
        for mut finding in rule.check.map(|check| check(view)).unwrap_or_default() {
            finding.rule = rule.id;
            if on_purpose(rule) {
                finding.severity = Severity::Warning;
            } else if rule.waivable {
                let hint = format!("a lab that wants it so says `on-purpose = [\"{}\"]`", rule.id);
                finding.help = Some(finding.help.map_or(hint.clone(), |help| format!("{help}\n{hint}")));
            }
            findings.push(finding);
        }
    }
    findings.sort_by_key(Finding::start);
    findings
}

/// Ids that `on-purpose` takes.
pub(super) fn waivable(written: &str, checks: &[&'static str]) -> String {
    let rules = RULES.iter().filter(|r| r.waivable).map(|r| r.id);
    known(written, rules.chain(checks.iter().copied()))
}
