//! `labs/bare`: three machines, two networks, one shared disk, no runtime.

use super::Test::{self, Alone, With};
use super::another;
use super::tool::{Lab, Tool, pids, ports, same, steps, text, wait_for};
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

pub const TRIALS: &[(&str, Test)] = &[
    ("bare_comes_up_and_again_changes_nothing", Alone(up)),
    ("bare_comes_back_instead_of_booting", Alone(warm)),
    (
        "bare_block_written_on_one_member_is_read_on_the_other",
        With("bare", shared_disk),
    ),
    (
        "bare_networks_carry_frames_and_a_cut_stops_them",
        With("bare", networks),
    ),
    (
        "bare_a_lab_address_is_on_a_loopback_port_and_its_frames_in_a_capture",
        With("bare", forward),
    ),
    (
        "bare_no_frame_of_another_account_gets_in",
        With("bare", another_account),
    ),
    ("bare_no_secret_is_in_the_process_list", With("bare", process_list)),
    ("bare_a_checkpoint_brings_everything_back", With("bare", checkpoint)),
    ("bare_a_fork_has_nothing_in_common_with_the_lab", With("bare", fork)),
    ("bare_a_restore_that_was_cut_short_is_finished", With("bare", cut_short)),
    (
        "bare_a_killed_supervisor_is_replaced_and_adopts_the_machines",
        With("bare", adopt),
    ),
    ("bare_an_interrupted_up_leaves_nothing", Alone(interrupted)),
    ("bare_a_request_that_ends_ends_no_other_one", Alone(others_go_on)),
];

fn up(tool: &Tool) -> Result<(), String> {
    // As a script does that lets one `up` run at a time: `exec 9>lock; flock 9; failoverlab up bare`.
    let io = |e: std::io::Error| e.to_string();
    let lock = tempfile::NamedTempFile::new().map_err(io)?;
    lock.as_file().lock().map_err(io)?;
    rustix::io::fcntl_setfd(&lock, rustix::io::FdFlags::empty()).map_err(|e| io(e.into()))?;
    let lab = Lab::up(tool, "bare", &["--cold"])?;
    let closed = lock.into_temp_path();
    let free = std::fs::File::open(&closed).map_err(io)?.try_lock().is_ok();
    same("the script's lock is free while the lab lives", free, true)?;
    let status = tool.json(&["status", "bare"])?;
    same("machines", status["machines"].as_array().map(Vec::len), Some(3))?;
    for m in status["machines"].as_array().into_iter().flatten() {
        same("state", m["domain"].as_str(), Some("running"))?;
        // The kernel's own word that it is a machine of its own, with the name that the lab file gave.
        let node = m["node"].as_str().unwrap_or_default();
        same("host name", tool.exec("bare", node, &["uname", "-n"])?.trim(), node)?;
    }
    let again = tool.json(&["up", "bare"])?;
    same("steps of a second up", again["steps"].as_u64(), Some(0))?;
    lab.down()?;
    let again = tool.ok(&["down", "bare"])?;
    same("a second down", again.trim(), "bare: was not up")
}

fn shared_disk(tool: &Tool) -> Result<(), String> {
    let (a, b) = sharers(tool)?;
    let mark = format!("written-{}", std::process::id());
    write_block(tool, &a, &mark)?;
    same("block 7", read_block(tool, &b)?, mark)
}

/// Two machines that have the shared disk.
fn sharers(tool: &Tool) -> Result<(String, String), String> {
    let record = tool.record("bare")?;
    let by = &record["wish"]["lab"]["shared_disks"][0]["shared_by"];
    match (by[0].as_str(), by[1].as_str()) {
        (Some(a), Some(b)) => Ok((a.to_owned(), b.to_owned())),
        _ => Err(format!("shared by {by}")),
    }
}

/// The shared disk as `node` sees it, found by its serial.
fn shared_device(tool: &Tool, node: &str) -> Result<String, String> {
    let record = tool.record("bare")?;
    let serial = record["wish"]["lab"]["shared_disks"][0]["serial"]
        .as_str()
        .ok_or("no shared disk in the record")?;
    let find = format!(
        "for d in /sys/block/sd*; do [ \"$(cat $d/device/vpd_pg80 | tr -dc a-z0-9-)\" = {serial} ] && echo /dev/${{d##*/}}; done"
    );
    match tool.exec("bare", node, &["sh", "-c", &find])?.trim() {
        "" => Err(format!("{node} has no disk of serial {serial}")),
        device => Ok(device.to_owned()),
    }
}

