//! `labs/bare`: three machines, two networks, one shared disk, no runtime.

use super::Test;
use super::tool::{Tool, ports, same, text, wait_for};
use std::time::Duration;

pub const TRIALS: &[(&str, Test)] = &[
    ("bare_comes_up_and_again_changes_nothing", up),
    ("bare_block_written_on_one_member_is_read_on_the_other", shared_disk),
    ("bare_networks_carry_frames_and_a_cut_stops_them", networks),
    ("bare_no_secret_is_in_the_process_list", process_list),
    ("bare_a_killed_supervisor_is_replaced_and_adopts_the_machines", adopt),
    ("bare_down_leaves_nothing", down),
    ("bare_an_interrupted_up_leaves_nothing", interrupted),
];

fn up(tool: &Tool) -> Result<(), String> {
    tool.ok(&["up", "bare"])?;
    let status = tool.json(&["status", "bare"])?;
    same("machines", status["machines"].as_array().map(Vec::len), Some(3))?;
    for m in status["machines"].as_array().into_iter().flatten() {
        same("state", m["domain"].as_str(), Some("running"))?;
        // The kernel's own word that it is a machine of its own, with the name that the lab file gave.
        let node = m["node"].as_str().unwrap_or_default();
        same("host name", tool.exec("bare", node, &["uname", "-n"])?.trim(), node)?;
    }
    let again = tool.json(&["up", "bare"])?;
    same("steps of a second up", again["steps"].as_u64(), Some(0))
}

fn shared_disk(tool: &Tool) -> Result<(), String> {
    let record = tool.record("bare")?;
    let disk = &record["wish"]["lab"]["shared_disks"][0];
    let serial = disk["serial"].as_str().ok_or("no shared disk in the record")?;
    let by: Vec<&str> = disk["shared_by"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|n| n.as_str())
        .collect();
    let [a, b, ..] = by.as_slice() else {
        return Err(format!("shared by {by:?}"));
    };
    let device = format!("/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_{serial}");
    let find = format!(
        "for d in /sys/block/sd*; do [ \"$(cat $d/device/vpd_pg80 | tr -dc a-z0-9-)\" = {serial} ] && echo /dev/${{d##*/}}; done"
    );
    let dev = |node: &str| -> Result<String, String> {
        let out = tool.exec("bare", node, &["sh", "-c", &find])?;
        match out.trim() {
            "" => Err(format!("{node} has no disk of serial {serial} ({device})")),
            d => Ok(d.to_owned()),
        }
    };
    let mark = format!("written-{}", std::process::id());
    let write = format!(
        "printf %-4096s {mark} | dd of={} bs=4096 count=1 seek=7 oflag=direct conv=notrunc status=none",
        dev(a)?
    );
    tool.exec("bare", a, &["sh", "-c", &write])?;
    let read = format!("dd if={} bs=4096 count=1 skip=7 iflag=direct status=none", dev(b)?);
    same(
        "block 7",
        tool.exec("bare", b, &["sh", "-c", &read])?.trim(),
        mark.as_str(),
    )
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

fn adopt(tool: &Tool) -> Result<(), String> {
    let before = tool.json(&["status", "bare"])?;
    let supervisor = tool.json(&["ls"])?[0]["supervisor"]
        .as_u64()
        .ok_or("no supervisor in ls")?;
    let pid = rustix::process::Pid::from_raw(supervisor as i32).ok_or("no pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).map_err(|e| e.to_string())?;
    wait_for("the supervisor to die", Duration::from_secs(10), || {
        let gone = tool.processes().iter().all(|(p, _)| u64::from(*p) != supervisor);
        if gone { Ok(()) } else { Err("it lives".into()) }
    })?;
    let after = tool.json(&["status", "bare"])?;
    let pids = |s: &serde_json::Value| -> Vec<Option<u64>> {
        s["machines"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|m| m["pid"].as_u64())
            .collect()
    };
    same("QEMU's processes", pids(&after), pids(&before))?;
    same("dark times told", after["dark"].as_array().map(Vec::len), Some(1))?;
    networks(tool)
}

fn down(tool: &Tool) -> Result<(), String> {
    let ports = ports(&tool.record("bare")?);
    if ports.len() < 9 {
        return Err(format!("the record names too few ports to look for: {ports:?}"));
    }
    tool.ok(&["down", "bare"])?;
    same("leftovers", tool.leftovers(&ports), Vec::new())?;
    let again = tool.ok(&["down", "bare"])?;
    same("a second down", again.trim(), "bare: was not up")
}

fn interrupted(tool: &Tool) -> Result<(), String> {
    let mut child = tool.command(&["up", "bare"]).spawn().map_err(|e| e.to_string())?;
    wait_for("a machine to start", Duration::from_secs(60), || {
        match tool.processes().iter().any(|(_, c)| c.contains("qemu-system")) {
            true => Ok(()),
            false => Err("no QEMU process".into()),
        }
    })?;
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).map_err(|e| e.to_string())?;
    let status = child.wait().map_err(|e| e.to_string())?;
    same("exit code", status.code(), Some(130))?;
    wait_for("everything to go", Duration::from_secs(30), || {
        match tool.leftovers(&[]) {
            left if left.is_empty() => Ok(()),
            left => Err(left.join(", ")),
        }
    })
}
