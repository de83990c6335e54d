//! The best way into a machine: the line to its agent, and SSH where no agent answers.

use crate::error::{Error, Result};
use crate::files::LabFiles;
use crate::guest::agent::{AgentRemote, Agents, Line, Owner};
use crate::guest::ssh::{Ssh, Target};
use crate::guest::{self, Remote};
use crate::wait::Deadline;
use std::io::{BufRead, BufReader};
use std::sync::Arc;
use std::time::Duration;

/// How long an agent may take to answer a hello before SSH is tried: one that is there answers in milliseconds.
pub(super) const ANSWER: Duration = Duration::from_secs(3);

/// Opens sessions with the machines of one lab.
pub trait Connector: Send + Sync + std::fmt::Debug {
    /// A session with the machine that SSH reaches by `target`.
    ///
    /// # Errors
    /// The machine does not answer, by whichever way; or it is being brought back.
    fn connect(&self, target: &Target, deadline: Deadline) -> Result<Box<dyn Remote>>;

    /// A session with a machine that may still boot, over its agent alone; whether an earlier hello was answered does not count.
    ///
    /// # Errors
    /// The agent does not answer.
    fn hello(&self, node: &str, deadline: Deadline) -> Result<Box<dyn Remote>>;

    /// Knocks until SSH answers. `seen` hears what each try saw and may end the wait.
    ///
    /// # Errors
    /// SSH does not answer until `deadline`, or `seen` has had enough.
    fn knock(
        &self,
        target: &Target,
        deadline: Deadline,
        seen: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Box<dyn Remote>>;

    /// The line to the agent of `node`.
    ///
    /// # Errors
    /// The agent does not answer.
    fn line(&self, node: &str, deadline: Deadline) -> Result<Arc<Line>>;

    /// The lines to all agents, for who brings machines back.
    fn agents(&self) -> &Agents;
}

/// The ways into real machines: their agents' sockets, and SSH.
#[derive(Debug)]
pub(super) struct Ways {
    files: LabFiles,
    agents: Agents,
}

impl Ways {
    /// Of the lab with these files, its journal among them.
    pub(super) fn new(files: LabFiles) -> Self {
        let agents = Agents::new(owner(&files));
        Self { files, agents }
    }

    /// The way over its agent alone.
    ///
    /// # Errors
    /// It does not answer.
    fn agent(&self, target: &Target, deadline: Deadline) -> Result<Box<dyn Remote>> {
        let deadline = deadline.at_most(ANSWER.min(deadline.left() / 2));
        Ok(Box::new(AgentRemote::new(self.line(&target.node, deadline)?)))
    }
}

impl Connector for Ways {
    /// Where neither its agent nor SSH answers, the error has what was seen of both.
    fn connect(&self, target: &Target, deadline: Deadline) -> Result<Box<dyn Remote>> {
        let silent = match self.agent(target, deadline) {
            Ok(remote) => return Ok(remote),
            Err(e) => e,
        };
        self.agents.check_open(&target.node)?;
        let ssh = Ssh::connect(target, deadline).map_err(|e| both(e, &silent))?;
        self.agents.check_open(&target.node)?;
        Ok(Box::new(ssh))
    }

    fn hello(&self, node: &str, deadline: Deadline) -> Result<Box<dyn Remote>> {
        let line = self.agents.renew(node, &self.files.node(node).agent(), deadline)?;
        Ok(Box::new(AgentRemote::new(line)))
    }

