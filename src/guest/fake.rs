//! A [`Remote`] without a machine, for the tests of other rooms.

use super::{Command, Followed, Output, Remote};
use crate::error::{Error, Problem, Result};
use crate::wait::Deadline;
use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};

/// What a scripted command does.
#[derive(Debug, Clone)]
enum Answer {
    Ends(Output),
    Breaks(String),
}

/// Records what it is asked, answers what it was told to.
///
/// A command without a scripted answer is an error that names it: a test notices what it did not expect.
#[derive(Debug, Default)]
pub struct FakeRemote {
    answers: Vec<(Vec<String>, VecDeque<Answer>)>,
    /// Every command, in order.
    pub commands: Vec<Command>,
    /// The files: path → mode and content.
    pub files: BTreeMap<PathBuf, (u32, Vec<u8>)>,
}

impl FakeRemote {
    /// One that knows no command and has no file.
    pub fn new() -> Self {
        Self::default()
    }

    /// The next command that begins with `argv` ends with `status` and prints `stdout`. Several answers to the same beginning are
    /// given in order, the last one again and again; of several beginnings the longest wins.
    #[must_use]
    pub fn answer(self, argv: &[&str], status: i32, stdout: impl Into<Vec<u8>>) -> Self {
        self.script(
            argv,
            Answer::Ends(Output {
                status,
                stdout: stdout.into(),
                stderr: Vec::new(),
            }),
        )
    }

    /// Like [`FakeRemote::answer`], with a complaint.
    #[must_use]
    pub fn complain(self, argv: &[&str], status: i32, stderr: impl Into<Vec<u8>>) -> Self {
        self.script(
            argv,
            Answer::Ends(Output {
                status,
                stdout: Vec::new(),
                stderr: stderr.into(),
            }),
        )
    }

    /// The next command that begins with `argv` finds the connection dead, for this reason.
    #[must_use]
    pub fn die(self, argv: &[&str], why: &str) -> Self {
        self.script(argv, Answer::Breaks(why.to_owned()))
    }

    fn script(mut self, argv: &[&str], answer: Answer) -> Self {
        let argv: Vec<String> = argv.iter().map(|a| (*a).to_owned()).collect();
        match self.answers.iter_mut().find(|(beginning, _)| *beginning == argv) {
            Some((_, queue)) => queue.push_back(answer),
            None => self.answers.push((argv, VecDeque::from([answer]))),
        }
        self
    }

    /// The argument vectors of every command so far.
    pub fn argvs(&self) -> Vec<&[String]> {
        self.commands.iter().map(|c| c.argv.as_slice()).collect()
    }
}

impl Remote for FakeRemote {
    fn exec(&mut self, command: &Command, _: Deadline) -> Result<Output> {
        self.commands.push(command.clone());
        let failed =
            |seen: &str| Error::Operation(Problem::new("run a command").on(command.argv.join(" ")).observed(seen));
        let (_, queue) = self
            .answers
            .iter_mut()
            .filter(|(beginning, _)| command.argv.starts_with(beginning))
            .max_by_key(|(beginning, _)| beginning.len())
            .ok_or_else(|| failed("this test did not expect it"))?;
        let answer = if queue.len() > 1 {
            queue.pop_front()
        } else {
            queue.front().cloned()
        };
        match answer.expect("a script has an answer") {
            Answer::Ends(output) => Ok(output),
            Answer::Breaks(why) => Err(failed(&why)),
        }
    }

    fn upload(&mut self, content: &[u8], to: &Path, mode: u32, _: Deadline) -> Result<()> {
        self.files.insert(to.to_owned(), (mode, content.to_vec()));
        Ok(())
    }

    fn download(&mut self, from: &Path, _: Deadline) -> Result<Vec<u8>> {
        match self.files.get(from) {
            Some((_, content)) => Ok(content.clone()),
            None => Err(Error::Operation(
                Problem::new("read the file")
                    .on(from.display())
                    .observed("No such file or directory"),
            )),
        }
    }

    /// That it begins, its output, and then once nothing.
    fn follow(&mut self, command: &Command, on: &mut dyn FnMut(Followed<'_>) -> bool) -> Result<()> {
        let output = self.exec(command, Deadline::after(std::time::Duration::ZERO))?;
        let text = String::from_utf8_lossy(&output.stdout);
        let begun = Followed::Begun { ran: None };
        let lines = text.lines().map(Followed::Line);
        for heard in std::iter::once(begun).chain(lines).chain([Followed::Nothing]) {
            if !on(heard) {
                return Ok(());
            }
        }
        output.check_ok("follow a command", command.argv.join(" ")).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn soon() -> Deadline {
        Deadline::after(std::time::Duration::from_secs(1))
    }

    #[test]
    fn the_longest_beginning_answers_and_the_last_answer_stays() {
        let mut r = FakeRemote::new()
            .answer(&["a"], 1, "short")
            .answer(&["a", "b"], 0, "one")
            .answer(&["a", "b"], 0, "two");
        let mut ask = |argv: &[&str]| r.exec(&Command::new(argv.iter().copied()), soon()).unwrap().stdout;
        assert_eq!(ask(&["a", "x"]), b"short");
        assert_eq!(
            [ask(&["a", "b"]), ask(&["a", "b", "c"]), ask(&["a", "b"])],
            [&b"one"[..], b"two", b"two"]
        );
    }

    #[test]
    fn what_was_not_expected_is_an_error_that_names_it() {
        let e = FakeRemote::new().exec(&Command::new(["rm", "x"]), soon()).unwrap_err();
        assert!(e.to_string().contains("rm x"), "{e}");
    }
}