fn write_block(tool: &Tool, node: &str, mark: &str) -> Result<(), String> {
    let write = format!(
        "printf %-4096s {mark} | dd of={} bs=4096 count=1 seek=7 oflag=direct conv=notrunc status=none",
        shared_device(tool, node)?
    );
    tool.exec("bare", node, &["sh", "-c", &write]).map(drop)
}

fn read_block(tool: &Tool, node: &str) -> Result<String, String> {
    let device = shared_device(tool, node)?;
    let read = format!("dd if={device} bs=4096 count=1 skip=7 iflag=direct status=none");
    Ok(tool.exec("bare", node, &["sh", "-c", &read])?.trim().to_owned())
}

/// A new checkpoint. The home stays from run to run, and so does one of that name that another build may have made.
pub fn keep(tool: &Tool, name: &str) -> Result<serde_json::Value, String> {
    tool.run(&["checkpoint", "rm", "bare", name])?;
    tool.json(&["checkpoint", "create", "bare", name])
}

/// Block, file, processes and a wrong clock are as they were; the machines were not booted again.
fn checkpoint(tool: &Tool) -> Result<(), String> {
    let (a, b) = sharers(tool)?;
    write_block(tool, &a, "before")?;
    tool.exec("bare", &a, &["sh", "-c", "echo before > /root/note; date -s '+1 hour'"])?;
    let boot = |node: &str| tool.exec("bare", node, &["cat", "/proc/sys/kernel/random/boot_id"]);
    let booted = (boot(&a)?, boot(&b)?);
    let processes = pids(&tool.json(&["status", "bare"])?);
    let made = keep(tool, "one")?;
    eprintln!("  stood still for {} µs", made["pause_us"]);
    same("QEMU's processes", pids(&tool.json(&["status", "bare"])?), processes)?;

    write_block(tool, &b, "after")?;
    tool.exec(
        "bare",
        &a,
        &["sh", "-c", "echo after > /root/note; sync; date -s '-1 hour'"],
    )?;
    // A client that knocks all the while does not stop the restore, and is heard after it.
    tool.ok(&["pause", "bare"])?;
    let (knocking, at) = leads_to_ssh(tool, &a)?;
    let heard = std::thread::spawn(move || {
        wait_for("hear the restored machine", Duration::from_secs(60), || {
            greeting(&at).map_err(|e| e.to_string())
        })
    });
    let back = tool.json(&["restore", "bare", "one"]);
    let heard = heard.join().map_err(|_| "the client panicked")?;
    interrupt(knocking)?;
    let back = back?;
    heard?;
    eprintln!("  {back}");
    for node in [&a, &b] {
        same("block 7 after the restore", read_block(tool, node)?.as_str(), "before")?;
    }
    same(
        "the file",
        tool.exec("bare", &a, &["cat", "/root/note"])?.trim(),
        "before",
    )?;
    same("boot ids", (boot(&a)?, boot(&b)?), booted)?;
    let ahead = clock(tool, &a)? - host_clock();
    if !(3595.0..3605.0).contains(&ahead) {
        return Err(format!(
            "{a} was an hour ahead at the checkpoint, it is {ahead} s ahead"
        ));
    }
    // The chip goes on with the host, whatever the kernel's clock is told: the runtime sees pauses by it.
    let chip = tool.exec("bare", &a, &["cat", "/sys/class/rtc/rtc0/since_epoch"])?;
    let chip: f64 = chip.trim().parse().map_err(|e| format!("{chip}: {e}"))?;
    let off = chip - host_clock();
    if off.abs() > 10.0 {
        return Err(format!("the clock chip of {a} was set: it is {off} s from the host's"));
    }
    for node in back["returned"]["nodes"].as_array().into_iter().flatten() {
        let off = node["clock_error_us"].as_i64().ok_or("a clock was not set")?;
        if off.abs() > 500_000 {
            return Err(format!("the clock of {} is {off} µs off", node["name"]));
        }
    }
    networks(tool)
}

