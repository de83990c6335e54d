//! Ways into a real machine: a bare QEMU, without libvirt, with the credentials of a lab.
//!
//! It boots the image that `tests/common` finds.

mod common;
mod machine;

use common::timed;
use failoverlab::guest::agent::{AgentRemote, Line};
use failoverlab::guest::qemu_agent::QemuAgent;
use failoverlab::guest::ssh::{Ssh, Target, openssh_argv};
use failoverlab::guest::{Command, Followed, Remote, wait_ready};
use failoverlab::spec::NodeFile;
use failoverlab::wait::{Probe, wait_until};
use machine::{Machine, run, within};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

#[test]
#[ignore = "boots a machine"]
fn a_machine_knows_what_its_credentials_say() {
    let big = "0123456789abcde\n".repeat(100 << 6);
    let mut lab = machine::lab();
    let hostile = "hostile: $HOME %n \"\\ é\n";
    let owned = NodeFile {
        mode: 0o640,
        owner: ("daemon".into(), "adm".into()),
        once: true,
        ..NodeFile::from("owned\n".to_owned())
    };
    let plain = |text: &str| NodeFile::from(text.to_owned());
    lab.nodes[0].files.extend([
        ("/etc/a b%h".to_owned(), plain(hostile)),
        ("/srv/big".to_owned(), plain(&big)),
        ("/srv/empty".to_owned(), plain("")),
        ("/srv/owned".to_owned(), owned),
    ]);
    let machine = Machine::boot(&lab, "node1");
    let (mut ssh, ready) = timed("ready", || wait_ready(&machine.target, within(300), &mut |_| Ok(()))).unwrap();
    eprintln!("{ready:?}");
    assert_eq!(ready.state, "running", "{ready:?}");
    let node = &lab.nodes[0];
    for nic in &node.nics {
        assert_eq!(ready.interfaces[&nic.mac.to_string()], nic.interface);
    }
    assert_eq!(run(&mut ssh, &["uname", "-n"]), "node1\n");
    assert_eq!(run(&mut ssh, &["hostname"]), "node1\n");
    assert_eq!(
        run(&mut ssh, &["getent", "hosts", "exmbx"]).split_whitespace().next(),
        Some("10.77.1.21")
    );
    assert_eq!(run(&mut ssh, &["cat", "/etc/a b%h"]), hostile);
    assert_eq!(
        run(&mut ssh, &["stat", "-c", "%a %U %G %s", "/srv/owned"]),
        "640 daemon adm 6\n"
    );
    assert_eq!(run(&mut ssh, &["cat", "/srv/empty"]), "");
    assert_eq!(ssh.download(Path::new("/srv/big"), within(60)).unwrap(), big.as_bytes());
    let addresses = run(&mut ssh, &["ip", "-br", "-4", "addr"]);
    assert!(addresses.contains("10.77.1.11/24") && addresses.contains("10.77.2.11/24"));
    assert!(run(&mut ssh, &["ip", "link", "show", "eth2"]).contains("mtu 1400"));
    assert!(!run(&mut ssh, &["ip", "route"]).contains("default"));
    assert_eq!(
        run(
            &mut ssh,
            &[
                "stat",
                "-c",
                "%a %U",
                "/etc/ssh/ssh_host_ed25519_key",
                "/root/.ssh",
                "/root/.ssh/authorized_keys"
            ]
        ),
        "600 root\n700 root\n600 root\n"
    );
    eprintln!(
        "{}",
        run(&mut ssh, &["systemd-analyze", "--no-pager", "blame"])
            .lines()
            .take(12)
            .collect::<Vec<_>>()
            .join("\n")
    );

    let host_key = run(&mut ssh, &["cat", "/etc/ssh/ssh_host_ed25519_key"]);
    let secret = host_key.lines().nth(2).unwrap();
    assert!(secret.len() > 60 && !machine.command_line().contains(secret) && !machine.command_line().contains("AAAA"));

    commands_over_ssh(&mut ssh);
    transfers_over_ssh(&mut ssh);
    the_systems_ssh(&machine.target);
    the_qemu_agent(&machine, &mut ssh);
    the_agent(&machine, &mut ssh);
    another_host_key_is_refused(&machine.target);
    following_ends_with_the_machine(machine);
}

