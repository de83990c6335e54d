//! Who ends the supervisor, and who does not.

use super::*;
use tokio::io::Lines;

/// A client of the socket.
struct Asker {
    lines: Lines<BufReader<OwnedReadHalf>>,
    write: OwnedWriteHalf,
}

impl Asker {
    async fn greeted(files: &LabFiles) -> Self {
        let (read, write) = UnixStream::connect(files.socket()).await.unwrap().into_split();
        let mut lines = BufReader::new(read).lines();
        let greeting = lines.next_line().await.unwrap().unwrap();
        assert!(greeting.contains("\"proto\""), "{greeting}");
        Self { lines, write }
    }

    async fn ask(&mut self, text: &str) {
        self.write.write_all(text.as_bytes()).await.unwrap();
    }

    /// The answer to what it asked, which is none where the supervisor went away.
    async fn answer(&mut self) -> Option<Reply> {
        loop {
            let line = self.lines.next_line().await.ok().flatten()?;
            match serde_json::from_str(&line).unwrap() {
                Reply::Event(_) => {}
                reply => return Some(reply),
            }
        }
    }
}

const STATUS: &str = "{\"id\":1,\"verb\":\"status\"}\n";
const PAUSE: &str = "{\"id\":1,\"verb\":\"pause\"}\n";
/// Longer than any test takes.
const NEVER: Duration = Duration::from_secs(3600);

/// A supervisor of no lab, and its files.
fn nothing(dir: &tempfile::TempDir) -> (LabFiles, Arc<Engine>, UnixListener) {
    let home = Home::under(dir.path());
    let files = home.lab("x");
    Home::private_dir(&files.run).unwrap();
    let listener = bind(&files).unwrap();
    let backends = Backends::of_host(&home, "x", Journal::in_memory()).unwrap();
    let engine = Engine::open(home, "x", backends).unwrap();
    (files, Arc::new(engine), listener)
}

#[tokio::test]
async fn the_last_request_ends_it_and_not_the_first() {
    let dir = tempfile::tempdir().unwrap();
    let (files, engine, listener) = nothing(&dir);
    let serving = tokio::spawn(serve(listener, engine.clone(), "x", NEVER));

    // One has come and not asked yet, another one's request waits for its turn.
    let mut quiet = Asker::greeted(&files).await;
    let mut waiting = Asker::greeted(&files).await;
    let (begun, has_begun) = std::sync::mpsc::channel();
    let (go, goes) = std::sync::mpsc::channel::<()>();
    let before = std::thread::spawn({
        let engine = engine.clone();
        move || {
            engine.changing(&Cancel::default(), || {
                begun.send(()).unwrap();
                goes.recv().unwrap();
                Ok(())
            })
        }
    });
    has_begun.recv().unwrap();
    waiting.ask(PAUSE).await;

    for _ in 0..3 {
        let mut first = Asker::greeted(&files).await;
        first.ask(STATUS).await;
        assert!(
            matches!(first.answer().await, Some(Reply::Error { .. })),
            "it is not up"
        );
    }
    go.send(()).unwrap();
    before.join().unwrap().unwrap();
    assert!(matches!(waiting.answer().await, Some(Reply::Error { .. })));
    quiet.ask(STATUS).await;
    assert!(matches!(quiet.answer().await, Some(Reply::Error { .. })));
    assert_eq!(serving.await.unwrap().unwrap(), End::Down, "the last one out");
}

#[tokio::test]
async fn a_client_that_only_listens_does_not_keep_the_supervisor() {
    let dir = tempfile::tempdir().unwrap();
    let (files, engine, listener) = nothing(&dir);
    let serving = tokio::spawn(serve(listener, engine, "x", NEVER));
    let mut asks = Asker::greeted(&files).await;
    let mut listens = Asker::greeted(&files).await;
    listens.ask("{\"id\":1,\"verb\":\"events\"}\n").await;
    asks.ask(STATUS).await;
    assert!(matches!(asks.answer().await, Some(Reply::Error { .. })));
    assert_eq!(serving.await.unwrap().unwrap(), End::Down);
}

#[tokio::test]
async fn one_that_is_never_asked_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (_, engine, listener) = nothing(&dir);
    let idle = Duration::from_millis(20);
    assert_eq!(serve(listener, engine, "x", idle).await.unwrap(), End::Down);

    let dir = tempfile::tempdir().unwrap();
    let (files, engine, listener) = nothing(&dir);
    let serving = tokio::spawn(serve(listener, engine, "x", idle));
    let _says_nothing = UnixStream::connect(files.socket()).await;
    assert_eq!(serving.await.unwrap().unwrap(), End::Down);
}

#[tokio::test]
async fn a_client_that_asks_for_more_is_not_gone_and_costs_no_processor_time() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (read, _write) = ours.into_split();
    let mut read = BufReader::new(read);
    let (silent, mut more) = theirs.into_split();
    more.write_all(b"more").await.unwrap();
    assert_eq!(read.fill_buf().await.unwrap(), b"more");
    tokio::select! {
        biased;
        () = gone(&mut read) => panic!("it is there"),
        () = tokio::task::yield_now() => {}
    }
    read.consume(4);
    drop((silent, more));
    gone(&mut read).await;
}

#[test]
fn what_names_no_lab_is_refused_before_anything_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let precious = dir.path().join("state/victim/precious");
    std::fs::create_dir_all(&precious).unwrap();
    for name in ["../victim", "..", "", "a/b", "x@"] {
        let e = run(&Home::under(dir.path()), name).unwrap_err();
        assert_eq!(e.exit_code(), 2, "{name}: {e}");
    }
    assert!(precious.is_dir());
    assert!(!dir.path().join("run").exists() && !dir.path().join("state/labs").exists());
}