fn clock(tool: &Tool, node: &str) -> Result<f64, String> {
    let said = tool.exec("bare", node, &["date", "+%s.%N"])?;
    said.trim().parse().map_err(|e| format!("{said}: {e}"))
}

fn host_clock() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(0.0, |d| d.as_secs_f64())
}

/// A fork has the same addresses and nothing else in common with the lab.
fn fork(tool: &Tool) -> Result<(), String> {
    let (a, b) = sharers(tool)?;
    tool.exec("bare", &a, &["sh", "-c", "echo before > /root/note; sync"])?;
    keep(tool, "one")?;
    let made = tool.json(&["fork", "bare", "--from", "one"])?;
    same("the fork's name", made[0].as_str(), Some("bare@1"))?;
    tool.exec("bare@1", &a, &["sh", "-c", "echo fork > /root/note"])?;
    same(
        "the lab's file",
        tool.exec("bare", &a, &["cat", "/root/note"])?.trim(),
        "before",
    )?;
    let address = tool.record("bare")?["wish"]["lab"]["nodes"][1]["nics"][0]["address"]
        .as_str()
        .map(str::to_owned)
        .ok_or("no address in the record")?;
    let reaches = |lab: &str| -> Result<bool, String> {
        let out = tool.run(&["exec", lab, &a, "--", "ping", "-c", "2", "-W", "2", &address])?;
        Ok(out.status.success())
    };
    tool.ok(&["fault", "bare", "cut", "--on", &b])?;
    same(
        "across a cut in the lab, and in its fork",
        (reaches("bare")?, reaches("bare@1")?),
        (false, true),
    )?;
    tool.ok(&["heal", "bare"])?;
    let refused = tool.run(&["checkpoint", "rm", "bare", "one"])?;
    same("removing what a fork stands on", refused.status.code(), Some(2))?;
    for machine in tool.json(&["status", "bare@1"])?["machines"]
        .as_array()
        .into_iter()
        .flatten()
    {
        let node = machine["node"].as_str().unwrap_or_default();
        let taken = on_disk(&tool.home.join("state/labs/bare@1/nodes").join(node));
        if taken > 5 << 20 {
            return Err(format!("{node} of a fork at rest takes {taken} bytes"));
        }
    }
    let ports = ports(&tool.record("bare@1")?);
    tool.ok(&["down", "bare@1"])?;
    let left = tool.leaks(&ports);
    same(
        "leaks of the fork",
        left.iter().filter(|l| l.contains("bare@1")).count(),
        0,
    )
}

/// Bytes that `dir` takes by itself: frozen layers are links to what the checkpoint has.
fn on_disk(dir: &std::path::Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter_map(|e| e.metadata().ok())
        .filter(|m| m.is_file() && m.nlink() == 1)
        .map(|m| m.blocks() * 512)
        .sum()
}

/// The supervisor dies in the middle of a restore: the lab says so, and `up` brings it to where it was going.
fn cut_short(tool: &Tool) -> Result<(), String> {
    let (a, b) = sharers(tool)?;
    write_block(tool, &a, "before")?;
    keep(tool, "one")?;
    write_block(tool, &b, "after")?;
    let supervisor = supervisor(tool)?;
    let mut restoring = tool
        .command(&["restore", "bare", "one"])
        .spawn()
        .map_err(|e| e.to_string())?;
    wait_for("see the machines end", Duration::from_secs(30), || {
        let record = tool.record("bare")?;
        match record["restoring"].as_str() {
            Some("one") => Ok(()),
            _ => Err("nothing is being restored".into()),
        }
    })?;
    kill(supervisor)?;
    let status = restoring.wait().map_err(|e| e.to_string())?;
    same("a restore whose supervisor died succeeds", status.success(), false)?;
    let status = tool.json(&["status", "bare"])?;
    let why = status["unhealthy"].as_str().unwrap_or_default();
    if !why.contains("brought back from one") {
        return Err(format!("status says: {status}"));
    }
    tool.ok(&["up", "bare"])?;
    for node in [&a, &b] {
        same(
            "block 7 after the second try",
            read_block(tool, node)?.as_str(),
            "before",
        )?;
    }
    same("machines", tool.machines(), 3)
}

