//! Into a machine in two round trips: is it there already? if not, one stream of files and one sequence of commands.
//!
//! What needs no setting is in the machine before its system starts ([`early`]), and with it, so that they need not be sent later, the
//! programs: a machine says which ones it has. All the rest comes when it has booted ([`deploy`]).

use super::pack::{Pack, Part, ProgramSpec};
use super::render::{RenderedFile, RenderedStep};
use super::secrets::Secrets;
use crate::error::{Error, IoContext, Problem, Result};
use crate::guest::{Command, Remote, excerpt, quote};
use crate::image::{Early, PREPARED};
use crate::spec::{Lab, Node};
use crate::units::Size;
use crate::wait::Deadline;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What is deployed: the digest of everything below.
const DEPLOYED: &str = "/etc/failoverlab/deployed";
/// Which programs a machine has, as it was told when they were sent.
pub(super) const PROGRAMS: &str = "/var/lib/failoverlab/programs";
/// Largest program that is sent.
const PROGRAM_MAX: Size = Size::mib(256);
/// From this length on a stream is compressed.
const COMPRESSED_FROM: Size = Size(128 << 10);
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

/// What goes into one machine at once.
#[derive(Default)]
struct Payload {
    programs: Vec<(String, Vec<u8>)>,
    files: Vec<RenderedFile>,
    links: Vec<(String, String)>,
    steps: Vec<RenderedStep>,
}

/// What needs no setting, and the programs: it is in `node` before its system starts. `None` where that is nothing.
///
/// # Errors
/// `Operation` for a pack that does not hold, `Host` for a program that is not there.
pub fn early(lab: &Lab, node: &Node, pack: &Pack, artifacts: &Artifacts) -> Result<Option<Early>> {
    let mut early = Payload::of(Part::Early, lab, node, pack, &Secrets::default())?;
    let mark = early.digest();
    early.programs = programs(pack, artifacts)?;
    if early.is_empty() {
        return Ok(None);
    }
    early.leave_out(&[]);
    let programs = early
        .programs
        .into_iter()
        .map(|(path, content)| (path, PROGRAM_MODE, content));
    let files = early
        .files
        .into_iter()
        .map(|f| (f.path, f.mode, f.content.into_bytes()));
    Ok(Some(Early {
        files: programs.chain(files).collect(),
        links: early.links,
        mark,
    }))
}

/// Digest of all that [`early`] has but for programs, hexadecimal; `None` where that is nothing.
///
/// # Errors
/// `Operation` for a pack that does not hold.
pub fn early_digest(lab: &Lab, node: &Node, pack: &Pack) -> Result<Option<String>> {
    let early = Payload::of(Part::Early, lab, node, pack, &Secrets::default())?;
    Ok((!early.is_empty()).then(|| early.digest()))
}

/// The files of `pack` that are on `node` once it is deployed, and that anybody in the machine may read: no secrets.
///
/// # Errors
/// `Operation` for a pack that does not hold, or secrets that cannot be read.
pub fn open_files(lab: &Lab, node: &Node, pack: &Pack, artifacts: &Artifacts) -> Result<Vec<RenderedFile>> {
    let secrets = Secrets::ensure(pack, &artifacts.secrets)?;
    let mut files = pack.files(Part::Early, lab, node, &secrets)?;
    files.extend(pack.files(Part::Late, lab, node, &secrets)?);
    files.retain(|f| f.mode & 0o004 != 0);
    Ok(files)
}

/// Brings `pack` (none in a lab of bare machines) and the node's own `run-before` and `run` commands into its machine.
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
    let (mut early, mut late) = (Payload::default(), Payload::default());
    if let Some(pack) = pack.filter(|_| node.role.is_some()) {
        let secrets = Secrets::ensure(pack, &artifacts.secrets)?;
        early = Payload::of(Part::Early, lab, node, pack, &secrets)?;
        late = Payload::of(Part::Late, lab, node, pack, &secrets)?;
        late.programs = programs(pack, artifacts)?;
    }
    let once = |commands: &[Vec<String>]| commands.iter().map(|run| RenderedStep::once(run)).collect::<Vec<_>>();
    late.steps.splice(0..0, once(&node.run_before));
    late.steps.extend(once(&node.run));
    let prepared = early.digest();
    let all = blake3::hash(format!("{prepared} {}", late.digest()).as_bytes());
    let mut report = DeployReport::of(all.to_hex().to_string());
    if early.is_empty() && late.is_empty() {
        return Ok(report);
    }
    say("looking at what is deployed")?;
    let there = look(remote, node, deadline)?;
    if there.deployed == report.digest {
        return Ok(report);
    }
    // As a rule the machine began with it.
    if there.prepared != prepared {
        early.bring(remote, node, (PREPARED, &prepared), &mut report, deadline, say)?;
    }
    late.leave_out(&there.programs);
    let digest = report.digest.clone();
    late.bring(remote, node, (DEPLOYED, &digest), &mut report, deadline, say)?;
    Ok(report)
}

