//! Into a machine in two round trips: is it there already? if not, one stream of files and one sequence of commands.

use super::pack::{Pack, ProgramSpec};
use super::render::{RenderedFile, RenderedStep};
use super::secrets::Secrets;
use crate::error::{Error, IoContext, Problem, Result};
use crate::guest::{Command, Remote, excerpt, quote};
use crate::spec::{Lab, Node};
use crate::units::Size;
use crate::wait::Deadline;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What is deployed: the digest of everything below.
const DEPLOYED: &str = "/etc/failoverlab/deployed";
/// Which programs a machine has, as it was told when they were sent.
pub(super) const PROGRAMS: &str = "/var/lib/failoverlab/programs";
/// Largest program that is sent.
const PROGRAM_MAX: Size = Size::mib(256);
/// Permissions of a program.
const PROGRAM_MODE: u32 = 0o755;

/// What a deployment takes from the workstation.
#[derive(Debug, Clone, Default)]
pub struct Artifacts {
    /// The packs' programs: name → file.
    pub programs: BTreeMap<String, PathBuf>,
    /// Folder of the lab's keys and secrets.
    pub secrets: PathBuf,
}

impl Artifacts {
    /// The folder of the tool's own executable: the packs' programs are beside it.
    ///
    /// # Errors
    /// It cannot be found.
    pub fn folder() -> Result<PathBuf> {
        let own = std::env::current_exe().tried("find the tool's own executable", "")?;
        Ok(own.parent().unwrap_or(Path::new("/")).to_owned())
    }

    /// The pack's programs in `folder`, secrets in `secrets`.
    ///
    /// # Errors
    /// `Host` where a program is not there.
    pub fn of(pack: Option<&Pack>, folder: &Path, secrets: PathBuf) -> Result<Self> {
        let specs = pack.map_or(&[][..], |p| &p.runtime.programs);
        let programs: BTreeMap<_, _> = specs.iter().map(|p| (p.name.clone(), folder.join(&p.name))).collect();
        if let Some((name, path)) = programs.iter().find(|(_, path)| !path.is_file()) {
            return Err(no_program(name, path));
        }
        Ok(Self { programs, secrets })
    }
}

fn no_program(name: &str, path: &Path) -> Error {
    Error::Host(
        Problem::new(format!("find the runtime's program {name}"))
            .on(path.display())
            .observed("there is no such file")
            .remedy("`make build` makes it beside failoverlab"),
    )
}

/// What a deployment did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeployReport {
    /// False where the machine had all of it already.
    pub changed: bool,
    /// Digest of all that was to be there, hexadecimal.
    pub digest: String,
    /// Files written.
    pub files: usize,
    /// Bytes sent.
    pub bytes: usize,
    /// Commands run.
    pub steps: usize,
}

/// Everything that goes into one machine.
struct Payload {
    programs: Vec<(String, Vec<u8>)>,
    files: Vec<RenderedFile>,
    links: Vec<(String, String)>,
    steps: Vec<RenderedStep>,
}

/// Brings `pack` (none in a lab of bare machines) and the node's own `run` commands into its machine.
///
/// The same payload again changes nothing. `say` hears what is being done and may refuse to go on.
///
/// # Errors
/// `Operation` with the command that failed and its own words; the machine then counts as not deployed, and the next call does all again.
pub fn deploy(
    remote: &mut dyn Remote,
    lab: &Lab,
    node: &Node,
    pack: Option<&Pack>,
    artifacts: &Artifacts,
    deadline: Deadline,
    say: &mut dyn FnMut(&str) -> Result<()>,
) -> Result<DeployReport> {
    let mut payload = Payload::of(lab, node, pack.filter(|_| node.role.is_some()), artifacts)?;
    let digest = payload.digest();
    let mut report = DeployReport {
        changed: false,
        digest,
        files: 0,
        bytes: 0,
        steps: 0,
    };
    if payload.is_empty() {
        return Ok(report);
    }
    say("looking at what is deployed")?;
    let there = look(remote, node, deadline)?;
    if there.digest == report.digest {
        return Ok(report);
    }
    payload.leave_out(&there.programs);
    let stream = payload.archive().tried("pack the files", &node.name)?;
    report.changed = true;
    report.files = payload.programs.len() + payload.files.len() + payload.links.len();
    report.bytes = stream.len();
    report.steps = payload.steps.len();
    say(&format!(
        "sending {} files ({} KiB), running {} commands",
        report.files,
        stream.len() >> 10,
        report.steps
    ))?;
    payload.install(remote, node, &report.digest, stream, deadline, say)?;
    Ok(report)
}

