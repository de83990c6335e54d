//! The runtime's daemon hangs, dies and finds its files damaged, on real machines.
//!
//! `FAILOVERLAB_SOAK_DAMAGE` says how many rounds of damage (80 where absent: forty kills and forty power cuts).

use super::super::tool::{Tool, same, wait_for};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const LAB: &str = "ccr";
const LATER: Duration = Duration::from_secs(600);

/// A stopped daemon is found by its own machine, on the passive member and on the active one, and started anew; the copy is healthy again.
pub fn hung(tool: &Tool) -> Result<(), String> {
    for role in ["passive", "active"] {
        let node = member(tool, role)?;
        let before = restarts(tool, &node)?;
        tool.ok(&["fault", LAB, "kill", "--on", &node, "process=ccrd", "signal=STOP"])?;
        wait_for("see the daemon started anew", LATER, || {
            let now = restarts(tool, &node)?;
            (now > before).then_some(()).ok_or_else(|| format!("{now} restarts"))
        })?;
        tool.ok(&["heal", LAB])?;
        healthy(tool)?;
    }
    Ok(())
}

/// Again and again the passive member's daemon is killed, or its machine loses its power, and one byte of one of its files is another one
/// when it comes back. The service goes on, the copy is healthy in the end and good enough to serve, and nothing acknowledged is missing.
pub fn damaged(tool: &Tool) -> Result<(), String> {
    let rounds: u64 = match std::env::var("FAILOVERLAB_SOAK_DAMAGE") {
        Ok(n) => n.parse().map_err(|e| format!("FAILOVERLAB_SOAK_DAMAGE={n}: {e}"))?,
        Err(_) => 80,
    };
    let load = Load::begin(tool)?;
    for round in 0..rounds {
        let passive = member(tool, "passive")?;
        if round % 2 == 1 {
            tool.ok(&["fault", LAB, "power-off", "--on", &passive])?;
            tool.ok(&["heal", LAB])?;
            wait_for("reach the machine", LATER, || {
                tool.exec(LAB, &passive, &["true"]).map(drop)
            })?;
        }
        eprintln!("  round {round}: {passive} {}", damage(tool, &passive, round)?.trim());
        load.goes_on()?;
        mended(tool, &passive)?;
        wait_for("move to the mended member", LATER, || {
            tool.exec(LAB, &passive, &["ccrctl", "move", &passive, "--comment", "soak"])
                .map(drop)
        })?;
        healthy(tool)?;
    }
    let acknowledged = load.end()?;
    wait_for("see the queue empty", LATER, || {
        let queued = runtime(tool, "hub")?["hub"]["queued"].as_u64();
        same("queued messages", queued, Some(0))
    })?;
    let dump = tool.exec(LAB, &member(tool, "active")?, &["ccrctl", "dump"])?;
    let dump: Value = serde_json::from_str(&dump).map_err(|e| e.to_string())?;
    let messages = dump["groups"].as_array().into_iter().flatten();
    let messages = messages.flat_map(|g| g["messages"].as_array().into_iter().flatten());
    let there: BTreeSet<&str> = messages.filter_map(|m| m["key"].as_str()).collect();
    let missing: Vec<&String> = acknowledged.iter().filter(|k| !there.contains(k.as_str())).collect();
    eprintln!("  {} acknowledged, {} there", acknowledged.len(), there.len());
    same("missing messages", missing, Vec::new())?;
    same("whether there was load", acknowledged.len() as u64 >= rounds, true)?;
    Ok(())
}

/// What a node's runtime says of itself.
fn runtime(tool: &Tool, node: &str) -> Result<Value, String> {
    let said = tool.exec(LAB, node, &["ccrctl", "status", "--json"])?;
    serde_json::from_str(&said).map_err(|e| format!("{e}: {said}"))
}

/// The member that is active or passive, once there is one.
fn member(tool: &Tool, role: &str) -> Result<String, String> {
    let mut found = String::new();
    wait_for("know who serves", LATER, || {
        let both = ["node1", "node2"].map(|n| runtime(tool, n));
        let active = both.iter().flatten().find_map(|s| {
            let online = s["service"]["state"] == "Online" && s["service"]["active"] == s["node"];
            online.then(|| s["node"].as_str().unwrap_or_default().to_owned())
        });
        let active = active.ok_or("nobody says so")?;
        found = match (role, active.as_str()) {
            ("active", _) => active,
            (_, "node1") => "node2".to_owned(),
            _ => "node1".to_owned(),
        };
        Ok(())
    })?;
    Ok(found)
}

fn healthy(tool: &Tool) -> Result<(), String> {
    wait_for("see it healthy", LATER, || {
        let status = tool.json(&["status", LAB])?;
        same("why it is not healthy", status["unhealthy"].as_str(), None)
    })
}

/// How often systemd has started the daemon anew.
fn restarts(tool: &Tool, node: &str) -> Result<u64, String> {
    let argv = ["systemctl", "show", "ccrd.service", "--property=NRestarts", "--value"];
    let said = tool.exec(LAB, node, &argv)?;
    said.trim().parse().map_err(|e| format!("{e}: {said}"))
}