fn networks(tool: &Tool) -> Result<(), String> {
    let record = tool.record("bare")?;
    let nodes = &record["wish"]["lab"]["nodes"];
    let (a, b) = (
        nodes[0]["name"].as_str().unwrap_or_default(),
        nodes[1]["name"].as_str().unwrap_or_default(),
    );
    let nic = &nodes[1]["nics"][0];
    let (network, address) = (
        nic["network"].as_str().unwrap_or_default(),
        nic["address"].as_str().unwrap_or_default(),
    );
    let ping = |count: &str| tool.run(&["exec", "bare", a, "--", "ping", "-c", count, "-W", "2", address]);
    if !ping("2")?.status.success() {
        return Err(format!("{a} does not reach {b} at {address}"));
    }
    tool.ok(&["fault", "bare", "cut", "--on", b, &format!("network={network}")])?;
    let cut = ping("2")?;
    let healed = tool.json(&["heal", "bare"])?;
    if cut.status.success() {
        return Err("frames crossed a cut".into());
    }
    same(
        "the cut's proof of effect",
        healed[0]["effective"].as_bool(),
        Some(true),
    )?;
    if !ping("2")?.status.success() {
        return Err("no frame crosses after the heal".into());
    }
    Ok(())
}

/// Neither the fabric's sockets nor QEMU's take a frame of another account.
fn another_account(tool: &Tool) -> Result<(), String> {
    let record = tool.record("bare")?;
    let ports = record["ports"].as_array().into_iter().flatten();
    let ends = ports.flat_map(|p| [&p["fabric"], &p["local"]]);
    let sockets: Vec<PathBuf> = ends.filter_map(|e| e.as_str().map(PathBuf::from)).collect();
    if sockets.len() != 12 || !sockets.iter().all(|s| s.exists()) {
        return Err(format!("not the two ends of six cables: {sockets:?}"));
    }
    same(
        "another account",
        another::forge(&sockets)?,
        vec!["Permission denied".to_owned(); 12],
    )?;
    // From ours it would: the test is one.
    let machines: Vec<PathBuf> = sockets
        .iter()
        .filter(|s| s.extension().is_some_and(|n| n.len() == 1))
        .cloned()
        .collect();
    same("our own account", another::send(&machines)?, vec!["sent".to_owned(); 6])?;
    let open: Vec<String> = tool
        .processes()
        .iter()
        .flat_map(|(_, cmdline)| cmdline.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
        .filter(|word| word.contains("udp"))
        .collect();
    same("machines with UDP ports", open, Vec::new())
}

/// The SSH greeting of a machine through the workstation's own port, and its segments in a capture.
fn forward(tool: &Tool) -> Result<(), String> {
    let record = tool.record("bare")?;
    let node = record["wish"]["lab"]["nodes"][0]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let file = tool.home.join("forward.pcapng");
    let path = file.display().to_string();
    let capture = tool
        .command(&["capture", "bare", "--node", "workstation", "-o", &path])
        .spawn()
        .map_err(|e| e.to_string())?;
    let frames = || std::fs::metadata(&file).map_or(0, |m| m.len());
    wait_for("see the capture begin", Duration::from_secs(20), || match frames() {
        0 => Err("nothing is written".into()),
        _ => Ok(()),
    })?;
    let before = frames();
    let (child, at) = leads_to_ssh(tool, &node)?;
    let greeted = greeting(&at);
    for process in [child, capture] {
        interrupt(process)?;
    }
    greeted.map_err(|e| format!("{at}: {e}"))?;
    let bytes = std::fs::read(&file).map_err(|e| e.to_string())?;
    let _ = std::fs::remove_file(&file);
    same("more was captured", bytes.len() as u64 > before, true)?;
    same(
        "the greeting in the capture",
        bytes.windows(8).any(|w| w == b"SSH-2.0-"),
        true,
    )
}

/// `forward` of a free port to a node's SSH server, and where it listens.
fn leads_to_ssh(tool: &Tool, node: &str) -> Result<(Child, String), String> {
    let mut child = tool
        .command(&["forward", "bare", &format!("0:{node}:22"), "--json"])
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    let said = BufReader::new(child.stdout.take().ok_or("no stdout")?);
    let at = said
        .lines()
        .map_while(Result::ok)
        .find_map(|l| Some(l.split_once("\"listen\": \"")?.1.split('"').next()?.to_owned()))
        .ok_or("forward does not say where it listens")?;
    Ok((child, at))
}

/// Waits for an SSH server's first word.
fn greeting(at: &str) -> std::io::Result<()> {
    let mut stream = std::net::TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut word = [0; 4];
    stream.read_exact(&mut word)?;
    match &word {
        b"SSH-" => Ok(()),
        other => Err(std::io::Error::other(format!("it says {}", other.escape_ascii()))),
    }
}

/// Ends a process as Ctrl-C does.
fn interrupt(process: Child) -> Result<(), String> {
    let pid = rustix::process::Pid::from_child(&process);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).map_err(|e| e.to_string())?;
    let ended = process.wait_with_output().map_err(|e| e.to_string())?;
    same("exit code after Ctrl-C", ended.status.code(), Some(0))
}