    fn knock(
        &self,
        target: &Target,
        deadline: Deadline,
        seen: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<Box<dyn Remote>> {
        Ok(Box::new(guest::knock(target, deadline, seen)?))
    }

    fn line(&self, node: &str, deadline: Deadline) -> Result<Arc<Line>> {
        self.agents.line(node, &self.files.node(node).agent(), deadline)
    }

    fn agents(&self) -> &Agents {
        &self.agents
    }
}

/// SSH's error, with what was seen of the agent.
fn both(ssh: Error, agent: &Error) -> Error {
    let Error::Operation(mut problem) = ssh else { return ssh };
    let seen = agent.problem().and_then(|p| p.observed.clone());
    problem.observed = match (problem.observed.take(), seen) {
        (Some(ssh), Some(agent)) => Some(format!("{ssh}; over the other way: {agent}")),
        (one, other) => one.or(other),
    };
    Error::Operation(problem)
}

/// Who has this journal has all that an earlier session acknowledged: the same as long as it is the same journal.
fn owner(files: &LabFiles) -> Owner {
    let mut head = Vec::new();
    let read = fs_err::File::open(files.events()).and_then(|f| BufReader::new(f).read_until(b'\n', &mut head));
    if read.is_err() || head.is_empty() {
        return rand::random();
    }
    let mut hasher = blake3::Hasher::new();
    hasher
        .update(files.events().as_os_str().as_encoded_bytes())
        .update(&[0]);
    hasher.update(&head);
    hasher.finalize().as_bytes()[..16]
        .try_into()
        .expect("a digest is longer")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::Home;
    use crate::guest::Command;
    use crate::guest::agent::tests::{serve, serve_stream};
    use crate::guest::keys::Keys;
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    /// A lab's files, and a target whose SSH port refuses.
    fn lab() -> (tempfile::TempDir, LabFiles, Target) {
        let dir = tempfile::tempdir().unwrap();
        let files = Home::under(dir.path()).lab("x");
        Keys::ensure(&files, ["a"]).unwrap();
        std::fs::create_dir_all(&files.run).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let target = Target::new(&files, "a", port);
        (dir, files, target)
    }

    fn within(ms: u64) -> Deadline {
        Deadline::after(Duration::from_millis(ms))
    }

    #[test]
    fn the_agent_is_the_first_way_in_and_ssh_the_other() {
        let (_dir, files, target) = lab();
        serve(&files.node("a").agent(), |_| Duration::ZERO);
        let ways = Ways::new(files.clone());
        let mut remote = ways.connect(&target, within(20_000)).unwrap();
        let command = Command::new(["sh", "-c", "exit 4"]);
        assert_eq!(remote.exec(&command, within(20_000)).unwrap().status, 4);
        // The line is shared: the next one needs no hello.
        assert!(ways.agents.standing("a").is_some());
        ways.connect(&target, within(20_000)).unwrap();
        // An agent that is there and is none, like the program of an older image: SSH is asked, and both are named.
        let (quiet, _kept) = UnixStream::pair().unwrap();
        serve_stream(&files.node("a").agent(), quiet);
        let ways = Ways::new(files);
        let e = ways.connect(&target, within(600)).unwrap_err().to_string();
        assert!(
            e.contains("over SSH") && e.contains("refused") && e.contains("not a word until time ran out"),
            "{e}"
        );
        // It is not waited for each time.
        let begin = Instant::now();
        let e = ways.connect(&target, within(60_000)).unwrap_err().to_string();
        assert!(
            e.contains("not a word") && begin.elapsed() < Duration::from_secs(2),
            "{e}"
        );
    }

    #[test]
    fn nobody_gets_into_a_machine_that_is_being_brought_back() {
        let (_dir, files, target) = lab();
        let socket = files.node("a").agent();
        serve(&socket, |_| Duration::ZERO);
        let ways = Ways::new(files);
        let mut before = ways.connect(&target, within(20_000)).unwrap();
        ways.agents.close();
        let command = Command::new(["true"]);
        assert!(before.exec(&command, within(1000)).is_err());
        let e = ways.connect(&target, within(20_000)).unwrap_err().to_string();
        assert!(e.contains("being brought back"), "{e}");
        // Who brings it back does, and then everybody.
        ways.agents.renew("a", &socket, within(20_000)).unwrap();
        assert!(ways.connect(&target, within(20_000)).is_err());
        ways.agents.open();
        let mut after = ways.connect(&target, within(20_000)).unwrap();
        assert_eq!(after.exec(&command, within(20_000)).unwrap().status, 0);
    }

    #[test]
    fn an_owner_is_known_by_its_journal() {
        let (_dir, files, _) = lab();
        assert_ne!(owner(&files), owner(&files));
        std::fs::create_dir_all(&files.state).unwrap();
        std::fs::write(files.events(), "head 1\nevent\n").unwrap();
        let first = owner(&files);
        std::fs::write(files.events(), "head 1\nevent\nevent\n").unwrap();
        assert_eq!(owner(&files), first);
        std::fs::write(files.events(), "head 2\n").unwrap();
        assert_ne!(owner(&files), first);
    }
}
