//! What a deployment sends to a machine, and what it says of it.

use super::*;

#[test]
fn a_deployment_is_one_look_and_one_stream() {
    let lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    let mut remote = FakeRemote::new()
        .answer(LOOKS, 0, ports(&lab, ""))
        .answer(INSTALLS, 0, "");
    let report = deploy_to(&mut remote, &lab, lab.node("hub").unwrap(), &a).unwrap();
    assert!(report.changed);
    assert_eq!(remote.commands.len(), 2);
    let install = &remote.commands[1];
    let files = unpack(&install.stdin);
    assert_eq!(
        files[&PathBuf::from("usr/local/bin/ccrd")],
        (0o755, "\x7fELF a program".to_owned())
    );
    assert_eq!(files[&PathBuf::from("usr/local/bin/ccrctl")].1, "ccrd");
    assert_eq!(files[&PathBuf::from("etc/samba/witness-share.passwd")].0, 0o600);
    assert_eq!(files.len(), report.files);
    let secret = std::fs::read_to_string(a.secrets.join("secret-witness")).unwrap();
    assert_eq!(secret.len(), 32);
    assert_eq!(
        std::fs::metadata(a.secrets.join("secret-witness"))
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    assert!(!install.argv.concat().contains(&secret));
}

#[test]
fn a_program_that_is_there_is_not_sent_again() {
    let lab = spec::example("ccr");
    let (_dir, a) = artifacts();
    let sent = |a: &Artifacts, there: &str| {
        let there = ports(&lab, "").replacen("\n\n", &format!("\n{there}\n"), 1);
        let mut remote = FakeRemote::new().answer(LOOKS, 0, there).answer(INSTALLS, 0, "");
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
        e.contains("systemd-makefs ext4") && e.contains("status 5") && e.contains("no such device"),
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
            .answer(LOOKS, 0, ports(&lab, ""))
            .answer(INSTALLS, 0, printed)
    };
    let mut said = Vec::new();
    let mut say = |text: &str| {
        said.push(text.to_owned());
        Ok(())
    };
    deploy(&mut machine(), &lab, &lab.nodes[0], Some(&pack), &a, soon(), &mut say).unwrap();
    assert!(
        said.iter().any(|s| s.starts_with("1/3: /lib/systemd/systemd-makefs")),
        "{said:?}"
    );
    assert!(said.last().unwrap().starts_with("2/3: systemctl"), "{said:?}");
    let mut say = |text: &str| {
        if text.starts_with("2/3") {
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
