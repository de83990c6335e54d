//! What a deployment sends to a machine, and what it says of it.

use super::*;

/// A machine in which a look finds this, and in which everything succeeds.
fn machine(found: String) -> FakeRemote {
    FakeRemote::new().answer(LOOKS, 0, found).answer(INSTALLS, 0, "")
}

fn path(text: &str) -> PathBuf {
    PathBuf::from(text)
}

fn names<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Vec<String> {
    files.map(|p| p.display().to_string()).collect()
}

#[test]
fn what_needs_no_setting_is_there_before_the_system_starts() {
    let lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    let hub = lab.node("hub").unwrap();
    let begins = early_of(&lab, hub, &a);
    assert_eq!(begins.mark, mark(&lab, hub));
    // No secret was made for it.
    assert!(!a.secrets.exists());
    let there_first: Vec<(&str, u32)> = begins
        .files
        .iter()
        .map(|(path, mode, _)| (path.as_str(), *mode))
        .collect();
    assert_eq!(
        there_first,
        [
            ("/usr/local/bin/ccrd", 0o755),
            ("/etc/samba/witness-share.conf", 0o644),
            ("/etc/systemd/system/witness-share.service", 0o644),
            ("/etc/sysusers.d/witness-share.conf", 0o644),
            ("/etc/tmpfiles.d/witness-share.conf", 0o644),
            (install::PROGRAMS, 0o644),
        ]
    );
    assert_eq!(begins.links.len(), 1);

    // When it has booted the rest is one look and one stream, without all of that.
    let list = std::str::from_utf8(&begins.files[5].2).unwrap();
    let mut booted = machine(there(&lab, "", &begins.mark, list));
    let report = deploy_to(&mut booted, &lab, hub, &a).unwrap();
    assert!(report.changed && booted.commands.len() == 2);
    let install = &booted.commands[1];
    let files = unpack(&install.stdin);
    let late = [
        "etc/ccrd/ccrd.toml",
        "etc/samba/witness-share.passwd",
        "etc/systemd/system/ccrd.service",
        "etc/systemd/system/multi-user.target.wants/ccrd.service",
        "usr/local/bin/ccrctl",
    ];
    assert_eq!(names(files.keys()), late);
    assert_eq!(files.len(), report.files);
    assert_eq!(files[&path("usr/local/bin/ccrctl")].1, "ccrd");
    assert_eq!(files[&path("etc/samba/witness-share.passwd")].0, 0o600);
    let secret = std::fs::read_to_string(a.secrets.join("secret-witness")).unwrap();
    assert_eq!(secret.len(), 32);
    let mode = std::fs::metadata(a.secrets.join("secret-witness"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(!install.argv.concat().contains(&secret));
}

#[test]
fn a_machine_that_began_without_it_gets_all() {
    let lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    let hub = lab.node("hub").unwrap();
    let mut bare = machine(ports(&lab, ""));
    let report = deploy_to(&mut bare, &lab, hub, &a).unwrap();
    let [_, first, second] = bare.commands.as_slice() else {
        panic!("{:?}", bare.argvs());
    };
    assert!(first.argv.contains(&mark(&lab, hub)) && second.argv.contains(&report.digest));
    assert_eq!(first.argv.last().unwrap(), "'systemctl' restart witness-share.service");
    let [early, late] = [first, second].map(|c| unpack(&c.stdin));
    assert!(early.contains_key(&path("etc/samba/witness-share.conf")));
    assert_eq!(
        late[&path("usr/local/bin/ccrd")],
        (0o755, "\x7fELF a program".to_owned())
    );
    assert_eq!(early.len() + late.len(), report.files);
}

/// Else a machine that has booted would not serve for another setting.
#[test]
fn the_early_part_knows_no_setting_no_secret_and_no_slowness() {
    let mut lab = spec::example("ccr");
    let nodes = |lab: &Lab| -> Vec<String> { lab.nodes.iter().map(|n| mark(lab, n)).collect() };
    let before = nodes(&lab);
    let runtime = lab.runtime.as_mut().unwrap();
    runtime.settings.insert("heartbeat_ms".into(), 900.into());
    assert_eq!(nodes(&lab), before);
    lab.networks[0].subnet = "10.77.0.0/16".parse().unwrap();
    assert_ne!(nodes(&lab)[2], before[2]);

    let (lab, _, secrets) = ccr();
    for hidden in ["settings.heartbeat_ms", "slowness", "secrets.witness"] {
        let pack = |early: bool| {
            let file = format!("files = [{{ template = 'a', path = '/x', early = {early} }}]\n{MINIMAL}");
            Pack::parse("x".parse().unwrap(), &file, "", |_| Ok(format!("{{{{ {hidden} }}}}"))).unwrap()
        };
        let of = |early, part| pack(early).files(part, &lab, &lab.nodes[0], &secrets);
        assert_eq!(of(false, Part::Late).unwrap().len(), 1, "{hidden}");
        let e = of(true, Part::Early).unwrap_err().to_string();
        assert!(e.contains("x/a"), "{hidden}: {e}");
    }
}

#[test]
fn only_a_long_stream_is_compressed() {
    let lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    let sent = |length: usize| {
        std::fs::write(&a.programs["ccrd"], vec![b'x'; length]).unwrap();
        let mut remote = machine(there(&lab, "", &mark(&lab, &lab.nodes[0]), ""));
        deploy_to(&mut remote, &lab, &lab.nodes[0], &a).unwrap();
        let install = &remote.commands[1];
        let program = &unpack(&install.stdin)[&path("usr/local/bin/ccrd")].1;
        assert_eq!(program.len(), length);
        (install.argv[6].clone(), install.stdin.len() > length)
    };
    assert_eq!(sent(10), (String::new(), true));
    assert_eq!(sent(1 << 20), ("-z".to_owned(), false));
}

#[test]
fn another_program_makes_no_other_beginning() {
    let lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    let first = early_of(&lab, &lab.nodes[0], &a);
    std::fs::write(&a.programs["ccrd"], "another program").unwrap();
    let other = early_of(&lab, &lab.nodes[0], &a);
    assert!(other.mark == first.mark && other.files != first.files);
    // A pack without all of this has none.
    let pack = parsed(MINIMAL).unwrap();
    assert_eq!(early(&lab, &lab.nodes[0], &pack, &a).unwrap(), None);
    assert_eq!(early_digest(&lab, &lab.nodes[0], &pack).unwrap(), None);
}

#[test]
fn a_program_that_is_there_is_not_sent_again() {
    let lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    let sent = |a: &Artifacts, list: &str| {
        let mut remote = machine(there(&lab, "", &mark(&lab, &lab.nodes[0]), list));
        deploy_to(&mut remote, &lab, &lab.nodes[0], a).unwrap();
        unpack(&remote.commands[1].stdin)
    };
    let [program, list] = ["usr/local/bin/ccrd", &install::PROGRAMS[1..]].map(PathBuf::from);
    // The machine's own list is what it got with the program.
    let first = sent(&a, "");
    assert!(first.contains_key(&program));
    let files = sent(&a, &first[&list].1);
    assert!(!files.contains_key(&program) && !files.contains_key(&list));
    assert!(files.contains_key(&PathBuf::from("etc/ccrd/ccrd.toml")));
    // Another one is sent, and the machine's list then says so.
    std::fs::write(&a.programs["ccrd"], "another program").unwrap();
    let files = sent(&a, &first[&list].1);
    assert_eq!(files[&program].1, "another program");
    let digest = blake3::hash(b"another program").to_hex();
    assert_eq!(files[&list].1, format!("{digest} /usr/local/bin/ccrd\n"));
}

#[test]
fn what_is_deployed_is_not_deployed_again_and_a_change_is() {
    let mut lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    let first = deploy_to(
        &mut FakeRemote::new()
            .answer(LOOKS, 0, ports(&lab, ""))
            .answer(INSTALLS, 0, ""),
        &lab,
        &lab.nodes[0],
        &a,
    )
    .unwrap();
    let mut remote = FakeRemote::new().answer(LOOKS, 0, ports(&lab, &first.digest));
    let again = deploy_to(&mut remote, &lab, &lab.nodes[0], &a).unwrap();
    assert!(!again.changed && remote.commands.len() == 1);
    assert_eq!(again.digest, first.digest);
    lab.runtime
        .as_mut()
        .unwrap()
        .settings
        .insert("lease_ms".into(), 4000.into());
    let mut remote = FakeRemote::new()
        .answer(LOOKS, 0, ports(&lab, &first.digest))
        .answer(INSTALLS, 0, "");
    assert!(deploy_to(&mut remote, &lab, &lab.nodes[0], &a).unwrap().changed);
    std::fs::write(&a.programs["ccrd"], b"another program").unwrap();
    let other = deploy_to(
        &mut FakeRemote::new()
            .answer(LOOKS, 0, ports(&lab, ""))
            .answer(INSTALLS, 0, ""),
        &spec::example("ccr"),
        &lab.nodes[0],
        &a,
    )
    .unwrap();
    assert_ne!(other.digest, first.digest);
}

#[test]
fn a_port_with_another_name_than_its_configuration_says_is_an_error() {
    let lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    for (found, expected) in [
        (ports(&lab, "").replace("eth1", "eth2"), "is eth2, not eth1"),
        ("\n".to_owned(), "there is no"),
        (String::new(), "there is no"),
        ("\u{fffd}\0".to_owned(), "there is no"),
    ] {
        let mut remote = FakeRemote::new().answer(LOOKS, 0, found);
        let e = deploy_to(&mut remote, &lab, &lab.nodes[0], &a).unwrap_err().to_string();
        assert!(e.contains(expected), "{e}");
    }
}

#[test]
fn a_failed_step_is_named_with_its_own_words() {
    let lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    let said = "mkfs: no such device\nfailoverlab: failed step 1\n";
    let mut remote = FakeRemote::new()
        .answer(LOOKS, 0, ports(&lab, ""))
        .complain(INSTALLS, 5, said);
    let e = deploy_to(&mut remote, &lab, &lab.nodes[0], &a).unwrap_err().to_string();
    assert!(
        e.contains("`systemctl daemon-reload`") && e.contains("status 5") && e.contains("no such device"),
        "{e}"
    );
    for strange in [
        "",
        "failoverlab: failed step 0\n",
        "failoverlab: failed step 99999999999999999999\n",
        "failoverlab: failed step 77\n",
    ] {
        let mut remote = FakeRemote::new()
            .answer(LOOKS, 0, ports(&lab, ""))
            .complain(INSTALLS, 2, strange);
        let e = deploy_to(&mut remote, &lab, &lab.nodes[0], &a).unwrap_err().to_string();
        assert!(e.contains("writing the files ended with status 2"), "{e}");
    }
}

/// `systemctl` says no more than that its unit failed: the unit's own words are in its journal.
#[test]
fn a_failed_step_is_explained_by_the_machine() {
    let lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    let steps = Pack::load("ccr")
        .unwrap()
        .steps(Part::Late, &lab, &lab.nodes[0])
        .unwrap();
    let last = steps.iter().position(|s| !s.explain.is_empty()).unwrap() + 1;
    let failed = || {
        FakeRemote::new()
            .answer(LOOKS, 0, ports(&lab, ""))
            // The early part comes first.
            .answer(INSTALLS, 0, "")
            .complain(INSTALLS, 1, format!("Job failed.\nfailoverlab: failed step {last}\n"))
    };
    let of = |mut remote: FakeRemote| deploy_to(&mut remote, &lab, &lab.nodes[0], &a).unwrap_err().to_string();
    let e = of(failed().answer(&["journalctl"], 0, "ccrd: a setting is wrong\n"));
    assert!(
        e.contains("Job failed.") && e.contains("ccrd: a setting is wrong"),
        "{e}"
    );
    // What cannot be asked hides nothing of what failed.
    let e = of(failed().complain(&["journalctl"], 127, "no such program"));
    assert!(
        e.contains("ended with status 1: Job failed.") && e.contains("no such program"),
        "{e}"
    );
}

#[test]
fn a_refusal_of_the_listener_ends_it_before_anything_is_sent() {
    let lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    let pack = Pack::load("ccr").unwrap();
    let mut remote = FakeRemote::new();
    let e = deploy(&mut remote, &lab, &lab.nodes[0], Some(&pack), &a, soon(), &mut |_| {
        Err(Error::Interrupted)
    })
    .unwrap_err();
    assert!(matches!(e, Error::Interrupted) && remote.commands.is_empty());
}

#[test]
fn every_step_is_said_and_may_be_the_last() {
    let lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    let pack = Pack::load("ccr").unwrap();
    let printed = "failoverlab: step 1\nfailoverlab: step 99\nfailoverlab: step x\nhello\nfailoverlab: step 2\n";
    let machine = || {
        FakeRemote::new()
            .answer(LOOKS, 0, there(&lab, "", &mark(&lab, &lab.nodes[0]), ""))
            .answer(INSTALLS, 0, printed)
    };
    let mut said = Vec::new();
    let mut say = |text: &str| {
        said.push(text.to_owned());
        Ok(())
    };
    deploy(&mut machine(), &lab, &lab.nodes[0], Some(&pack), &a, soon(), &mut say).unwrap();
    assert!(
        said.iter().any(|s| s.starts_with("1/2: systemctl daemon-reload")),
        "{said:?}"
    );
    assert!(said.last().unwrap().starts_with("2/2: systemctl restart"), "{said:?}");
    let mut say = |text: &str| {
        if text.starts_with("2/2") {
            Err(Error::Interrupted)
        } else {
            Ok(())
        }
    };
    let e = deploy(&mut machine(), &lab, &lab.nodes[0], Some(&pack), &a, soon(), &mut say).unwrap_err();
    assert!(matches!(e, Error::Interrupted));
}

#[test]
fn a_missing_program_is_the_hosts_fault_with_a_remedy() {
    let lab = spec::example("ccr");
    let (_dir, mut a) = artifacts();
    a.programs.insert("ccrd".into(), "/nowhere/ccrd".into());
    let e = deploy_to(&mut FakeRemote::new(), &lab, &lab.nodes[0], &a).unwrap_err();
    assert_eq!(e.exit_code(), 4);
    assert!(e.problem().unwrap().remedy.is_some());
}

#[test]
fn a_bare_machine_gets_its_commands_and_nothing_else() {
    let mut lab = spec::example("bare");
    let (_dir, a) = artifacts();
    let mut remote = FakeRemote::new();
    assert!(!deploy_to(&mut remote, &lab, &lab.nodes[0], &a).unwrap().changed);
    assert!(remote.commands.is_empty());
    lab.nodes[0].run = vec![vec!["echo".into(), "a b; rm -rf $HOME".into()]];
    let mut remote = FakeRemote::new()
        .answer(LOOKS, 0, ports(&lab, ""))
        .answer(INSTALLS, 0, "");
    assert_eq!(deploy_to(&mut remote, &lab, &lab.nodes[0], &a).unwrap().steps, 1);
    assert_eq!(remote.commands[1].argv.last().unwrap(), "'echo' 'a b; rm -rf $HOME'");
}