fn commands_over_ssh(ssh: &mut Ssh) {
    let fail = ssh
        .exec(
            &Command::new(["sh", "-c", "echo out; echo err >&2; exit 7"]),
            within(30),
        )
        .unwrap();
    assert_eq!(
        (fail.status, &fail.stdout[..], &fail.stderr[..]),
        (7, &b"out\n"[..], &b"err\n"[..])
    );
    let killed = ssh
        .exec(&Command::new(["sh", "-c", "kill -KILL $$"]), within(30))
        .unwrap();
    assert_eq!(killed.status, 137);
    assert_eq!(
        ssh.exec(&Command::new(["no-such-program"]), within(30)).unwrap().status,
        127
    );
    // More on both outputs and in the input than any window holds, at the same time.
    let mut flood = Command::new(["sh", "-c", "head -c 6000000 /dev/zero >&2 & cat; wait"]);
    flood.stdin = vec![b'x'; 6_000_000];
    let out = timed("6 MB in, 12 MB out", || ssh.exec(&flood, within(300))).unwrap();
    assert_eq!((out.stdout.len(), out.stderr.len()), (6_000_000, 6_000_000));
    // A command that does not read its input is not our failure.
    let mut deaf = Command::new(["true"]);
    deaf.stdin = vec![0; 4 << 20];
    assert_eq!(ssh.exec(&deaf, within(60)).unwrap().status, 0);
    let begin = Instant::now();
    for _ in 0..10 {
        run(ssh, &["true"]);
    }
    eprintln!("one command: {:?}", begin.elapsed() / 10);
}

fn transfers_over_ssh(ssh: &mut Ssh) {
    let content: Vec<u8> = (0..5_000_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let to = Path::new("/srv/new folder/it's");
    timed("upload of 5 MB", || ssh.upload(&content, to, 0o640, within(300))).unwrap();
    let back = timed("download of 5 MB", || ssh.download(to, within(300))).unwrap();
    assert_eq!(back, content);
    assert_eq!(run(ssh, &["stat", "-c", "%a", to.to_str().unwrap()]), "640\n");
    assert_eq!(run(ssh, &["ls", "/srv/new folder"]), "it's\n");
    let e = ssh.upload(b"x", Path::new("/proc/x/y"), 0o600, within(30)).unwrap_err();
    assert!(e.to_string().contains("/proc/x"), "{e}");
    let e = ssh.download(Path::new("/nowhere"), within(30)).unwrap_err();
    assert!(e.to_string().contains("No such file"), "{e}");
}

fn the_systems_ssh(target: &Target) {
    let argv = openssh_argv(target, &["printf".into(), "%s|".into(), "a b".into(), "$HOME".into()]).unwrap();
    let out = std::process::Command::new(&argv[0]).args(&argv[1..]).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&out.stdout),
        "a b|$HOME|",
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
}

fn the_qemu_agent(machine: &Machine, ssh: &mut Ssh) {
    let mut agent = QemuAgent::over("node1", machine.qemu_agent());
    agent.wait(within(30)).unwrap();
    let begin = Instant::now();
    agent.ping(within(5)).unwrap();
    eprintln!("agent ping: {:?}", begin.elapsed());
    assert_eq!(
        agent.boot_id(within(10)).unwrap(),
        run(ssh, &["cat", "/proc/sys/kernel/random/boot_id"]).trim()
    );
    let mut command = Command::new(["sh", "-c", "cat; echo err >&2; exit 3"]);
    command.stdin = b"hello".to_vec();
    let begin = Instant::now();
    let out = agent.exec(&command, within(30)).unwrap();
    eprintln!("agent exec: {:?}", begin.elapsed());
    assert_eq!(
        (out.status, &out.stdout[..], &out.stderr[..]),
        (3, &b"hello"[..], &b"err\n"[..])
    );
    let content = vec![7; 1 << 20];
    let begin = Instant::now();
    agent
        .upload(&content, Path::new("/srv/by agent"), 0o600, within(60))
        .unwrap();
    eprintln!("agent upload of 1 MiB: {:?}", begin.elapsed());
    let begin = Instant::now();
    assert_eq!(agent.download(Path::new("/srv/by agent"), within(60)).unwrap(), content);
    eprintln!("agent download of 1 MiB: {:?}", begin.elapsed());
    assert!(
        agent
            .download(Path::new("/nowhere"), within(10))
            .unwrap_err()
            .to_string()
            .contains("No such file")
    );
}