/// How a machine keeps which program it has: digest and path.
fn line((path, content): &(String, Vec<u8>)) -> String {
    format!("{} {path}\n", blake3::hash(content).to_hex())
}

/// What a machine has.
struct There {
    /// The digest of what is deployed, empty where nothing is.
    digest: String,
    /// Its programs, as [`line()`] has them.
    programs: Vec<String>,
}

/// What is deployed; and that each port has the name that configurations call it by.
fn look(remote: &mut dyn Remote, node: &Node, deadline: Deadline) -> Result<There> {
    const WHAT: &str = "see what is deployed";
    let said = remote
        .exec(&Command::new(["sh", "-c", LOOK, "sh", DEPLOYED, PROGRAMS]), deadline)?
        .check_text(WHAT, &node.name)?;
    let mut lines = said.lines();
    let digest = lines.next().unwrap_or_default().to_owned();
    let programs = lines
        .by_ref()
        .take_while(|l| !l.is_empty())
        .map(str::to_owned)
        .collect();
    let ports: Vec<&str> = lines.collect();
    for nic in &node.nics {
        let mac = nic.mac.to_string();
        let name = ports.iter().find_map(|l| l.strip_prefix(&mac)?.strip_prefix(' '));
        if name != Some(&nic.interface) {
            let seen = match name {
                Some(other) => format!("{mac} on {} is {other}, not {}", nic.network, nic.interface),
                None => format!(
                    "there is no {mac} on {}: {}",
                    nic.network,
                    excerpt(ports.join("\n").as_bytes())
                ),
            };
            return Err(Error::Operation(
                Problem::new("find the machine's network ports")
                    .on(&node.name)
                    .observed(seen),
            ));
        }
    }
    Ok(There { digest, programs })
}

impl Payload {
    fn of(lab: &Lab, node: &Node, pack: Option<&Pack>, artifacts: &Artifacts) -> Result<Self> {
        let mut payload = Self {
            programs: Vec::new(),
            files: Vec::new(),
            links: Vec::new(),
            steps: Vec::new(),
        };
        if let Some(pack) = pack {
            let secrets = Secrets::ensure(pack, &artifacts.secrets)?;
            payload.programs = programs(pack, artifacts)?;
            payload.files = pack.render(lab, node, &secrets)?;
            payload.links = pack.links(lab, node)?;
            payload.steps = pack.steps(lab, node)?;
        }
        payload.steps.extend(node.run.iter().map(|run| RenderedStep::once(run)));
        Ok(payload)
    }

    /// Programs that the machine has already, as its own list says, are not sent. If any is, the list is too.
    fn leave_out(&mut self, there: &[String]) {
        let all = self.programs.iter().map(line).collect();
        self.programs.retain(|p| !there.iter().any(|l| l == line(p).trim_end()));
        if !self.programs.is_empty() {
            self.files.push(RenderedFile {
                path: PROGRAMS.to_owned(),
                mode: 0o644,
                content: all,
            });
        }
    }

    fn is_empty(&self) -> bool {
        self.programs.is_empty() && self.files.is_empty() && self.links.is_empty() && self.steps.is_empty()
    }

    /// Covers paths, modes, contents, links and commands, each with its length in front.
    fn digest(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut part = |bytes: &[u8]| {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        };
        for (path, content) in &self.programs {
            part(path.as_bytes());
            part(blake3::hash(content).as_bytes());
        }
        part(b"files");
        for file in &self.files {
            part(file.path.as_bytes());
            part(&file.mode.to_le_bytes());
            part(file.content.as_bytes());
        }
        part(b"links");
        for (path, to) in &self.links {
            part(path.as_bytes());
            part(to.as_bytes());
        }
        for step in &self.steps {
            part(if step.again { b"again" } else { b"step" });
            step.run.iter().chain(&step.stdin).for_each(|a| part(a.as_bytes()));
        }
        hasher.finalize().to_hex().to_string()
    }

