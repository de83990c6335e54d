//! A real smbd on a loopback port, run as whoever runs the test, entirely inside a temporary folder.

use crate::wait;
use ccrd::witness::{Fault, Share, SmbWitness, Witness};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const PASSWORD: &str = "a lab's password";

/// A running server; ends with its value.
pub struct Samba {
    folder: tempfile::TempDir,
    child: Child,
    port: u16,
    user: String,
}

impl Samba {
    /// Starts one; says why and gives nothing where there is no Samba.
    pub fn start() -> Option<Samba> {
        Self::with_share(|_| true)
    }

    /// The same with a share on a disk of 64 KiB, which only root can make.
    pub fn start_small() -> Option<Samba> {
        Self::with_share(|share| {
            let mut mount = Command::new("mount");
            mount
                .args(["-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs"])
                .arg(share);
            let mounted = mount.stderr(Stdio::null()).status().is_ok_and(|s| s.success());
            if !mounted {
                eprintln!("skipped: a small disk cannot be mounted here");
            }
            mounted
        })
    }

    fn with_share(prepare: impl FnOnce(&Path) -> bool) -> Option<Samba> {
        let Some(smbd) = ["/usr/sbin/smbd", "/usr/bin/smbd"]
            .into_iter()
            .find(|p| Path::new(p).exists())
        else {
            eprintln!("skipped: no smbd here; install the package `samba`");
            return None;
        };
        let user = text(Command::new("id").arg("-un"));
        let folder = tempfile::Builder::new()
            .prefix("ccrd-smb-")
            .tempdir()
            .expect("a temporary folder");
        let port = TcpListener::bind("127.0.0.1:0")
            .expect("a port")
            .local_addr()
            .expect("an address")
            .port();
        for d in ["share", "state", "private"] {
            std::fs::create_dir(folder.path().join(d)).expect("a folder");
        }
        if !prepare(&folder.path().join("share")) {
            return None;
        }
        let conf = folder.path().join("smb.conf");
        std::fs::write(&conf, configuration(folder.path(), port, &user)).expect("smb.conf");
        let mut add = Command::new("pdbedit")
            .args(["-s".as_ref(), conf.as_os_str()])
            .args(["-t", "-a", "-u", &user])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("pdbedit");
        write!(add.stdin.take().expect("stdin"), "{PASSWORD}\n{PASSWORD}\n").expect("the password");
        assert!(
            add.wait().expect("pdbedit").success(),
            "pdbedit could not make the account {user}"
        );
        let child = Command::new(smbd)
            .args(["--foreground", "--no-process-group", "-s"])
            .arg(&conf)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .expect("smbd");
        let mut samba = Samba {
            folder,
            child,
            port,
            user,
        };
        let listens = wait::until(Duration::from_secs(30), || {
            if let Some(status) = samba.child.try_wait().expect("smbd") {
                panic!("smbd ended with {status}: {}", samba.log());
            }
            TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()
        });
        assert!(listens.is_some(), "smbd does not listen: {}", samba.log());
        Some(samba)
    }

    /// How to reach its file.
    pub fn share(&self) -> Share {
        Share {
            address: Ipv4Addr::LOCALHOST,
            port: self.port,
            share: "witness".into(),
            user: self.user.clone(),
            password: PASSWORD.into(),
        }
    }

    /// The folder behind the share.
    pub fn files(&self) -> PathBuf {
        self.folder.path().join("share")
    }

    /// Takes all the room that is left on the share's disk.
    pub fn fill(&self) {
        let mut file = std::fs::File::create(self.files().join("fill")).expect("a file");
        while file.write_all(&[1; 4096]).is_ok() {}
    }

    /// And gives it back.
    pub fn empty(&self) {
        std::fs::remove_file(self.files().join("fill")).expect("the file that fills it");
    }

    /// The account's password.
    pub fn password(&self) -> &'static str {
        PASSWORD
    }

    /// Opens, as soon as the server has what it needs for that: on a host without room for one more process it says that it has no
    /// memory. Nothing else may be in the way.
    pub async fn opened(&self, w: &mut SmbWitness) -> Vec<u8> {
        let opened = wait::until_async(Duration::from_secs(30), async || {
            match w.open(Duration::from_secs(5)).await {
                Ok(record) => Some(record),
                Err(Fault::Lost(why)) if why.contains("NO_MEMORY") || why.contains("INSUFFICIENT") => {
                    eprintln!("{why}: {}", self.log());
                    None
                }
                Err(e) => panic!("{e}: {}", self.log()),
            }
        });
        opened.await.unwrap_or_else(|| panic!("no room: {}", self.log()))
    }

    /// Opens as soon as the server has noticed that the last holder is gone.
    pub async fn open_soon(&self, w: &mut SmbWitness) -> Vec<u8> {
        let opened = wait::until_async(Duration::from_secs(10), async || {
            match w.open(Duration::from_secs(2)).await {
                Ok(record) => Some(record),
                Err(Fault::Held) => None,
                Err(e) => panic!("{e}: {}", self.log()),
            }
        });
        opened
            .await
            .unwrap_or_else(|| panic!("it is held all the time: {}", self.log()))
    }

    /// Every process of the server stands still.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// And goes on.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// The whole server dies at once.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.child.wait();
    }

    fn signal(&self, signal: Signal) {
        // The whole group: it was made with the server as its leader.
        let _ = kill_process_group(Pid::from_child(&self.child), signal);
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Samba {
    fn drop(&mut self) {
        self.kill();
        // Where it is none, there is nothing to do.
        let _ = Command::new("umount")
            .arg("-l")
            .arg(self.files())
            .stderr(Stdio::null())
            .status();
    }
}

fn text(command: &mut Command) -> String {
    let out = command.output().expect("a command's output");
    String::from_utf8(out.stdout).expect("UTF-8").trim().to_owned()
}

/// The settings of the lab's own witness share, in a private folder.
fn configuration(folder: &Path, port: u16, user: &str) -> String {
    let f = folder.display();
    format!(
        "[global]
  server role = standalone server
  workgroup = WITNESS
  netbios name = CCRDTEST
  smb ports = {port}
  interfaces = 127.0.0.1
  bind interfaces only = yes
  disable netbios = yes
  disable spoolss = yes
  load printers = no
  usershare max shares = 0
  server min protocol = SMB3_00
  ntlm auth = ntlmv2-only
  map to guest = never
  restrict anonymous = 2
  server signing = mandatory
  socket options = TCP_NODELAY SO_KEEPALIVE TCP_KEEPIDLE=1 TCP_KEEPINTVL=1 TCP_KEEPCNT=3 TCP_USER_TIMEOUT=3000
  oplocks = no
  level2 oplocks = no
  smb2 leases = no
  durable handles = no
  kernel oplocks = no
  kernel share modes = no
  strict locking = yes
  strict sync = yes
  server multi channel support = no
  lock directory = {f}/state
  state directory = {f}/state
  cache directory = {f}/state
  pid directory = {f}/state
  ncalrpc dir = {f}/state/ncalrpc
  private dir = {f}/private
  passdb backend = tdbsam:{f}/private/passdb.tdb
  log file = {f}/log
  log level = 3
[witness]
  path = {f}/share
  read only = no
  valid users = {user}
"
    )
}
