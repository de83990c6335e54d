//! Every rule fires once and stays quiet once, close by.

use super::super::rules::{RULES, rule};
use super::super::*;
use super::example_context;
use std::collections::BTreeSet;

/// A lab that holds; each case changes a word of it.
const BASE: &str = r#"schema = 1
name = "base"
on-purpose = []

[defaults]
memory = "256 MiB"

[networks.public]
subnet = "10.77.1.0/24"
role = "mixed"
[networks.private]
subnet = "10.77.2.0/24"
role = "internal"

[nodes.node1]
role = "member"
networks = ["public", "private"]
disks = [{ name = "data", size = "1 GiB" }]
[nodes.node2]
role = "member"
networks = ["public", "private"]
disks = [{ name = "data", size = "8 MiB" }]
[nodes.hub]
role = "hub"
networks = ["public"]

[shares.witness]
host = "hub"

[runtime]
kind = "ccr"
cluster = { name = "cl", address = "10.77.1.20" }
service = { name = "mbx", address = "10.77.1.21" }
[runtime.settings]
heartbeat = "1 s"
"#;

type Edit = (&'static str, &'static str);

struct Case {
    rule: &'static str,
    /// Breaks the rule and no other.
    fires: &'static [Edit],
    /// Comes close and breaks none.
    quiet: &'static [Edit],
}

const HUB_DISK: Edit = (
    "[shares.witness]",
    "[disks.q]\nsize = \"1 MiB\"\nshared-by = [\"hub\", \"x\"]\n[nodes.x]\n[shares.witness]",
);
const NO_RUNTIME: Edit = (
    "[runtime]\nkind = \"ccr\"\ncluster = { name = \"cl\", address = \"10.77.1.20\" }\nservice = { name = \"mbx\", address = \"10.77.1.21\" }\n[runtime.settings]\nheartbeat = \"1 s\"\n",
    "",
);
const HEALTH: Edit = (
    NO_RUNTIME.0,
    "[health]\nmust = [\"web.hub.status == 0\"]\nwithin = \"20 s\"\nprobes.web = { run = [\"true\"], on = [\"hub\", \"node1\"] }\n",
);
/// Another pack, whose third machine is an arbiter.
const SENTINEL: Edit = (
    "[nodes.hub]\nrole = \"hub\"\nnetworks = [\"public\"]\n\n\n[runtime]\nkind = \"ccr\"\ncluster = { name = \"cl\", address = \"10.77.1.20\" }\nservice = { name = \"mbx\", address = \"10.77.1.21\" }\n[runtime.settings]\nheartbeat = \"1 s\"\n",
    "[nodes.hub]\nrole = \"arbiter\"\nnetworks = [\"public\"]\n[runtime]\nkind = \"sentinel\"\n",
);
const NO_SHARE: Edit = ("[shares.witness]\nhost = \"hub\"\n", "");

