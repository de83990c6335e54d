//! The witness by the low layer of the `smb2` crate: raw CREATE, READ, WRITE, FLUSH, CLOSE.
//!
//! Its high layer is not used: it can reconnect by itself, and a session reborn without the handle looks healthy.

use super::{BLOCK, Fault, Witness};
use smb2::client::connection::{Connection, Frame};
use smb2::client::{Session, Tree};
use smb2::msg::close::CloseRequest;
use smb2::msg::create::{CreateDisposition, CreateRequest, CreateResponse, ImpersonationLevel, ShareAccess};
use smb2::msg::flush::FlushRequest;
use smb2::msg::read::{ReadRequest, ReadResponse, SMB2_CHANNEL_NONE};
use smb2::msg::write::{SMB2_WRITEFLAG_WRITE_THROUGH, WriteRequest};
use smb2::pack::{Pack, ReadCursor, Unpack};
use smb2::types::flags::FileAccessMask;
use smb2::types::status::NtStatus;
use smb2::types::{Command, FileId, OplockLevel};
use std::net::Ipv4Addr;
use std::time::Duration;

/// MS-SMB2 2.2.13, create options.
const FILE_WRITE_THROUGH: u32 = 0x2;
const FILE_NON_DIRECTORY_FILE: u32 = 0x40;
const FILE_DELETE_ON_CLOSE: u32 = 0x1000;
/// MS-SMB2 2.2.13, share access: whatever others do.
const SHARE_ALL: u32 = 0x7;
/// MS-SMB2 2.2.21: where the data of a WRITE begins, from the start of the header.
const WRITE_DATA_OFFSET: u16 = 0x70;
/// MS-SMB2 2.2.19: where the answer to a READ should put its data.
const READ_PADDING: u8 = 0x50;

/// Where the witness file is, and as whom it is opened.
#[derive(Clone)]
pub struct Share {
    /// Address of the host; never a name, a resolver has timeouts of its own.
    pub address: Ipv4Addr,
    /// TCP port.
    pub port: u16,
    /// Name of the share.
    pub share: String,
    /// Account.
    pub user: String,
    /// Its password.
    pub password: String,
}

impl std::fmt::Debug for Share {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, r"\\{}\{} port {}", self.address, self.share, self.port)
    }
}

/// A [`Witness`] on a share.
#[derive(Debug)]
pub struct SmbWitness {
    share: Share,
    file: String,
    /// The file is made anew for each hold, and goes with it.
    passing: bool,
    held: Option<Handle>,
}

/// An open file and the connection that it lives on. Dropped, it closes the socket.
struct Handle {
    connection: Connection,
    tree: Tree,
    /// Kept: dropping the keys is dropping the session.
    _session: Session,
    file: FileId,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.file)
    }
}

impl SmbWitness {
    /// The file of that name in the share. Nothing is connected yet.
    pub fn new(share: Share, file: &str) -> Self {
        Self {
            share,
            file: file.to_owned(),
            passing: false,
            held: None,
        }
    }

    /// The same with a file that is gone when it is closed, so that each write needs new room on the share's disk.
    pub fn passing(share: Share, file: &str) -> Self {
        Self {
            passing: true,
            ..Self::new(share, file)
        }
    }

    /// Runs one operation on the handle under one deadline. The handle survives only success.
    async fn under<T>(
        &mut self,
        what: &str,
        deadline: Duration,
        operation: impl AsyncFnOnce(&Handle) -> Result<T, smb2::Error>,
    ) -> Result<T, Fault> {
        let handle = self
            .held
            .take()
            .ok_or_else(|| Fault::Lost(format!("{what}: the file is not open")))?;
        match tokio::time::timeout(deadline, operation(&handle)).await {
            Ok(Ok(value)) => {
                self.held = Some(handle);
                Ok(value)
            }
            Ok(Err(e)) => Err(Fault::Lost(format!("{what}: {e}"))),
            Err(_) => Err(ran_out(what, deadline)),
        }
    }
}