impl DeployReport {
    /// Nothing was done.
    fn of(digest: String) -> Self {
        Self {
            changed: false,
            digest,
            files: 0,
            bytes: 0,
            steps: 0,
        }
    }
}

/// How a machine keeps which program it has: digest and path.
fn line((path, content): &(String, Vec<u8>)) -> String {
    format!("{} {path}\n", blake3::hash(content).to_hex())
}

/// What a machine has.
struct There {
    /// The digest of what is deployed, empty where nothing is.
    deployed: String,
    /// That of its early part.
    prepared: String,
    /// Its programs, as [`line()`] has them.
    programs: Vec<String>,
}

/// What is deployed; and that each port has the name that configurations call it by.
fn look(remote: &mut dyn Remote, node: &Node, deadline: Deadline) -> Result<There> {
    const WHAT: &str = "see what is deployed";
    let said = remote
        .exec(
            &Command::new(["sh", "-c", LOOK, "sh", DEPLOYED, PREPARED, PROGRAMS]),
            deadline,
        )?
        .check_text(WHAT, &node.name)?;
    let mut lines = said.lines();
    let mut digest = || lines.next().unwrap_or_default().to_owned();
    let (deployed, prepared) = (digest(), digest());
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
    Ok(There {
        deployed,
        prepared,
        programs,
    })
}

/// What a machine unpacks.
struct Archive {
    stream: Vec<u8>,
    compressed: bool,
}

impl Payload {
    /// A part of `pack`, without its programs.
    fn of(part: Part, lab: &Lab, node: &Node, pack: &Pack, secrets: &Secrets) -> Result<Self> {
        Ok(Self {
            programs: Vec::new(),
            files: pack.files(part, lab, node, secrets)?,
            links: pack.links(part, lab, node)?,
            steps: pack.steps(part, lab, node)?,
        })
    }