    /// Everything as one compressed archive: an emulated processor unpacks faster than it decrypts.
    fn archive(&self) -> std::io::Result<Vec<u8>> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        let header = |kind, mode, size: usize| {
            let mut h = tar::Header::new_gnu();
            h.set_entry_type(kind);
            h.set_mode(mode);
            h.set_size(size as u64);
            h.set_uid(0);
            h.set_gid(0);
            h.set_mtime(0);
            h
        };
        let programs = self
            .programs
            .iter()
            .map(|(path, content)| (path, PROGRAM_MODE, content.as_slice()));
        let files = self.files.iter().map(|f| (&f.path, f.mode, f.content.as_bytes()));
        for (path, mode, content) in programs.chain(files) {
            let mut h = header(tar::EntryType::Regular, mode, content.len());
            tar.append_data(&mut h, path.trim_start_matches('/'), content)?;
        }
        for (path, to) in &self.links {
            let mut h = header(tar::EntryType::Symlink, 0o777, 0);
            tar.append_link(&mut h, path.trim_start_matches('/'), to)?;
        }
        tar.into_inner()?.finish()
    }

    fn install(
        &self,
        remote: &mut dyn Remote,
        node: &Node,
        digest: &str,
        stream: Vec<u8>,
        deadline: Deadline,
        say: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let mut argv = ["sh", "-c", INSTALL, "sh", DEPLOYED, digest]
            .map(str::to_owned)
            .to_vec();
        for step in &self.steps {
            let mut line = quote(&step.run)?;
            if let Some(path) = &step.stdin {
                line = format!("{line} <{}", quote(std::slice::from_ref(path))?);
            }
            if step.again {
                line = format!("[ -z \"$again\" ] || {line}");
            }
            argv.push(line);
        }
        let mut doing = "sending".to_owned();
        let mut hear = |line: Option<&str>| {
            if let Some(n) = line.and_then(|l| l.strip_prefix(STEP)?.parse::<usize>().ok())
                && let Some(step) = n.checked_sub(1).and_then(|i| self.steps.get(i))
            {
                doing = format!("{n}/{}: {}", self.steps.len(), step.run.join(" "));
            }
            say(&doing)
        };
        let output = remote.exec_heard(&Command { argv, stdin: stream }, deadline, &mut hear)?;
        if output.status == 0 {
            return Ok(());
        }
        let failed = String::from_utf8_lossy(&output.stderr)
            .lines()
            .rev()
            .find_map(|l| l.strip_prefix(FAILED_STEP)?.parse::<usize>().ok())
            .and_then(|n| self.steps.get(n.checked_sub(1)?));
        let step = failed.map_or_else(|| "writing the files".to_owned(), |s| format!("`{}`", s.run.join(" ")));
        let said = [output.stderr, output.stdout].concat();
        Err(Error::Operation(Problem::new("deploy").on(&node.name).observed(
            format!("{step} ended with status {}: {}", output.status, excerpt(&said)),
        )))
    }
}

/// The file `$1` as one line, the lines of `$2` and an empty one, then each interface: address and name.
pub(super) const LOOK: &str = r#"cat -- "$1" 2>/dev/null
echo
cat -- "$2" 2>/dev/null
echo
cd /sys/class/net && for i in *; do read -r mac <"$i/address" && echo "$mac $i"; done
"#;

/// Begins the line that numbers a step that begins.
const STEP: &str = "failoverlab: step ";
/// Begins the line that numbers a failed step.
const FAILED_STEP: &str = "failoverlab: failed step ";

/// Unpacks what it reads, runs each further argument as a command, and only then says that all is there: `$1` file, `$2` digest.
/// The machine may lose its power at any time after that.
pub(super) const INSTALL: &str = r#"deployed=$1 digest=$2
shift 2
umask 022
again=
[ ! -d "${deployed%/*}" ] || again=1
mkdir -p -- "${deployed%/*}" && rm -f -- "$deployed"
tar -x -z -m -f - -C / || exit
n=0
for step in "$@"; do
  n=$((n + 1))
  echo "failoverlab: step $n"
  eval "$step" </dev/null || { status=$?; echo "failoverlab: failed step $n" >&2; exit $status; }
done
printf %s "$digest" >"$deployed" && sync
"#;

/// The pack's programs: path in the machine and content.
fn programs(pack: &Pack, artifacts: &Artifacts) -> Result<Vec<(String, Vec<u8>)>> {
    let programs = pack.runtime.programs.iter();
    programs.map(|p| Ok((p.path.clone(), program(p, artifacts)?))).collect()
}

fn program(spec: &ProgramSpec, artifacts: &Artifacts) -> Result<Vec<u8>> {
    let path = artifacts
        .programs
        .get(&spec.name)
        .ok_or_else(|| no_program(&spec.name, Path::new(&spec.name)))?;
    let length = fs_err::metadata(path).map_err(|_| no_program(&spec.name, path))?.len();
    if length > PROGRAM_MAX.bytes() {
        return Err(Error::Host(
            Problem::new("send the program")
                .on(path.display())
                .observed(format!("{length} bytes, at most {PROGRAM_MAX} are sent")),
        ));
    }
    fs_err::read(path).tried("read the program", path.display())
}