impl Witness for SmbWitness {
    async fn open(&mut self, deadline: Duration) -> Result<Vec<u8>, Fault> {
        self.held = None;
        let opened = tokio::time::timeout(deadline, async {
            let handle = Handle::open(&self.share, &self.file, self.passing, deadline).await?;
            let content = handle.read(handle.file).await?;
            Ok::<_, smb2::Error>((handle, content))
        })
        .await;
        match opened {
            Ok(Ok((handle, content))) => {
                self.held = Some(handle);
                Ok(content)
            }
            Ok(Err(e)) if e.status() == Some(NtStatus::SHARING_VIOLATION) => Err(Fault::Held),
            Ok(Err(e)) => Err(Fault::Lost(format!("open {:?}: {e}", self.share))),
            Err(_) => Err(ran_out(&format!("open {:?}", self.share), deadline)),
        }
    }

    async fn write(&mut self, content: &[u8], deadline: Duration) -> Result<(), Fault> {
        if content.len() > BLOCK {
            return Err(Fault::Lost(format!(
                "write: at most {BLOCK} bytes, not {}",
                content.len()
            )));
        }
        let mut block = content.to_vec();
        block.resize(BLOCK, 0);
        self.under("write", deadline, async |h| h.write(h.file, block).await)
            .await
    }

    async fn close(&mut self, deadline: Duration) -> Result<(), Fault> {
        let closed = self.under("close", deadline, async |h| h.close(h.file).await).await;
        self.held = None;
        closed
    }

    async fn reserve(&mut self, name: &str, deadline: Duration) -> Result<(), Fault> {
        self.under(&format!("make {name}"), deadline, async |h| h.reserve(name).await)
            .await
    }

    fn is_held(&self) -> bool {
        self.held.is_some()
    }
}

impl Handle {
    /// A new connection, session and tree each time, then the exclusive open. Dropping the future closes the socket.
    async fn open(share: &Share, file: &str, passing: bool, deadline: Duration) -> Result<Self, smb2::Error> {
        let mut connection = Connection::connect(&format!("{}:{}", share.address, share.port), deadline).await?;
        connection.set_response_timeout(Some(deadline));
        connection.set_send_timeout(Some(deadline));
        connection.negotiate().await?;
        let session = Session::setup(&mut connection, &share.user, &share.password, "").await?;
        let tree = Tree::connect(&mut connection, &share.share).await?;
        let mut handle = Self {
            connection,
            tree,
            _session: session,
            file: FileId::default(),
        };
        handle.file = handle.create(&exclusively(file, passing)).await?.file_id;
        Ok(handle)
    }

    async fn create(&self, request: &CreateRequest) -> Result<CreateResponse, smb2::Error> {
        let frame = self.ask(Command::Create, request).await?;
        CreateResponse::unpack(&mut ReadCursor::new(&frame.body))
    }

    /// Makes sure that a file has all the bytes that will ever be written to it. Who only looks at a file's attributes is in nobody's way.
    async fn reserve(&self, name: &str) -> Result<(), smb2::Error> {
        let look = CreateRequest {
            desired_access: FileAccessMask::new(FileAccessMask::FILE_READ_ATTRIBUTES | FileAccessMask::SYNCHRONIZE),
            share_access: ShareAccess(SHARE_ALL),
            create_disposition: CreateDisposition::FileOpen,
            create_options: FILE_NON_DIRECTORY_FILE,
            ..exclusively(name, false)
        };
        match self.create(&look).await {
            Ok(found) => {
                self.close(found.file_id).await?;
                if found.end_of_file >= BLOCK as u64 {
                    return Ok(());
                }
            }
            Err(e) if e.status() == Some(NtStatus::OBJECT_NAME_NOT_FOUND) => {}
            Err(e) => return Err(e),
        }
        let made = match self.create(&exclusively(name, false)).await {
            Ok(made) => made,
            // Its holder writes all of it.
            Err(e) if e.status() == Some(NtStatus::SHARING_VIOLATION) => return Ok(()),
            Err(e) => return Err(e),
        };
        // Whatever it says stays; zeros are no content.
        let mut block = self.read(made.file_id).await?;
        block.resize(BLOCK, 0);
        self.write(made.file_id, block).await?;
        self.close(made.file_id).await
    }

    async fn ask(&self, command: Command, request: &dyn Pack) -> Result<Frame, smb2::Error> {
        succeeded(
            self.connection
                .execute(command, request, Some(self.tree.tree_id))
                .await?,
        )
    }