/// The engine's first way in: what it does, whatever came before; that it has nothing to do while nobody asks; that it is missed.
fn the_agent(machine: &Machine, ssh: &mut Ssh) {
    let mut noise = UnixStream::connect(&machine.agent).unwrap();
    noise.write_all(&[b'x'; 70_000]).unwrap();
    noise.write_all(b"\0garbage\0half a fra").unwrap();
    drop(noise);
    let connect = || Line::connect("node1", &machine.agent, [7; 16], within(30)).unwrap();
    let line = timed("agent: hello", connect);
    let boot_id = run(ssh, &["cat", "/proc/sys/kernel/random/boot_id"]);
    assert_eq!(line.boot_id(), boot_id.trim());
    the_clock(&line, ssh);
    let mut remote = AgentRemote::new(line.clone());
    let mut command = Command::new(["sh", "-c", "cat; echo err >&2; exit 3"]);
    command.stdin = b"hello".to_vec();
    let out = timed("agent: exec", || remote.exec(&command, within(30)).unwrap());
    assert_eq!(
        (out.status, &out.stdout[..], &out.stderr[..]),
        (3, &b"hello"[..], &b"err\n"[..])
    );
    // As after a login: what a person finds over SSH is found here.
    let here = ["sh", "-c", "pwd; echo $HOME $USER; command -v ip"];
    assert_eq!(run(&mut remote, &here), run(ssh, &here));
    let content: Vec<u8> = (0..1 << 20).map(|n| (n % 251) as u8).collect();
    let path = Path::new("/srv/by our agent");
    timed("agent: upload of 1 MiB", || {
        remote.upload(&content, path, 0o600, within(60)).unwrap()
    });
    assert!(
        timed("agent: download of 1 MiB", || remote
            .download(path, within(60))
            .unwrap())
            == content
    );
    assert_eq!(run(ssh, &["stat", "-c", "%a %s", "/srv/by our agent"]), "600 1048576\n");
    let e = remote.exec(&Command::new(["sleep", "60"]), within(2)).unwrap_err();
    assert!(e.to_string().contains("it was killed"), "{e}");
    let sample = line.sample(within(10)).unwrap();
    assert!(sample.ports.iter().any(|p| p.carrier == Some(true)), "{sample:?}");
    let used = "cat /proc/$(systemctl show -P MainPID failoverlab-agent)/stat | cut -d' ' -f14,15";
    let idle = run(ssh, &["sh", "-c", &format!("{used}; sleep 2; {used}")]);
    let idle: Vec<&str> = idle.lines().collect();
    assert_eq!(idle.len(), 2, "{idle:?}");
    assert_eq!(idle[0], idle[1], "it works without a request");
    drop((remote, line));
    an_agent_that_is_stopped_or_killed(&connect, ssh);
}

fn an_agent_that_is_stopped_or_killed(connect: &dyn Fn() -> Arc<Line>, ssh: &mut Ssh) {
    let signal = |ssh: &mut Ssh, name: &str| run(ssh, &["systemctl", "kill", "-s", name, "failoverlab-agent"]);
    let line = connect();
    signal(ssh, "SIGSTOP");
    let begin = Instant::now();
    let e = line.look(within(2)).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(4));
    assert!(e.to_string().contains("nothing was heard of it for"), "{e}");
    signal(ssh, "SIGCONT");
    let line = connect();
    line.look(within(30)).unwrap();
    signal(ssh, "SIGKILL");
    // The next one says that it has no session.
    wait_until("hear of the next agent", within(30), || {
        Ok(match line.look(within(10)) {
            Err(e) if e.to_string().contains("has just begun") || e.to_string().contains("no session") => {
                Probe::Ready(())
            }
            other => Probe::NotYet(format!("{other:?}")),
        })
    })
    .unwrap();
    connect().look(within(30)).unwrap();
}