    /// Programs that the machine has already, as its own list says, are not sent. If any is, the list is too.
    fn leave_out(&mut self, there: &[String]) {
        let all = self.programs.iter().map(line).collect();
        self.programs.retain(|p| !there.iter().any(|l| l == line(p).trim_end()));
        if !self.programs.is_empty() {
            self.files.push(RenderedFile {
                path: PROGRAMS.to_owned(),
                mode: 0o644,
                owner: None,
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
            file.owner.iter().for_each(|o| part(o.as_bytes()));
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

    /// Everything as one archive, compressed where it is long: an emulated processor unpacks faster than it decrypts, but the program for
    /// it must begin first.
    fn archive(&self) -> std::io::Result<Archive> {
        let mut tar = tar::Builder::new(Vec::new());
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
            .map(|(path, content)| (path, PROGRAM_MODE, None, content.as_slice()));
        let files = self
            .files
            .iter()
            .map(|f| (&f.path, f.mode, f.owner.as_ref(), f.content.as_bytes()));
        for (path, mode, owner, content) in programs.chain(files) {
            let mut h = header(tar::EntryType::Regular, mode, content.len());
            if let Some(owner) = owner {
                // Names win over numbers where the machine has them.
                h.set_username(owner)?;
                h.set_groupname(owner)?;
            }
            tar.append_data(&mut h, path.trim_start_matches('/'), content)?;
        }
        for (path, to) in &self.links {
            let mut h = header(tar::EntryType::Symlink, 0o777, 0);
            tar.append_link(&mut h, path.trim_start_matches('/'), to)?;
        }
        let plain = tar.into_inner()?;
        if (plain.len() as u64) < COMPRESSED_FROM.bytes() {
            return Ok(Archive {
                stream: plain,
                compressed: false,
            });
        }
        let mut zip = GzEncoder::new(Vec::new(), Compression::fast());
        zip.write_all(&plain)?;
        let stream = zip.finish()?;
        Ok(Archive {
            stream,
            compressed: true,
        })
    }

    /// Brings it into the machine, where it is anything, and has the machine know it by the digest in the file.
    fn bring(
        &self,
        remote: &mut dyn Remote,
        node: &Node,
        known: (&str, &str),
        report: &mut DeployReport,
        deadline: Deadline,
        say: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let archive = self.archive().tried("pack the files", &node.name)?;
        let bytes = archive.stream.len();
        let files = self.programs.len() + self.files.len() + self.links.len();
        report.changed = true;
        report.files += files;
        report.bytes += bytes;
        report.steps += self.steps.len();
        let (kib, commands) = (bytes >> 10, self.steps.len());
        say(&format!(
            "sending {files} files ({kib} KiB), running {commands} commands"
        ))?;
        self.install(remote, node, known, archive, deadline, say)
    }

    fn install(
        &self,
        remote: &mut dyn Remote,
        node: &Node,
        (file, digest): (&str, &str),
        archive: Archive,
        deadline: Deadline,
        say: &mut dyn FnMut(&str) -> Result<()>,
    ) -> Result<()> {
        let form = if archive.compressed { "-z" } else { "" };
        let mut argv = ["sh", "-c", INSTALL, "sh", file, digest, form]
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
        let output = remote.exec_heard(
            &Command {
                argv,
                stdin: archive.stream,
            },
            deadline,
            &mut hear,
        )?;
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
        let mut seen = format!("{step} ended with status {}: {}", output.status, excerpt(&said));
        if let Some(why) = failed.and_then(|step| explanation(remote, step, deadline)) {
            seen = format!("{seen}\n{why}");
        }
        Err(Error::Operation(Problem::new("deploy").on(&node.name).observed(seen)))
    }
}

/// What the machine says of why `step` failed. The failure stands without it.
fn explanation(remote: &mut dyn Remote, step: &RenderedStep, deadline: Deadline) -> Option<String> {
    if step.explain.is_empty() {
        return None;
    }
    let command = Command::new(step.explain.iter().map(String::as_str));
    let said = match remote.exec(&command, deadline) {
        Ok(output) => excerpt(&[output.stdout, output.stderr].concat()),
        Err(e) => e.to_string(),
    };
    Some(format!("{}: {said}", step.explain.join(" ")))
}

/// The files `$1` and `$2` as one line each, the lines of `$3` and an empty one, then each interface: address and name. By the shell
/// itself: on an emulated processor each program that begins costs more than all of this.
pub(super) const LOOK: &str = r#"one() {
  said=
  [ ! -e "$1" ] || read -r said <"$1"
  printf '%s\n' "$said"
}
one "$1"
one "$2"
[ ! -e "$3" ] || while read -r line; do printf '%s\n' "$line"; done <"$3"
echo
cd /sys/class/net && for i in *; do read -r mac <"$i/address" && echo "$mac $i"; done
"#;

/// Begins the line that numbers a step that begins.
const STEP: &str = "failoverlab: step ";
/// Begins the line that numbers a failed step.
const FAILED_STEP: &str = "failoverlab: failed step ";

/// Unpacks what it reads, runs each further argument as a command, and only then says that all is there: `$1` file, `$2` digest,
/// `$3` what `tar` must know of the stream.
/// The machine may lose its power at any time after that.
pub(super) const INSTALL: &str = r#"known=$1 digest=$2 form=$3
shift 3
umask 022
again=
if [ -d "${known%/*}" ]; then again=1; else mkdir -p -- "${known%/*}"; fi || exit
[ ! -e "$known" ] || rm -f -- "$known" || exit
tar -x $form -m -f - -C / || exit
n=0
for step in "$@"; do
  n=$((n + 1))
  echo "failoverlab: step $n"
  eval "$step" </dev/null || { status=$?; echo "failoverlab: failed step $n" >&2; exit $status; }
done
printf %s "$digest" >"$known" && sync
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