fn process_list(tool: &Tool) -> Result<(), String> {
    let keys = tool.home.join("state/labs/bare/keys");
    let key = std::fs::read_to_string(keys.join("id")).map_err(|e| e.to_string())?;
    let secret = key.lines().nth(2).ok_or("the key is shorter than three lines")?;
    let all = std::process::Command::new("ps")
        .args(["axww", "-o", "args"])
        .output()
        .map_err(|e| e.to_string())?;
    let all = text(&all.stdout);
    if !all.contains("qemu-system") {
        return Err("ps shows no machine".into());
    }
    same(
        "a line of the private key in the process list",
        all.contains(secret),
        false,
    )?;
    // Nor as base64, as credentials carry it.
    same("`PRIVATE KEY` in the process list", all.contains("PRIVATE KEY"), false)
}

/// Takes one connection on a port and says how much came.
const SINK: &str = r#"$l = IO::Socket::INET->new(Listen => 1, LocalPort => $ARGV[0]) or die $!;
$c = $l->accept; while (($r = sysread($c, $b, 1 << 18)) > 0) { $n += $r } syswrite($c, "$n\n");"#;
/// Sends for six seconds and prints what arrived.
const SEND: &str = r#"$s = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1]) or die $!;
for (1 .. 60) { syswrite($s, "x" x 65536) or die $!; select(undef, undef, undef, 0.1) }
shutdown($s, 1); print scalar <$s>;"#;

/// A transfer from the first machine to the second that takes six seconds.
fn transfer(tool: &Tool) -> Result<Child, String> {
    let record = tool.record("bare")?;
    let nodes = &record["wish"]["lab"]["nodes"];
    let name = |n: usize| nodes[n]["name"].as_str().unwrap_or_default();
    let to = nodes[1]["nics"][0]["address"].as_str().unwrap_or_default();
    let perl = ["perl", "-MIO::Socket::INET", "-e"];
    let background = "setsid -f perl -MIO::Socket::INET -e \"$0\" 5001 </dev/null >/dev/null 2>&1";
    tool.exec("bare", name(1), &["sh", "-c", background, SINK])?;
    let listens = "until ss -ltn | grep -q :5001; do sleep 0.1; done";
    tool.exec("bare", name(1), &["timeout", "20", "sh", "-c", listens])?;
    // Over SSH: a command that `exec` runs ends with the supervisor.
    tool.command(&[&["ssh", "bare", name(0), "--"], &perl[..], &[SEND, to, "5001"]].concat())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())
}

fn adopt(tool: &Tool) -> Result<(), String> {
    let sending = transfer(tool)?;
    let before = tool.json(&["status", "bare"])?;
    kill(supervisor(tool)?)?;
    let after = tool.json(&["status", "bare"])?;
    same("QEMU's processes", pids(&after), pids(&before))?;
    // Every time is told, that of an earlier test too.
    let dark = |status: &serde_json::Value| status["dark"].as_array().map_or(0, Vec::len);
    same("dark times told", dark(&after), dark(&before) + 1)?;
    let sent = sending.wait_with_output().map_err(|e| e.to_string())?;
    same(
        "bytes of a connection that was open",
        text(&sent.stdout).trim(),
        "3932160",
    )?;
    networks(tool)
}

fn supervisor(tool: &Tool) -> Result<u32, String> {
    supervisor_of(tool, "bare")
}