/// The clock chip stays the host's.
fn the_clock(line: &Line, ssh: &mut Ssh) {
    let host = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let told = timed("agent: look", || line.look(within(10)).unwrap());
    assert!(told.time.abs_diff(host()) < Duration::from_secs(5), "{told:?}");
    timed("agent: set", || {
        line.set(Duration::new(2_000_000_000, 5), within(30)).unwrap()
    });
    assert!(run(ssh, &["date", "+%s"]).starts_with("20000000"));
    let chip: u64 = run(ssh, &["cat", "/sys/class/rtc/rtc0/since_epoch"])
        .trim()
        .parse()
        .unwrap();
    assert!(chip.abs_diff(host().as_secs()) < 5, "{chip}");
}

fn another_host_key_is_refused(target: &Target) {
    let other = Target {
        host_key: target.identity.with_added_extension("pub"),
        ..target.clone()
    };
    let begin = Instant::now();
    let e = wait_ready(&other, within(60), &mut |_| Ok(())).unwrap_err();
    assert!(e.to_string().contains("does not have the host key"), "{e}");
    eprintln!("one handshake: {:?}", begin.elapsed());
}

fn following_ends_with_the_machine(mut machine: Machine) {
    let mut ssh = Ssh::connect(&machine.target, within(30)).unwrap();
    let mut lines = Vec::new();
    let counting = Command::new(["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done"]);
    ssh.follow(&counting, &mut |heard| {
        if let Followed::Line(l) = heard {
            lines.push(l.to_owned());
        }
        lines.len() < 3
    })
    .unwrap();
    assert_eq!(lines, ["1", "2", "3"]);
    assert_eq!(run(&mut ssh, &["echo", "still usable"]), "still usable\n");
    let e = ssh
        .follow(&Command::new(["sh", "-c", "echo a; echo why >&2; exit 4"]), &mut |_| {
            true
        })
        .unwrap_err();
    assert!(e.to_string().contains("status 4: why"), "{e}");
    // A deadline leaves the connection unusable, and says so ever after.
    let mut late = Ssh::connect(&machine.target, within(30)).unwrap();
    let e = late.exec(&Command::new(["sleep", "60"]), within(1)).unwrap_err();
    assert!(e.to_string().contains("time ran out"), "{e}");
    assert!(!late.is_usable());
    assert!(
        late.exec(&Command::new(["true"]), within(5))
            .unwrap_err()
            .to_string()
            .contains("connection is gone")
    );
    // A listener hears a command, and ends it.
    let mut heard = Vec::new();
    let command = Command::new(["sh", "-c", "echo one; sleep 2; echo two; sleep 60"]);
    let mut other = Ssh::connect(&machine.target, within(30)).unwrap();
    let e = other
        .exec_heard(&command, within(60), &mut |line| {
            heard.push(line.map(str::to_owned));
            if line == Some("two") {
                Err(failoverlab::error::Error::Interrupted)
            } else {
                Ok(())
            }
        })
        .unwrap_err();
    assert!(matches!(e, failoverlab::error::Error::Interrupted) && !other.is_usable());
    assert!(
        heard.contains(&None) && heard.contains(&Some("one".into())),
        "{heard:?}"
    );
    // The machine dies under a follower.
    let begin = Instant::now();
    let e = ssh
        .follow(&counting, &mut |heard| {
            if heard == Followed::Line("3") {
                machine.kill();
            }
            true
        })
        .unwrap_err();
    assert!(e.to_string().contains("connection is gone"), "{e}");
    eprintln!("a follower noticed after {:?}: {e}", begin.elapsed());
}