    /// The content, without the zeros that fill it up.
    async fn read(&self, file_id: FileId) -> Result<Vec<u8>, smb2::Error> {
        let request = ReadRequest {
            padding: READ_PADDING,
            flags: 0,
            length: BLOCK as u32,
            offset: 0,
            file_id,
            minimum_count: 0,
            channel: SMB2_CHANNEL_NONE,
            remaining_bytes: 0,
            read_channel_info: Vec::new(),
        };
        match self.ask(Command::Read, &request).await {
            Ok(frame) => {
                let mut content = ReadResponse::unpack(&mut ReadCursor::new(&frame.body))?.data;
                content.truncate(content.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1));
                Ok(content)
            }
            Err(e) if e.status() == Some(NtStatus::END_OF_FILE) => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    async fn write(&self, file_id: FileId, data: Vec<u8>) -> Result<(), smb2::Error> {
        let request = WriteRequest {
            data_offset: WRITE_DATA_OFFSET,
            offset: 0,
            file_id,
            channel: 0,
            remaining_bytes: 0,
            write_channel_info_offset: 0,
            write_channel_info_length: 0,
            flags: SMB2_WRITEFLAG_WRITE_THROUGH,
            data,
        };
        self.ask(Command::Write, &request).await?;
        self.ask(Command::Flush, &FlushRequest { file_id }).await?;
        Ok(())
    }

    async fn close(&self, file_id: FileId) -> Result<(), smb2::Error> {
        let request = CloseRequest { flags: 0, file_id };
        self.ask(Command::Close, &request).await.map(drop)
    }
}

/// Opens or makes a file so that nobody else can; it goes when it is closed where it is a `passing` one.
fn exclusively(file: &str, passing: bool) -> CreateRequest {
    let (access, options) = if passing {
        (FileAccessMask::DELETE, FILE_DELETE_ON_CLOSE)
    } else {
        (0, 0)
    };
    CreateRequest {
        requested_oplock_level: OplockLevel::None,
        impersonation_level: ImpersonationLevel::Impersonation,
        desired_access: FileAccessMask::new(
            access
                | FileAccessMask::FILE_READ_DATA
                | FileAccessMask::FILE_WRITE_DATA
                | FileAccessMask::FILE_READ_ATTRIBUTES
                | FileAccessMask::SYNCHRONIZE,
        ),
        file_attributes: 0,
        share_access: ShareAccess(0),
        create_disposition: CreateDisposition::FileOpenIf,
        create_options: options | FILE_WRITE_THROUGH | FILE_NON_DIRECTORY_FILE,
        name: file.to_owned(),
        create_contexts: Vec::new(),
    }
}

fn succeeded(frame: Frame) -> Result<Frame, smb2::Error> {
    if frame.header.status == NtStatus::SUCCESS {
        Ok(frame)
    } else {
        Err(smb2::Error::Protocol {
            status: frame.header.status,
            command: frame.header.command,
        })
    }
}

fn ran_out(what: &str, deadline: Duration) -> Fault {
    Fault::Lost(format!("{what}: no answer within {} ms", deadline.as_millis()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn a_server_that_says_nothing_or_nonsense_is_given_up_in_time() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            let mut kept = Vec::new();
            while let Ok((mut s, _)) = listener.accept().await {
                if kept.len() % 2 == 1 {
                    let _ = tokio::io::AsyncWriteExt::write_all(&mut s, &[0xA5; 4096]).await;
                }
                kept.push(s);
            }
        });
        for _ in 0..4 {
            let mut w = SmbWitness::new(
                Share {
                    address: Ipv4Addr::LOCALHOST,
                    port,
                    share: "witness".into(),
                    user: "u".into(),
                    password: "p".into(),
                },
                "f",
            );
            // A limit that is as slow as the host is: pauses on the same runtime.
            let limit = async {
                for _ in 0..200 {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::select! {
                opened = w.open(Duration::from_millis(200)) => assert!(matches!(opened, Err(Fault::Lost(_))), "{opened:?}"),
                () = limit => panic!("it is not given up"),
            }
        }
        server.abort();
    }
}
