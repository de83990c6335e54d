//! The built tool in a home of its own.

use failoverlab::wait::{Deadline, Probe, wait_until};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The tool, and where it keeps everything.
#[derive(Debug)]
pub struct Tool {
    exe: PathBuf,
    pub home: PathBuf,
}

impl Tool {
    /// The tool is `FAILOVERLAB_EXE`, else the one that was built with the tests. Its home is `FAILOVERLAB_HOME`, else a short folder that stays: the image in it is built once.
    pub fn find() -> Self {
        let uid = rustix::process::getuid().as_raw();
        let home = std::env::var_os("FAILOVERLAB_HOME").map_or_else(|| format!("/tmp/flt-{uid}").into(), PathBuf::from);
        Self {
            exe: std::env::var_os("FAILOVERLAB_EXE")
                .map_or_else(|| env!("CARGO_BIN_EXE_failoverlab").into(), PathBuf::from),
            home,
        }
    }

    /// The same tool with another home.
    pub fn in_home(&self, home: &Path) -> Self {
        Self {
            exe: self.exe.clone(),
            home: home.to_owned(),
        }
    }

    /// The tool with these arguments, not yet started.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(&self.exe);
        c.args(args)
            .env("FAILOVERLAB_HOME", &self.home)
            // Labs and templates are those of the tool, not of a folder that this user may not be able to read.
            .current_dir("/")
            .stdin(Stdio::null());
        c
    }

    /// Runs it to its end.
    pub fn run(&self, args: &[&str]) -> Result<Output, String> {
        let begun = Instant::now();
        let out = self.command(args).output().map_err(|e| e.to_string())?;
        eprintln!(
            "  failoverlab {}: {} in {:.1} s",
            args.join(" "),
            out.status,
            begun.elapsed().as_secs_f64()
        );
        Ok(out)
    }

    /// Runs it and wants exit code 0; what it printed.
    pub fn ok(&self, args: &[&str]) -> Result<String, String> {
        let out = self.run(args)?;
        if !out.status.success() {
            return Err(format!(
                "failoverlab {} ended with {}\n{}",
                args.join(" "),
                out.status,
                text(&out.stderr)
            ));
        }
        Ok(text(&out.stdout))
    }

    /// Runs it with `--json` and wants exit code 0.
    pub fn json(&self, args: &[&str]) -> Result<Value, String> {
        let out = self.ok(&[args, &["--json"]].concat())?;
        serde_json::from_str(&out).map_err(|e| format!("failoverlab {}: {e}: {out}", args.join(" ")))
    }

    /// A command in a machine; what it printed.
    pub fn exec(&self, lab: &str, node: &str, argv: &[&str]) -> Result<String, String> {
        self.ok(&[&["exec", lab, node, "--"], argv].concat())
    }

    /// The lab's record.
    pub fn record(&self, lab: &str) -> Result<Value, String> {
        let path = self.home.join("state/labs").join(lab).join("lab.json");
        let bytes = std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        serde_json::from_slice(&bytes).map_err(|e| e.to_string())
    }

    /// Processes that have our home in their command line or environment: machines and supervisors.
    pub fn processes(&self) -> Vec<(u32, String)> {
        let home = self.home.display().to_string();
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else {
                continue;
            };
            if pid == std::process::id() {
                continue;
            }
            let cmdline = text(&std::fs::read(entry.path().join("cmdline")).unwrap_or_default()).replace('\0', " ");
            let environ = text(&std::fs::read(entry.path().join("environ")).unwrap_or_default());
            let ours = cmdline.contains(&home) || cmdline.contains("supervise") && environ.contains(&home);
            if ours && (cmdline.contains("qemu") || cmdline.contains("supervise")) {
                found.push((pid, cmdline));
            }
        }
        found
    }

    /// How many of them are QEMU.
    pub fn machines(&self) -> usize {
        let all = self.processes();
        all.iter().filter(|(_, c)| c.contains("qemu-system")).count()
    }

    /// What is left of labs: processes, ports that are still taken, files outside cache and runs.
    pub fn leaks(&self, ports: &[u16]) -> Vec<String> {
        let mut left: Vec<String> = self
            .processes()
            .into_iter()
            .map(|(p, c)| format!("process {p}: {c:.80}"))
            .collect();
        for port in ports {
            let free = std::net::UdpSocket::bind(("127.0.0.1", *port)).is_ok()
                && std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
            if !free {
                left.push(format!("port {port}"));
            }
        }
        for dir in ["state/labs", "run"] {
            files(&self.home.join(dir), &mut left);
        }
        left
    }

    /// Nothing of a failed test stays.
    pub fn clean_up(&self) {
        let labs = self.json(&["ls"]).unwrap_or_default();
        for lab in labs.as_array().into_iter().flatten().filter_map(|l| l["lab"].as_str()) {
            let _ = self.run(&["down", lab]);
        }
    }
}

