//! QEMU's guest agent: a way in through a virtio-serial port of its own. No partition, full firewall or dead sshd cuts it.

use super::ssh::MAX_OUTPUT;
use super::transfer::{text_path, upload};
use super::{Command, Followed, Output, Remote, excerpt};
use crate::error::{Error, Problem, Result};
use crate::hypervisor::Hypervisor;
use crate::wait::{Deadline, Probe, wait_until};
use base64ct::{Base64, Encoding};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Most that the agent itself keeps of each output of a command; what is more it drops and says so.
pub const AGENT_OUTPUT: usize = 16 << 20;
/// Longest wait for the answer to one request: the agent answers in milliseconds or is not there.
const ANSWER: Duration = Duration::from_secs(10);
/// Bytes of a file in one request.
const CHUNK: usize = 256 << 10;

type Call = Box<dyn FnMut(&str, Duration) -> Result<String> + Send>;

/// The agent of one node.
pub struct QemuAgent {
    node: String,
    call: Call,
}

impl fmt::Debug for QemuAgent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QemuAgent")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// Every answer of the agent: `return`, or an error of its own.
#[derive(Deserialize)]
struct Answer<T> {
    #[serde(rename = "return")]
    result: Option<T>,
    error: Option<QemuError>,
}

#[derive(Deserialize)]
struct QemuError {
    desc: String,
}

