//! A process beside the one that has the line.

use super::*;

/// A client beside the process that has the line.
fn meet_relay(line: &Arc<Line>) -> (UnixStream, std::thread::JoinHandle<Result<()>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let line = line.clone();
    (ours, std::thread::spawn(move || relay(&line, theirs)))
}

#[test]
fn a_command_of_another_process_goes_through_and_ends_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let line = line(agent(|_| Duration::ZERO));
    let (client, served) = meet_relay(&line);
    let mut remote = AgentRemote::new(Line::begin_over("node1", client, soon()).unwrap());
    let mut command = sh("cat; echo bad >&2; exit 3");
    command.stdin = b"in".repeat(300_000);
    let out = remote.exec(&command, soon()).unwrap();
    assert_eq!((out.status, out.stderr.as_slice()), (3, &b"bad\n"[..]));
    assert!(out.stdout == command.stdin, "{} bytes", out.stdout.len());
    drop(remote);
    served.join().unwrap().unwrap();

    let (client, served) = meet_relay(&line);
    let theirs = Line::begin_over("node1", client, soon()).unwrap();
    let file = dir.path().join("pid");
    let script = format!("echo $$ >{}; exec sleep 600", file.display());
    let mut remote = AgentRemote::new(theirs.clone());
    let asked = std::thread::spawn(move || remote.exec(&sh(&script), soon()));
    let pid = || std::fs::read_to_string(&file).unwrap_or_default().trim().to_owned();
    until("see it begin", || !pid().is_empty());
    theirs.close();
    assert!(asked.join().unwrap().is_err());
    served.join().unwrap().unwrap();
    until("see it end", || !Path::new("/proc").join(pid()).exists());
    assert!(line.is_usable());
}

#[test]
fn a_client_that_goes_astray_harms_itself_only() {
    let line = line(agent(|_| Duration::ZERO));
    let run = || ToAgent::Run {
        argv: ["sh", "-c", "exec sleep 600"].map(str::to_owned).to_vec(),
        within_ms: 600_000,
    };
    let hello = ToAgent::Hello {
        version: VERSION,
        nonce: [1; 16],
        owner: OURS,
    };
    let input = ToAgent::Input(vec![0; 60_000]);
    for said in [
        vec![(1, ToAgent::Look)],
        vec![(0, hello.clone()), (1, ToAgent::Look)],
        vec![(0, hello.clone()), (1, run()), (1, run())],
        vec![(0, hello.clone()), (1, run()), (2, ToAgent::InputEnd)],
        vec![
            (0, hello.clone()),
            (1, run()),
            (1, input.clone()),
            (1, input.clone()),
            (1, input),
        ],
        vec![
            (0, hello.clone()),
            (1, run()),
            (1, ToAgent::InputEnd),
            (1, ToAgent::InputEnd),
        ],
        vec![(0, hello.clone()), (1, run()), (1, ToAgent::Credit(1))],
    ] {
        let (mut client, served) = meet_relay(&line);
        let mut bytes = vec![0];
        said.iter()
            .for_each(|(channel, m)| encode(&m.frame(*channel), &mut bytes));
        let _ = client.write_all(&bytes);
        let _ = served.join().unwrap();
        assert!(line.is_usable(), "{said:?}");
    }
    let (mut client, served) = meet_relay(&line);
    client.write_all(b"garbage\0").unwrap();
    let e = served.join().unwrap().unwrap_err();
    assert!(e.to_string().contains("its stuffing is wrong"), "{e}");
    assert_eq!(AgentRemote::new(line).exec(&sh("exit 4"), soon()).unwrap().status, 4);
}