/// The process of a lab's or fork's supervisor.
pub fn supervisor_of(tool: &Tool, instance: &str) -> Result<u32, String> {
    let wanted = ["supervise", instance];
    let ours = |cmdline: &str| cmdline.split_whitespace().rev().take(2).collect::<Vec<_>>() == [wanted[1], wanted[0]];
    let found = tool.processes().into_iter().find(|(_, c)| ours(c));
    found.map(|(pid, _)| pid).ok_or(format!("no supervisor of {instance}"))
}

/// Ends a process at once, and returns when it is gone.
pub fn kill(pid: u32) -> Result<(), String> {
    let target = rustix::process::Pid::from_raw(pid as i32).ok_or("no pid")?;
    rustix::process::kill_process(target, rustix::process::Signal::KILL).map_err(|e| e.to_string())?;
    wait_for("see the process end", Duration::from_secs(10), || {
        if failoverlab::process::runs(pid) {
            Err("it lives".into())
        } else {
            Ok(())
        }
    })
}

/// The second `up` of the same lab restores what the first one kept; another seed is another lab, and so boots.
fn warm(tool: &Tool) -> Result<(), String> {
    Lab::kept(tool, "bare")?;
    let back = ["start-supervisor", "restore"].map(str::to_owned);
    same("the steps", steps(tool, "bare", &[])?, back.to_vec())?;
    for other in [&["--cold"][..], &["--seed", "99"]] {
        let boots = steps(tool, "bare", other)?.iter().any(|s| s == "start-machine");
        same("it boots", boots, true)?;
    }
    let up = tool.json(&["up", "bare"])?;
    eprintln!("  {} s", up["seconds"]);
    same("steps done", up["steps"].as_u64(), Some(1))?;
    networks(tool)?;
    tool.ok(&["down", "bare"]).map(drop)
}

fn interrupted(tool: &Tool) -> Result<(), String> {
    let mut child = tool
        .command(&["up", "bare", "--cold"])
        .spawn()
        .map_err(|e| e.to_string())?;
    wait_for("a machine to start", Duration::from_secs(60), || {
        match tool.machines() {
            0 => Err("no QEMU process".into()),
            _ => Ok(()),
        }
    })?;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).map_err(|e| e.to_string())?;
    let status = child.wait().map_err(|e| e.to_string())?;
    same("exit code", status.code(), Some(130))?;
    wait_for("everything to go", Duration::from_secs(30), || match tool.leaks(&[]) {
        left if left.is_empty() => Ok(()),
        left => Err(left.join(", ")),
    })
}

/// A second `up` waits behind the first one, and an early `status` is asked beside it: neither the end of that `status` nor the
/// interruption of the first `up` ends the supervisor under the second.
fn others_go_on(tool: &Tool) -> Result<(), String> {
    let begin = |args: &[&str]| tool.command(args).spawn().map_err(|e| e.to_string());
    let first = begin(&["up", "bare", "--cold"])?;
    wait_for("see the supervisor", Duration::from_secs(60), || {
        supervisor_of(tool, "bare").map(drop)
    })?;
    // Whatever it says at this moment.
    tool.run(&["status", "bare"])?;
    wait_for("a machine to start", Duration::from_secs(60), || {
        match tool.machines() {
            0 => Err("no QEMU process".into()),
            _ => Ok(()),
        }
    })?;
    let second = begin(&["up", "bare"])?;
    wait_for("see the second one ask", Duration::from_secs(60), || {
        let asks = failoverlab::process::runs(second.id()) && connected(second.id())?;
        asks.then_some(()).ok_or_else(|| "it has no connection".to_owned())
    })?;
    let pid = rustix::process::Pid::from_child(&first);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).map_err(|e| e.to_string())?;
    let ended = first.wait_with_output().map_err(|e| e.to_string())?;
    same("exit code of the first one", ended.status.code(), Some(130))?;
    let ended = second.wait_with_output().map_err(|e| e.to_string())?;
    same("exit code of the second one", ended.status.code(), Some(0))?;
    let status = tool.json(&["status", "bare"])?;
    same("machines", status["machines"].as_array().map(Vec::len), Some(3))?;
    tool.ok(&["down", "bare"]).map(drop)
}

/// Whether a process has a socket open.
fn connected(pid: u32) -> Result<bool, String> {
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).map_err(|e| e.to_string())?;
    let names = open.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    Ok(names.into_iter().any(|to| to.to_string_lossy().starts_with("socket:")))
}