/// A lab for one test: up when the test begins, gone when it ends, whatever came of it.
pub struct Lab<'a> {
    tool: &'a Tool,
    name: &'static str,
    gone: bool,
}

impl<'a> Lab<'a> {
    /// Brings it up: from what was kept when it was healthy, else by booting.
    pub fn up(tool: &'a Tool, name: &'static str, options: &[&str]) -> Result<Self, String> {
        // Before the step that may fail: what it leaves goes too.
        let lab = Self {
            tool,
            name,
            gone: false,
        };
        tool.ok(&[&["up", name], options].concat())?;
        Ok(lab)
    }

    /// Sees to it that the next one comes back instead of booting.
    pub fn kept(tool: &'a Tool, name: &'static str) -> Result<(), String> {
        let steps = steps(tool, name, &[])?;
        // One whose machines have only booted has the rest to do.
        if steps.iter().any(|s| s == "restore") && !steps.iter().any(|s| s == "deploy") {
            return Ok(());
        }
        Self::up(tool, name, &[])?.down()
    }

    /// Takes it down; fails where something of it is left, or of any other lab.
    pub fn down(mut self) -> Result<(), String> {
        let ports = ports(&self.tool.record(self.name)?);
        // A management port for each machine; over UDP also both ends of each cable.
        if ports.len() < 3 {
            return Err(format!("the record names too few ports to look for: {ports:?}"));
        }
        self.tool.ok(&["down", self.name])?;
        same("leaks", self.tool.leaks(&ports), Vec::new())?;
        self.gone = true;
        Ok(())
    }
}

impl Drop for Lab<'_> {
    fn drop(&mut self) {
        if !self.gone {
            self.tool.clean_up();
        }
    }
}

/// The steps that `up` would take.
pub fn steps(tool: &Tool, lab: &str, options: &[&str]) -> Result<Vec<String>, String> {
    let plan = tool.json(&[&["up", lab, "--dry-run"], options].concat())?;
    let steps = plan["steps"].as_array().into_iter().flatten();
    Ok(steps.filter_map(|s| s["action"].as_str().map(str::to_owned)).collect())
}

/// QEMU's processes, as `status` names them.
pub fn pids(status: &Value) -> Vec<Option<u64>> {
    let machines = status["machines"].as_array().into_iter().flatten();
    machines.map(|m| m["pid"].as_u64()).collect()
}

/// The ports that a lab's record names.
pub fn ports(record: &Value) -> Vec<u16> {
    let port = |v: &Value| v.as_u64().and_then(|p| u16::try_from(p).ok());
    let machines = record["machines"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|m| port(&m["ssh_port"]));
    let networks = record["ports"].as_array().into_iter().flatten();
    machines
        .chain(networks.flat_map(|p| [port(&p["local"]), port(&p["fabric"])]).flatten())
        .collect()
}

fn files(dir: &Path, into: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            files(&entry.path(), into);
        }
        into.push(entry.path().display().to_string());
    }
}

/// Looks until `probe` says yes; the last thing seen where it never does.
pub fn wait_for(what: &str, within: Duration, mut probe: impl FnMut() -> Result<(), String>) -> Result<(), String> {
    wait_until(what, Deadline::after(within), || {
        Ok(probe().map_or_else(Probe::NotYet, Probe::Ready))
    })
    .map_err(|e| e.to_string())
}

/// Fails with both sides where they differ.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, is: T, should: T) -> Result<(), String> {
    if is == should {
        Ok(())
    } else {
        Err(format!("{what}: is {is:?}, should be {should:?}"))
    }
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