/// Kills the daemon and flips a bit in a file, chosen by the number of the round; which.
fn damage(tool: &Tool, node: &str, round: u64) -> Result<String, String> {
    let script = format!(
        r#"set -eu
systemctl kill --signal=KILL ccrd.service
systemctl stop ccrd.service
set -- $(find /data/ccrd -type f -size +0 | sort)
shift $(( ({round} * 7919 + 13) % $# ))
size=$(stat -c %s "$1")
at=$(( ({round} * 104729 + 71) % size ))
old=$(od -An -tu1 -j "$at" -N 1 "$1")
printf "\\$(printf %03o $(( old ^ 4 )))" | dd of="$1" bs=1 seek="$at" conv=notrunc status=none
sync
echo "byte $at of $1"
systemctl start --no-block ccrd.service"#
    );
    tool.exec(LAB, node, &["sh", "-c", &script])
}

/// The copy on a node becomes healthy, with what an operator does who reads what the node says.
fn mended(tool: &Tool, node: &str) -> Result<(), String> {
    let mut reseeded = None;
    wait_for("see the copy mended", LATER, || {
        let Ok(status) = runtime(tool, node) else {
            // The record of the cluster, which the other member has as well.
            let script = "journalctl -u ccrd.service -n 20 --no-pager | grep -q 'cluster.json: damaged' || exit 0
mv /data/ccrd/cluster.json /data/ccrd/cluster.json.bad && systemctl restart --no-block ccrd.service";
            tool.exec(LAB, node, &["sh", "-c", script])?;
            return Err("its daemon does not answer".into());
        };
        let copies = status["copies"].as_array().into_iter().flatten();
        let mine = copies.filter(|c| c["node"] == *node).collect::<Vec<_>>();
        if mine.iter().any(|c| c["status"] == "Failed") {
            let why = mine.iter().map(|c| c["error"].to_string()).collect::<String>();
            if reseeded.as_ref() != Some(&why) {
                let _ = tool.exec(LAB, node, &["ccrctl", "reseed"]);
                reseeded = Some(why);
            }
        }
        let well = |c: &&Value| c["status"] == "Healthy" && c["copy_queue"].as_u64().is_some_and(|q| q <= 2);
        let all = !mine.is_empty() && mine.iter().all(well);
        all.then_some(()).ok_or_else(|| format!("{mine:?}"))
    })
}

/// Mail to the hub over a port of the workstation, until it is told to end.
struct Load {
    forward: Child,
    port: u16,
    over: Arc<AtomicBool>,
    client: std::thread::JoinHandle<Vec<String>>,
}

impl Load {
    fn begin(tool: &Tool) -> Result<Self, String> {
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
        let port = free.local_addr().map_err(|e| e.to_string())?.port();
        drop(free);
        let spec = format!("{port}:hub:25");
        let forward = tool
            .command(&["forward", LAB, &spec])
            .spawn()
            .map_err(|e| e.to_string())?;
        let over = Arc::new(AtomicBool::new(false));
        let told = over.clone();
        let client = std::thread::spawn(move || {
            let mut acknowledged = Vec::new();
            for n in 0.. {
                if told.load(Ordering::Relaxed) {
                    break;
                }
                let key = format!("k{n}@soak");
                if submit(port, &key).is_ok() {
                    acknowledged.push(key);
                }
                // Its rate.
                std::thread::sleep(Duration::from_millis(100));
            }
            acknowledged
        });
        let load = Self {
            forward,
            port,
            over,
            client,
        };
        load.goes_on()?;
        Ok(load)
    }

    /// The hub takes mail.
    fn goes_on(&self) -> Result<(), String> {
        wait_for("see mail taken", LATER, || submit(self.port, "look@soak"))
    }

    /// Ends it; what was acknowledged.
    fn end(mut self) -> Result<Vec<String>, String> {
        self.over.store(true, Ordering::Relaxed);
        let acknowledged = self.client.join().map_err(|_| "the client panicked")?;
        self.forward.kill().map_err(|e| e.to_string())?;
        self.forward.wait().map_err(|e| e.to_string())?;
        Ok(acknowledged)
    }
}

/// One message of 8 KiB to the hub; good where it has its 250.
fn submit(port: u16, key: &str) -> Result<(), String> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).map_err(|e| e.to_string())?;
    let patience = Some(Duration::from_secs(60));
    stream.set_read_timeout(patience).map_err(|e| e.to_string())?;
    let mut wire = BufReader::new(stream);
    let body = format!("Message-ID: <{key}>\r\n\r\n{}\r\n.\r\n", "x".repeat(8 << 10));
    let lines = [
        "EHLO soak\r\n",
        "MAIL FROM:<a@lab>\r\n",
        "RCPT TO:<ann@lab>\r\n",
        "DATA\r\n",
        &body,
    ];
    for (line, code) in [""]
        .into_iter()
        .chain(lines)
        .zip(["220", "250", "250", "250", "354", "250"])
    {
        wire.get_mut().write_all(line.as_bytes()).map_err(|e| e.to_string())?;
        loop {
            let mut answer = String::new();
            wire.read_line(&mut answer).map_err(|e| e.to_string())?;
            if !answer.starts_with(code) {
                return Err(answer);
            }
            if answer.as_bytes().get(3) != Some(&b'-') {
                break;
            }
        }
    }
    Ok(())
}