#[derive(Deserialize)]
struct Started {
    pid: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct ExecStatus {
    exited: bool,
    exitcode: Option<i32>,
    signal: Option<i32>,
    out_data: Option<String>,
    err_data: Option<String>,
    #[serde(default)]
    out_truncated: bool,
    #[serde(default)]
    err_truncated: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Chunk {
    buf_b64: String,
    eof: bool,
}

/// What a request without a result answers.
#[derive(Deserialize)]
struct Nothing {}

impl QemuAgent {
    /// The agent of domain `node`.
    pub fn new(hypervisor: Arc<dyn Hypervisor>, node: &str) -> Self {
        let domain = node.to_owned();
        Self::over(node, move |json, timeout| hypervisor.agent(&domain, json, timeout))
    }

    /// The agent behind any way that carries one JSON request and brings its JSON answer.
    pub fn over(node: &str, call: impl FnMut(&str, Duration) -> Result<String> + Send + 'static) -> Self {
        Self {
            node: node.to_owned(),
            call: Box::new(call),
        }
    }

    /// The machine.
    pub fn node(&self) -> &str {
        &self.node
    }

    fn ask<T: DeserializeOwned>(&mut self, execute: &str, arguments: Value, deadline: Deadline) -> Result<T> {
        let request = json!({"execute": execute, "arguments": arguments}).to_string();
        let answer = (self.call)(&request, deadline.at_most(ANSWER).left().max(Duration::from_secs(1)))?;
        let failed = |seen: String| {
            Error::Operation(
                Problem::new(format!("ask the guest agent ({execute})"))
                    .on(&self.node)
                    .observed(seen),
            )
        };
        let parsed: Answer<T> = serde_json::from_str(&answer)
            .map_err(|e| failed(format!("no answer of an agent ({e}): {}", excerpt(answer.as_bytes()))))?;
        match parsed {
            Answer { error: Some(e), .. } => Err(failed(e.desc)),
            Answer { result: Some(r), .. } => Ok(r),
            _ => Err(failed(format!(
                "an answer without a result: {}",
                excerpt(answer.as_bytes())
            ))),
        }
    }

    /// Whether it answers.
    pub fn ping(&mut self, deadline: Deadline) -> Result<()> {
        self.ask::<Nothing>("guest-ping", json!({}), deadline).map(drop)
    }

    /// Waits until it answers: after a boot, a restore or an adoption.
    pub fn wait(&mut self, deadline: Deadline) -> Result<()> {
        wait_until(
            &format!("reach the guest agent of {}", self.node),
            deadline,
            || match self.ping(deadline) {
                Ok(()) => Ok(Probe::Ready(())),
                Err(Error::Operation(p)) => Ok(Probe::NotYet(p.observed.unwrap_or(p.what))),
                Err(e) => Err(e),
            },
        )
    }

    /// The identifier that the kernel made at boot.
    pub fn boot_id(&mut self, deadline: Deadline) -> Result<String> {
        const WHAT: &str = "read the boot id";
        let content = self.download(Path::new("/proc/sys/kernel/random/boot_id"), deadline)?;
        let id = String::from_utf8_lossy(&content).trim().to_owned();
        if id.len() == 36 {
            Ok(id)
        } else {
            Err(Error::Operation(
                Problem::new(WHAT).on(&self.node).observed(excerpt(&content)),
            ))
        }
    }

    /// The machine's clock: time since 1970.
    pub fn time(&mut self, deadline: Deadline) -> Result<Duration> {
        self.ask("guest-get-time", json!({}), deadline)
            .map(Duration::from_nanos)
    }

    fn output(&self, status: ExecStatus) -> Result<Output> {
        let failed = |seen: &str| {
            Error::Operation(
                Problem::new("run a command through the guest agent")
                    .on(&self.node)
                    .observed(seen),
            )
        };
        if status.out_truncated || status.err_truncated {
            return Err(failed("it printed more than the agent keeps"));
        }
        let bytes = |data: Option<String>| {
            Base64::decode_vec(&data.unwrap_or_default()).map_err(|e| failed(&format!("its output is no Base64: {e}")))
        };
        let code = match (status.signal, status.exitcode) {
            (Some(signal), _) => 128 + signal,
            (None, Some(code)) => code,
            (None, None) => return Err(failed("it ended without a status")),
        };
        Ok(Output {
            status: code,
            stdout: bytes(status.out_data)?,
            stderr: bytes(status.err_data)?,
        })
    }

    fn read_open(&mut self, handle: i64, deadline: Deadline) -> Result<Vec<u8>> {
        let mut content = Vec::new();
        loop {
            let chunk: Chunk = self.ask("guest-file-read", json!({"handle": handle, "count": CHUNK}), deadline)?;
            let bytes = Base64::decode_vec(&chunk.buf_b64).map_err(|e| {
                Error::Operation(
                    Problem::new("read a file through the guest agent")
                        .on(&self.node)
                        .observed(format!("no Base64: {e}")),
                )
            })?;
            let empty = bytes.is_empty();
            content.extend_from_slice(&bytes);
            if chunk.eof || empty {
                return Ok(content);
            }
            if content.len() > MAX_OUTPUT || deadline.passed() {
                return Err(Error::Operation(
                    Problem::new("read a file through the guest agent")
                        .on(&self.node)
                        .observed(format!("{} bytes and no end", content.len())),
                ));
            }
        }
    }
}

impl Remote for QemuAgent {
    /// The agent searches `$PATH` and keeps at most [`AGENT_OUTPUT`] of each output.
    fn exec(&mut self, command: &Command, deadline: Deadline) -> Result<Output> {
        let Some((program, arguments)) = command.argv.split_first() else {
            return Err(Error::Bug(
                Problem::new("run a command")
                    .on(&self.node)
                    .observed("it names no program"),
            ));
        };
        let mut request = json!({"path": program, "arg": arguments, "capture-output": true});
        if !command.stdin.is_empty() {
            request["input-data"] = Base64::encode_string(&command.stdin).into();
        }
        let started: Started = self.ask("guest-exec", request, deadline)?;
        let what = format!("see the end of `{program}` on {}", self.node);
        let status = wait_until(&what, deadline, || {
            let status: ExecStatus = self.ask("guest-exec-status", json!({"pid": started.pid}), deadline)?;
            Ok(if status.exited {
                Probe::Ready(status)
            } else {
                Probe::NotYet("it still runs".into())
            })
        })?;
        self.output(status)
    }

    fn upload(&mut self, content: &[u8], to: &Path, mode: u32, deadline: Deadline) -> Result<()> {
        let node = self.node.clone();
        upload(self, &node, content, to, mode, deadline)
    }

    fn download(&mut self, from: &Path, deadline: Deadline) -> Result<Vec<u8>> {
        let handle: i64 = self.ask(
            "guest-file-open",
            json!({"path": text_path(from)?, "mode": "r"}),
            deadline,
        )?;
        let content = self.read_open(handle, deadline);
        let closed = self.ask::<Nothing>("guest-file-close", json!({"handle": handle}), deadline);
        let content = content?;
        closed?;
        Ok(content)
    }

    /// The agent tells nothing of a command before its end.
    fn follow(&mut self, command: &Command, _: &mut dyn FnMut(Followed<'_>) -> bool) -> Result<()> {
        Err(Error::Operation(
            Problem::new("follow a command through the guest agent")
                .on(format!("{}: {}", self.node, command.argv.join(" ")))
                .observed("the agent hands out nothing before a command has ended")
                .remedy("follow it over SSH"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(5))
    }

    /// An agent that gives these answers in order, and what it was asked.
    fn scripted(answers: &[&str]) -> (QemuAgent, Arc<Mutex<Vec<Value>>>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let mut answers: Vec<String> = answers.iter().rev().map(|a| (*a).to_owned()).collect();
        let log = asked.clone();
        let agent = QemuAgent::over("node1", move |json, _| {
            log.lock().unwrap().push(serde_json::from_str(json).unwrap());
            Ok(answers.pop().unwrap_or_default())
        });
        (agent, asked)
    }

    #[test]
    fn a_command_is_polled_to_its_end() {
        let (mut agent, asked) = scripted(&[
            r#"{"return":{"pid":7}}"#,
            r#"{"return":{"exited":false}}"#,
            r#"{"return":{"exited":true,"exitcode":3,"out-data":"aGk=","err-data":""}}"#,
        ]);
        let mut command = Command::new(["ls", "-l", "a b"]);
        command.stdin = b"in".to_vec();
        let out = agent.exec(&command, soon()).unwrap();
        assert_eq!((out.status, out.stdout, out.stderr), (3, b"hi".to_vec(), vec![]));
        let asked = asked.lock().unwrap();
        assert_eq!(asked[0]["arguments"]["arg"], json!(["-l", "a b"]));
        assert_eq!(asked[0]["arguments"]["input-data"], "aW4=");
        assert_eq!(asked[2]["arguments"]["pid"], 7);
    }

    #[test]
    fn a_signal_is_128_and_more() {
        let (mut agent, _) = scripted(&[r#"{"return":{"pid":7}}"#, r#"{"return":{"exited":true,"signal":9}}"#]);
        assert_eq!(agent.exec(&Command::new(["x"]), soon()).unwrap().status, 137);
    }

    #[test]
    fn the_agents_own_words_are_kept() {
        let (mut agent, _) =
            scripted(&[r#"{"error":{"class":"GenericError","desc":"Guest agent command failed, no such file"}}"#]);
        let e = agent.download(Path::new("/x"), soon()).unwrap_err().to_string();
        assert!(
            e.contains("no such file") && e.contains("guest-file-open") && e.contains("node1"),
            "{e}"
        );
    }

    #[test]
    fn garbage_truncation_and_what_was_cut_off_are_errors() {
        for bad in [
            "",
            "{",
            "[]",
            "{}",
            r#"{"return":3}"#,
            r#"{"return":null}"#,
            "\u{0}\u{ff}",
        ] {
            let (mut agent, _) = scripted(&[bad]);
            let e = agent.exec(&Command::new(["x"]), soon()).unwrap_err();
            assert_eq!(e.exit_code(), 5, "{bad}: {e}");
        }
        for bad in [
            r#"{"return":{"exited":true}}"#,
            r#"{"return":{"exited":true,"exitcode":0,"out-data":"%%%"}}"#,
            r#"{"return":{"exited":true,"exitcode":0,"out-data":"aGk=","out-truncated":true}}"#,
        ] {
            let (mut agent, _) = scripted(&[r#"{"return":{"pid":1}}"#, bad]);
            assert!(agent.exec(&Command::new(["x"]), soon()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_file_is_read_to_its_end_and_closed_even_if_reading_fails() {
        let (mut agent, asked) = scripted(&[
            r#"{"return":5}"#,
            r#"{"return":{"count":1,"buf-b64":"YQ==","eof":false}}"#,
            r#"{"return":{"count":1,"buf-b64":"Yg==","eof":true}}"#,
            r#"{"return":{}}"#,
        ]);
        assert_eq!(agent.download(Path::new("/x"), soon()).unwrap(), b"ab");
        assert_eq!(asked.lock().unwrap().len(), 4);
        let (mut agent, asked) = scripted(&[
            r#"{"return":5}"#,
            r#"{"return":{"buf-b64":"!","eof":false}}"#,
            r#"{"return":{}}"#,
        ]);
        assert!(agent.download(Path::new("/x"), soon()).is_err());
        assert_eq!(asked.lock().unwrap()[2]["execute"], "guest-file-close");
    }
}