const CASES: &[Case] = &[
    Case {
        rule: "syntax",
        fires: &[("name = \"base\"", "name = \"base")],
        quiet: &[("name = \"base\"", "name = 'base'")],
    },
    Case {
        rule: "unknown-key",
        fires: &[("memory =", "memroy =")],
        quiet: &[("memory =", "vcpus = 2\nmemory =")],
    },
    Case {
        rule: "missing-key",
        fires: &[("subnet = \"10.77.2.0/24\"\n", "")],
        quiet: &[("role = \"internal\"\n", "")],
    },
    Case {
        rule: "bad-value",
        fires: &[("256 MiB", "256 megs")],
        quiet: &[("256 MiB", "256MiB")],
    },
    Case {
        rule: "unsupported-schema",
        fires: &[("schema = 1", "schema = 2")],
        quiet: &[("schema = 1", "schema = 0x1")],
    },
    Case {
        rule: "reserved-name",
        fires: &[("[shares.witness]", "[nodes.workstation]\n[shares.witness]")],
        quiet: &[("[shares.witness]", "[nodes.workstation2]\n[shares.witness]")],
    },
    Case {
        rule: "duplicate-disk",
        fires: &[(
            "size = \"1 GiB\" }",
            "size = \"1 GiB\" }, { name = \"data\", size = \"2 GiB\" }",
        )],
        quiet: &[(
            "size = \"1 GiB\" }",
            "size = \"1 GiB\" }, { name = \"data2\", size = \"2 GiB\" }",
        )],
    },
    Case {
        rule: "boot-disk-name",
        fires: &[(
            "size = \"1 GiB\" }",
            "size = \"1 GiB\" }, { name = \"root\", size = \"8 MiB\" }",
        )],
        quiet: &[(
            "size = \"1 GiB\" }",
            "size = \"1 GiB\" }, { name = \"root2\", size = \"8 MiB\" }",
        )],
    },
    Case {
        rule: "listed-twice",
        fires: &[("networks = [\"public\"]", "networks = [\"public\", \"public\"]")],
        quiet: &[("networks = [\"public\"]", "networks = [\"public\", \"private\"]")],
    },
    Case {
        rule: "unknown-network",
        fires: &[("networks = [\"public\"]", "networks = [\"public\", \"pubic\"]")],
        quiet: &[(
            "networks = [\"public\"]",
            "networks = [\"public\"]\naddresses = { public = \"10.77.1.99\" }",
        )],
    },
    Case {
        rule: "unknown-node",
        fires: &[("host = \"hub\"", "host = \"hup\"")],
        quiet: &[(
            "host = \"hub\"",
            "host = \"node0\"\n[nodes.node0]\nrole = \"hub\"\nnetworks = [\"public\"]",
        )],
    },
    Case {
        rule: "circle-of-waiting",
        fires: &[("networks = [\"public\"]", "networks = [\"public\"]\nafter = [\"hub\"]")],
        quiet: &[(
            "networks = [\"public\"]",
            "networks = [\"public\"]\nafter = [\"node2\", \"node1\"]",
        )],
    },
    Case {
        rule: "file-without-text",
        fires: &[(
            "role = \"hub\"",
            "role = \"hub\"\nfiles = { \"/etc/x\" = { mode = \"0600\" } }",
        )],
        quiet: &[(
            "role = \"hub\"",
            "role = \"hub\"\nfiles = { \"/etc/x\" = { mode = \"0600\", text = \"\" }, \"/etc/y\" = \"\" }",
        )],
    },
    Case {
        rule: "bad-template",
        fires: &[(
            "role = \"hub\"",
            "role = \"hub\"\nfiles = { \"/etc/x\" = { template = \"{{ nodde.name }}\" } }",
        )],
        quiet: &[(
            "role = \"hub\"",
            "role = \"hub\"\nfiles = { \"/etc/x\" = { template = \"{{ node.name }}\" } }",
        )],
    },
    Case {
        rule: "bad-health",
        fires: &[NO_SHARE, HEALTH, ("web.hub", "web.hup")],
        quiet: &[NO_SHARE, HEALTH],
    },
    Case {
        rule: "health-of-a-runtime",
        fires: &[(
            "[runtime]\n",
            "[health]\nmust = [\"web.hub.status == 0\"]\nprobes.web.run = [\"true\"]\n[runtime]\n",
        )],
        quiet: &[NO_SHARE, HEALTH],
    },
    Case {
        rule: "unknown-image",
        fires: &[("[defaults]", "[defaults]\nimage = \"debian-21\"")],
        quiet: &[("[defaults]", "[defaults]\nimage = \"debian-12\"")],
    },
    Case {
        rule: "unknown-runtime",
        fires: &[("kind = \"ccr\"", "kind = \"scc\"")],
        quiet: &[("kind = \"ccr\"", "kind = 'ccr'")],
    },
    Case {
        rule: "moving-addresses",
        fires: &[("cluster = { name = \"cl\", address = \"10.77.1.20\" }\n", "")],
        quiet: &[NO_SHARE, SENTINEL],
    },
    Case {
        rule: "role-of-another-pack",
        fires: &[
            NO_SHARE,
            SENTINEL,
            (
                "[nodes.hub]",
                "[nodes.x]\nrole = \"hub\"\nnetworks = [\"public\"]\n[nodes.hub]",
            ),
        ],
        quiet: &[NO_SHARE, SENTINEL],
    },
    Case {
        rule: "role-count",
        fires: &[NO_SHARE, SENTINEL, ("role = \"arbiter\"", "")],
        quiet: &[NO_SHARE, SENTINEL],
    },
    Case {
        rule: "unknown-setting",
        fires: &[("heartbeat = \"1 s\"", "hearbeat = \"1 s\"")],
        quiet: &[("heartbeat = \"1 s\"", "lease = \"1 s\"")],
    },
    Case {
        rule: "unknown-setting",
        fires: &[("kind = \"ccr\"", "kind = \"ccr\"\nscaled = [\"witness-lese\"]")],
        quiet: &[("kind = \"ccr\"", "kind = \"ccr\"\nscaled = [\"witness-lease\"]")],
    },
    Case {
        rule: "bad-setting",
        fires: &[("heartbeat = \"1 s\"", "heartbeat = \"9 ms\"")],
        quiet: &[("heartbeat = \"1 s\"", "heartbeat = \"10 ms\"")],
    },
    Case {
        rule: "bad-setting",
        fires: &[("kind = \"ccr\"", "kind = \"ccr\"\nscaled = [\"dial\"]")],
        quiet: &[("kind = \"ccr\"", "kind = \"ccr\"\nscaled = [\"heartbeat\"]")],
    },
    Case {
        rule: "unknown-rule",
        fires: &[("on-purpose = []", "on-purpose = [\"duplicate-adress\"]")],
        quiet: &[("on-purpose = []", "on-purpose = [\"duplicate-address\"]")],
    },
    Case {
        rule: "no-machines",
        fires: &[("schema = 1", "NOTHING")],
        quiet: &[("schema = 1", "JUST ONE")],
    },
    Case {
        rule: "different-images",
        fires: &[("role = \"hub\"", "role = \"hub\"\nimage = \"debian-13\"")],
        quiet: &[("role = \"hub\"", "role = \"hub\"\nimage = \"debian-12\"")],
    },
    Case {
        rule: "too-many",
        fires: &[("[shares.witness]", "MANY 252\n[shares.witness]")],
        quiet: &[("[shares.witness]", "MANY 251\n[shares.witness]")],
    },
    Case {
        rule: "unusable-subnet",
        fires: &[(
            "[networks.private]",
            "[networks.x]\nsubnet = \"10.0.0.0/14\"\n[nodes.x]\nnetworks = [\"x\"]\n[networks.private]",
        )],
        quiet: &[(
            "[networks.private]",
            "[networks.x]\nsubnet = \"10.0.3.0/24\"\n[nodes.x]\nnetworks = [\"x\"]\n[networks.private]",
        )],
    },
    Case {
        rule: "mtu-out-of-range",
        fires: &[("role = \"internal\"", "role = \"internal\"\nmtu = 575")],
        quiet: &[("role = \"internal\"", "role = \"internal\"\nmtu = 576")],
    },
    Case {
        rule: "role-without-network",
        fires: &[("networks = [\"public\"]", "networks = []")],
        quiet: &[("networks = [\"public\"]", "networks = [\"private\"]")],
    },
    Case {
        rule: "share-host-without-role",
        fires: &[("host = \"hub\"", "host = \"x\"\n[nodes.x]\nnetworks = [\"public\"]")],
        quiet: &[(
            "host = \"hub\"",
            "host = \"x\"\n[nodes.x]\nrole = \"hub\"\nnetworks = [\"private\"]",
        )],
    },
    Case {
        rule: "too-small",
        fires: &[("256 MiB", "127 MiB")],
        quiet: &[("256 MiB", "128 MiB"), ("1 GiB", "1 MiB")],
    },
    Case {
        rule: "duplicate-name",
        fires: &[("\"mbx\"", "\"node2\"")],
        quiet: &[("\"mbx\"", "\"node3\"")],
    },
    Case {
        rule: "duplicate-address",
        fires: &[(
            "networks = [\"public\"]",
            "networks = [\"public\"]\naddresses = { public = \"10.77.1.12\" }",
        )],
        quiet: &[(
            "networks = [\"public\"]",
            "networks = [\"public\"]\naddresses = { public = \"10.77.1.13\" }",
        )],
    },
    Case {
        rule: "address-taken",
        fires: &[("10.77.1.21", "10.77.1.10")],
        quiet: &[("10.77.1.21", "10.77.1.9")],
    },
    Case {
        rule: "address-outside-subnet",
        fires: &[(
            "networks = [\"public\"]",
            "networks = [\"public\"]\naddresses = { public = \"10.77.1.255\" }",
        )],
        quiet: &[(
            "networks = [\"public\"]",
            "networks = [\"public\"]\naddresses = { public = \"10.77.1.254\" }",
        )],
    },
    Case {
        rule: "overlapping-subnets",
        fires: &[("10.77.2.0/24", "10.77.0.0/16")],
        quiet: &[("10.77.2.0/24", "10.77.0.0/24")],
    },
    Case {
        rule: "network-without-members",
        fires: &[("[nodes.hub]", "[networks.dark]\nsubnet = \"10.77.3.0/24\"\n[nodes.hub]")],
        quiet: &[(
            "[nodes.hub]",
            "[networks.dark]\nsubnet = \"10.77.3.0/24\"\n[nodes.x]\nnetworks = [\"dark\"]\n[nodes.hub]",
        )],
    },
    Case {
        rule: "shared-disk-needs-two",
        fires: &[HUB_DISK, ("\"hub\", \"x\"", "\"x\"")],
        quiet: &[HUB_DISK],
    },
    Case {
        rule: "share-without-runtime",
        fires: &[NO_RUNTIME],
        quiet: &[NO_RUNTIME, NO_SHARE],
    },
    Case {
        rule: "ccr-needs-two-members",
        fires: &[(
            "[nodes.hub]",
            "[nodes.node3]\nrole = \"member\"\nnetworks = [\"public\"]\ndisks = [{ name = \"data\", size = \"8 MiB\" }]\n[nodes.hub]",
        )],
        quiet: &[("[nodes.hub]", "[nodes.node3]\nnetworks = [\"public\"]\n[nodes.hub]")],
    },
    Case {
        rule: "ccr-needs-hub",
        fires: &[("role = \"hub\"\n", "")],
        quiet: &[(
            "[nodes.hub]",
            "[nodes.hub2]\nrole = \"hub\"\nnetworks = [\"public\"]\n[nodes.hub]",
        )],
    },
    Case {
        rule: "ccr-without-witness",
        fires: &[("[shares.witness]", "[shares.files]")],
        quiet: &[("[shares.witness]", "[shares.files]\nhost = \"node1\"\n[shares.witness]")],
    },
    Case {
        rule: "witness-on-member",
        fires: &[("host = \"hub\"", "host = \"node2\"")],
        quiet: &[(
            "host = \"hub\"",
            "host = \"x\"\n[nodes.x]\nrole = \"hub\"\nnetworks = [\"public\"]",
        )],
    },
    Case {
        rule: "shared-disk-under-ccr",
        fires: &[HUB_DISK, ("\"hub\", \"x\"", "\"node1\", \"node2\"")],
        quiet: &[HUB_DISK],
    },
    Case {
        rule: "one-heartbeat-network",
        fires: &[("role = \"mixed\"", "role = \"client\"")],
        quiet: &[("role = \"mixed\"", "role = \"internal\"")],
    },
    Case {
        rule: "internal-network-first",
        fires: &[("[\"public\", \"private\"]", "[\"private\", \"public\"]")],
        quiet: &[
            ("[\"public\", \"private\"]", "[\"private\", \"public\"]"),
            ("\"internal\"", "\"mixed\""),
        ],
    },
    Case {
        rule: "no-data-disk",
        fires: &[("name = \"data\"", "name = \"date\"")],
        quiet: &[("[nodes.hub]", "[nodes.x]\n[nodes.hub]")],
    },
    Case {
        rule: "dumpster-too-small",
        fires: &[("heartbeat = \"1 s\"", "dumpster = \"6 MB\"")],
        quiet: &[("heartbeat = \"1 s\"", "dumpster = \"6 MiB\"")],
    },
    Case {
        rule: "dumpster-too-small",
        fires: &[("heartbeat = \"1 s\"", "dumpster-age = \"0 s\"")],
        quiet: &[(
            "heartbeat = \"1 s\"",
            "dumpster = \"3 MiB\"\ndial = \"good-availability\"",
        )],
    },
    Case {
        rule: "automatic-failback",
        fires: &[("heartbeat = \"1 s\"", "failback = true")],
        quiet: &[("heartbeat = \"1 s\"", "failback = false")],
    },
    Case {
        rule: "one-shipping-network",
        fires: &[("heartbeat = \"1 s\"", "shipping = \"service\"")],
        quiet: &[("heartbeat = \"1 s\"", "shipping = \"any\"")],
    },
    Case {
        rule: "not-enough-memory",
        fires: &[("256 MiB", "462 MiB")],
        quiet: &[("256 MiB", "461 MiB")],
    },
];

