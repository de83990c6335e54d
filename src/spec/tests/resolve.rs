use super::super::*;
use super::example_context;

/// What a small lab does without.
const WAIVED: &str =
    r#""ccr-needs-hub", "ccr-without-witness", "no-data-disk", "one-heartbeat-network", "dumpster-too-small""#;

fn lab(rest: &str) -> Lab {
    let text = format!("schema = 1\nname = \"x\"\n{rest}");
    parse("lab.toml", &text, &example_context())
        .unwrap_or_else(|e| panic!("{e}"))
        .lab
}

#[test]
fn what_a_node_says_comes_on_top_of_the_defaults() {
    let lab = lab(r#"
        [defaults]
        vcpus = 2
        packages = ["tcpdump", "jq"]
        files = { "/etc/a" = "default", "/etc/b" = "default" }
        run = [["first"]]
        [nodes.a]
        memory = "128 MiB"
        packages = ["jq", "iperf3"]
        files = { "/etc/b" = "own" }
        run = [["then", "this"]]
        [nodes.b]
        vcpus = 1
    "#);
    let [a, b] = lab.nodes.as_slice() else {
        panic!("two nodes")
    };
    assert_eq!((a.memory, a.vcpus), (Size::mib(128), 2));
    assert_eq!((b.memory, b.vcpus), (Size::mib(384), 1));
    assert_eq!(a.packages, ["iperf3", "jq", "tcpdump"]);
    assert_eq!(b.packages, ["jq", "tcpdump"]);
    assert_eq!(
        (a.files["/etc/a"].text.as_str(), a.files["/etc/b"].text.as_str()),
        ("default", "own")
    );
    assert_eq!(a.run, [vec!["first"], vec!["then", "this"]]);
    assert_eq!(b.run, [["first"]]);
    assert_eq!(a.image.as_str(), "debian-12");
    assert_eq!(lab.title, "x");
}

#[test]
fn addresses_follow_role_and_the_files_order() {
    let lab = lab(r#"
        [networks.b]
        subnet = "10.1.0.0/16"
        [networks.a]
        subnet = "10.2.0.0/16"
        [nodes.z]
        networks = ["b"]
        [nodes.m2]
        role = "member"
        networks = ["a", "b"]
        addresses = { b = "10.1.7.7" }
        [nodes.m1]
        role = "member"
        networks = ["b"]
        [nodes.h1]
        role = "hub"
        networks = ["b"]
        [nodes.y]
        networks = ["b"]
        [nodes.h2]
        role = "hub"
        networks = ["b"]
    "#);
    let on_b: Vec<_> = lab
        .nodes
        .iter()
        .map(|n| (n.name.as_str(), n.address("b").unwrap().to_string()))
        .collect();
    let expected = [
        ("z", "10.1.0.31"),
        ("m2", "10.1.7.7"),
        ("m1", "10.1.0.12"),
        ("h1", "10.1.0.10"),
        ("y", "10.1.0.32"),
        ("h2", "10.1.0.9"),
    ];
    assert_eq!(on_b, expected.map(|(n, a)| (n, a.to_owned())));
    let m2 = lab.node("m2").unwrap();
    let nics: Vec<_> = m2
        .nics
        .iter()
        .map(|n| {
            (
                n.network.as_str(),
                n.interface.as_str(),
                n.address.to_string(),
                n.mac.to_string(),
            )
        })
        .collect();
    // In the node's order; the Ethernet address has the network's place in the file, then the node's.
    assert_eq!(
        nics,
        [
            ("a", "eth1", "10.2.0.11".to_owned(), "52:54:00:02:00:02".to_owned()),
            ("b", "eth2", "10.1.7.7".to_owned(), "52:54:00:01:00:02".to_owned()),
        ]
    );
    assert_eq!(m2.mgmt_mac.to_string(), "52:54:00:ff:00:02");
    assert_eq!(lab.networks[0].workstation.to_string(), "10.1.0.2");
}

#[test]
fn serials_fit_and_differ() {
    let lab = lab(r#"
        [nodes.a-very-long-name-of-a-node]
        disks = [{ name = "d1", size = "1 MiB" }, { name = "d2", size = "1 MiB" }, { name = "d3", size = "1 MiB" }]
        [nodes.b]
        disks = [{ name = "quorum", size = "1 MiB" }]
        [nodes.c]
        [disks.b-quorum]
        size = "1 MiB"
        shared-by = ["c", "b"]
    "#);
    let mut serials: Vec<&str> = lab
        .nodes
        .iter()
        .flat_map(|n| &n.disks)
        .map(|d| d.serial.as_str())
        .collect();
    serials.extend(lab.shared_disks.iter().map(|d| d.serial.as_str()));
    assert_eq!(
        serials,
        [
            "a-very-long-name-of-",
            "a-very-long-name-o-2",
            "a-very-long-name-o-3",
            "b-quorum-2",
            "b-quorum"
        ]
    );
    assert!(serials.iter().all(|s| s.len() <= 20));
}

#[test]
fn settings_reach_the_runtime_in_its_units() {
    let settings = |text: &str| {
        let head = "[nodes.m1]\nrole = \"member\"\nnetworks = [\"n\"]\n[nodes.m2]\nrole = \"member\"\nnetworks = [\"n\"]\n[networks.n]\nsubnet = \"10.0.0.0/24\"\n\
                    [runtime]\nkind = \"ccr\"\ncluster = { name = \"c\", address = \"10.0.0.20\" }\nservice = { name = \"s\", address = \"10.0.0.21\" }\n";
        let text = format!("on-purpose = [{WAIVED}]\n{head}[runtime.settings]\n{text}");
        serde_json::to_value(lab(&text).runtime.unwrap().settings).unwrap()
    };
    let all = settings(
        "heartbeat = \"1.5 s\"\ndumpster = \"0 B\"\ndumpster-age = \"1 h\"\ncircular = false\ndial = \"lossless\"\ngroups = [\"A\", \"B\"]\nnode-tolerance = 9",
    );
    assert_eq!(all["heartbeat_ms"], 1500);
    assert_eq!(all["dumpster_bytes"], 0);
    assert_eq!(all["dumpster_age_ms"], 3_600_000);
    assert_eq!(all["circular"], false);
    assert_eq!(all["dial"], "lossless");
    assert_eq!(all["groups"], serde_json::json!(["A", "B"]));
    assert_eq!(all["node_tolerance"], 9);
    assert_eq!(all["lease_ms"], 4500, "what is not given has the pack's default");
}

#[test]
fn values_that_no_setting_can_have() {
    let pack = &example_context().packs[0];
    for (name, bad) in [
        ("heartbeat", "1200"),
        ("heartbeat", "\"1.5 ms\""),
        ("heartbeat", "\"0 s\""),
        ("heartbeat", "\"18446744073709551615 d\""),
        ("generation", "\"63 KiB\""),
        ("generation", "\"1 s\""),
        ("node-tolerance", "0"),
        ("node-tolerance", "-1"),
        ("node-tolerance", "4294967296"),
        ("node-tolerance", "\"5\""),
        ("circular", "\"yes\""),
        ("dial", "\"Lossless\""),
        ("dial", "3"),
        ("groups", "[]"),
        ("groups", "[\"A\", \"A\"]"),
        ("groups", "[\"../x\"]"),
        ("groups", "\"A\""),
        ("groups", "[1]"),
    ] {
        let table: toml::Table = toml::from_str(&format!("v = {bad}")).unwrap();
        assert!(pack.get(name).unwrap().resolve(&table["v"]).is_err(), "{name} = {bad}");
    }
}

#[test]
fn a_pack_with_a_default_that_it_does_not_allow_is_refused() {
    let pack = |text: &str| PackSettings::parse("p".parse().unwrap(), text);
    let good = "[settings.a]\ntype = \"integer\"\ndefault = 3\nmin = 3\ndoc = \"d\"";
    assert_eq!(pack(good).unwrap().defaults()["a"], 3);
    for (from, to) in [
        ("= 3\nmin", "= 2\nmin"),
        ("integer", "span"),
        ("min = 3", "min = \"x\""),
        ("min", "minimum"),
        ("integer", "float"),
        ("settings.a", "settings.A"),
        ("settings", "setting"),
    ] {
        assert!(pack(&good.replacen(from, to, 1)).is_err(), "{from} → {to}");
    }
    assert!(pack("").unwrap().settings.is_empty());
}