/// The base with the edits; `MANY n` stands for so many machines, `NOTHING` and `JUST ONE` for files without the rest.
fn edited(edits: &[Edit]) -> String {
    let mut text = BASE.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "nothing to edit: {from}");
        text = text.replacen(from, to, 1);
    }
    for (word, whole) in [("NOTHING", ""), ("JUST ONE", "[nodes.a]\n")] {
        if text.starts_with(word) {
            return format!("schema = 1\nname = \"base\"\non-purpose = []\n{whole}");
        }
    }
    if let Some((before, rest)) = text.split_once("MANY ") {
        let (n, after) = rest.split_once('\n').unwrap();
        let nodes: String = (0..n.parse::<u32>().unwrap())
            .map(|i| format!("[nodes.n{i}]\n"))
            .collect();
        text = format!("{before}{nodes}{after}");
    }
    text
}

/// A host with 1 GiB for machines, but for the case with hundreds of them, and two images.
fn context(case: &Case) -> Context {
    Context {
        images: ["debian-12", "debian-13"].map(|n| n.parse().unwrap()).into(),
        host_memory: (case.rule != "too-many").then_some(Size(2 << 30)),
        ..example_context()
    }
}

/// Ids of the errors and of the warnings.
fn ids(text: &str, context: &Context) -> (Vec<&'static str>, Vec<&'static str>) {
    match parse("lab.toml", text, context) {
        Ok(loaded) => (vec![], loaded.warnings.iter().map(|f| f.rule).collect()),
        Err(Error::Invalid(invalid)) => {
            let (errors, warnings): (Vec<_>, Vec<_>) =
                invalid.findings.iter().partition(|f| f.severity == Severity::Error);
            (
                errors.iter().map(|f| f.rule).collect(),
                warnings.iter().map(|f| f.rule).collect(),
            )
        }
        Err(Error::Host(_)) => (vec!["not-enough-memory"], vec![]),
        Err(e) => panic!("{e}"),
    }
}

/// Without what a case cannot but find as well: the only share of a lab without a hub has no host left.
fn without(case: &Case, mut errors: Vec<&'static str>) -> Vec<&'static str> {
    errors.retain(|id| case.rule != "ccr-needs-hub" || *id != "share-host-without-role");
    errors
}

#[test]
fn the_base_holds() {
    assert_eq!(ids(BASE, &example_context()), (vec![], vec![]));
}

#[test]
fn every_rule_fires_and_stays_quiet() {
    for case in CASES {
        let context = context(case);
        let (errors, warnings) = ids(&edited(case.fires), &context);
        assert_eq!(
            (without(case, errors), warnings),
            (vec![case.rule], vec![]),
            "fires: {}",
            case.rule
        );
        assert_eq!(
            ids(&edited(case.quiet), &context),
            (vec![], vec![]),
            "quiet: {}",
            case.rule
        );
    }
    let tested: BTreeSet<_> = CASES.iter().map(|c| c.rule).collect();
    assert_eq!(tested, RULES.iter().map(|r| r.id).collect::<BTreeSet<_>>());
    assert_eq!(tested.len(), RULES.len());
}

#[test]
fn a_rule_broken_on_purpose_warns_and_the_others_cannot_be() {
    for case in CASES.iter().filter(|c| !matches!(c.rule, "syntax" | "unknown-rule")) {
        let text = edited(case.fires).replace("on-purpose = []", &format!("on-purpose = [\"{}\"]", case.rule));
        let (errors, warnings) = ids(&text, &context(case));
        if rule(case.rule).unwrap().waivable {
            assert_eq!((without(case, errors), warnings), (vec![], vec![case.rule]));
        } else {
            assert!(
                errors.contains(&case.rule) && warnings.is_empty(),
                "{}: {errors:?}",
                case.rule
            );
        }
    }
}

#[test]
fn what_a_person_reads() {
    let mut all = String::new();
    for case in CASES.iter().filter(|c| c.rule != "too-many") {
        let report = match parse("labs/x/lab.toml", &edited(case.fires), &context(case)) {
            Err(e) => e.to_string(),
            Ok(_) => panic!("{} is quiet", case.rule),
        };
        all += &format!("=== {}\n{report}\n\n", case.rule);
    }
    insta::assert_snapshot!(all);
}

#[test]
fn everything_is_found_at_once() {
    let text = edited(&[
        ("memory =", "memroy ="),
        ("role = \"mixed\"", "role = \"both\""),
        ("subnet = \"10.77.2.0/24\"", "subnet = \"10.77.2.1/24\""),
        ("1 GiB", "1 gig"),
        ("name = \"base\"", "name = \"../etc\""),
        ("kind = \"ccr\"\n", ""),
    ]);
    let Err(Error::Invalid(invalid)) = parse("lab.toml", &text, &example_context()) else {
        panic!("it holds");
    };
    let found: Vec<_> = invalid.findings.iter().map(|f| f.rule).collect();
    // In the file's order; the network that lost its bad subnet is not said to lack one.
    assert_eq!(
        found,
        [
            "bad-value",
            "unknown-key",
            "bad-value",
            "bad-value",
            "bad-value",
            "missing-key"
        ]
    );
    insta::assert_snapshot!(invalid.report);

    let text = edited(&[
        ("host = \"hub\"", "host = \"hup\""),
        ("kind = \"ccr\"", "kind = \"scc\""),
        ("10.77.2.0", "10.77.1.0"),
    ]);
    let (errors, _) = ids(&text, &example_context());
    for id in [
        "unknown-node",
        "unknown-runtime",
        "overlapping-subnets",
        "duplicate-address",
    ] {
        assert!(errors.contains(&id), "{id} is not in {errors:?}");
    }
}

#[test]
fn a_lab_that_does_not_fit_is_the_hosts_matter() {
    let context = Context {
        host_memory: Some(Size(1 << 28)),
        ..example_context()
    };
    assert_eq!(parse("lab.toml", BASE, &context).unwrap_err().exit_code(), 4);
    let also_wrong = BASE.replace("10.77.2.0/24", "10.77.1.0/24");
    assert_eq!(parse("lab.toml", &also_wrong, &context).unwrap_err().exit_code(), 2);
}
