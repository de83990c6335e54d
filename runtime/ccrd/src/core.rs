//! The one loop that owns the core, and the way for everybody else to ask it something.

use crate::clock::Clocks;
use crate::notify::Notifier;
use ccr_core::command::Command;
use ccr_core::io::{ClientRequest, Effect, Input, Node, Now, Reply, ReqId};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Requests, frames and connections that wait for the core. Beyond, peers are held back.
const BULK: usize = 16;
/// Datagrams that wait. Beyond, they are lost, as datagrams are.
const DATAGRAMS: usize = 256;
/// The core is asked to look at the time at least this often.
const LONGEST_REST: Duration = Duration::from_secs(1);
/// And not more often than this, whatever it says.
const SHORTEST_REST: Duration = Duration::from_millis(1);
/// How long anybody waits for the core's answer. The core's own limits are shorter.
const PATIENCE: Duration = Duration::from_secs(60);
/// A move or a reseed may take longer than a delivery.
pub const OPERATORS_PATIENCE: Duration = Duration::from_secs(300);

/// A request and where its answer goes.
#[derive(Debug)]
enum CoreRequest {
    Client(ClientRequest, oneshot::Sender<Reply>),
    Operator(Command, oneshot::Sender<Reply>),
}

/// Asks the core. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Core {
    ask: mpsc::Sender<CoreRequest>,
    steps: watch::Receiver<Steps>,
}

/// What the core has done, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Steps {
    /// Steps after which it may say something else of itself.
    pub all: u64,
    /// Of these, those that served somebody: a client, a delivery, the disk.
    pub work: u64,
}

impl Core {
    /// On behalf of a client.
    pub async fn client(&self, request: ClientRequest) -> Result<Reply, String> {
        self.ask(|to| CoreRequest::Client(request, to), PATIENCE).await
    }

    /// On behalf of an operator.
    pub async fn operator(&self, command: Command) -> Result<Reply, String> {
        self.ask(|to| CoreRequest::Operator(command, to), OPERATORS_PATIENCE)
            .await
    }

    /// Changes with every step after which the core may say something else of itself.
    pub fn steps(&self) -> watch::Receiver<Steps> {
        self.steps.clone()
    }

    async fn ask(
        &self,
        make: impl FnOnce(oneshot::Sender<Reply>) -> CoreRequest,
        patience: Duration,
    ) -> Result<Reply, String> {
        let (to, answer) = oneshot::channel();
        let asked = async {
            self.ask
                .send(make(to))
                .await
                .map_err(|_| "the daemon ends".to_owned())?;
            answer.await.map_err(|_| "the request was dropped".to_owned())
        };
        match tokio::time::timeout(patience, asked).await {
            Ok(answered) => answered,
            Err(_) => Err(format!("no answer within {} s", patience.as_secs())),
        }
    }
}

/// Where inputs come from. Completions are never held back: the core itself bounds how many it is owed.
#[derive(Debug, Clone)]
pub struct Inlets {
    /// Completions of effects.
    pub done: mpsc::UnboundedSender<Input>,
    /// Datagrams.
    pub datagrams: mpsc::Sender<Input>,
    /// Streams.
    pub streams: mpsc::Sender<Input>,
}

/// The other ends of the inlets.
#[derive(Debug)]
pub struct Outlets {
    done: mpsc::UnboundedReceiver<Input>,
    datagrams: mpsc::Receiver<Input>,
    streams: mpsc::Receiver<Input>,
    asked: mpsc::Receiver<CoreRequest>,
    steps: watch::Sender<Steps>,
}

/// All channels into the core.
pub fn channels() -> (Core, Inlets, Outlets) {
    let (done, done_rx) = mpsc::unbounded_channel();
    let (datagrams, datagrams_rx) = mpsc::channel(DATAGRAMS);
    let (streams, streams_rx) = mpsc::channel(BULK);
    let (ask, asked) = mpsc::channel(BULK);
    let (stepped, steps) = watch::channel(Steps::default());
    let inlets = Inlets {
        done,
        datagrams,
        streams,
    };
    let outlets = Outlets {
        done: done_rx,
        datagrams: datagrams_rx,
        streams: streams_rx,
        asked,
        steps: stepped,
    };
    (Core { ask, steps }, inlets, outlets)
}

/// Who waits for an answer of the core. Who has given up, or was forgotten by the core, does not stay: there are never more than twice
/// as many as really wait, and [`FEW`].
#[derive(Debug)]
struct Waiting {
    of: HashMap<ReqId, oneshot::Sender<Reply>>,
    last: u64,
    /// So many are there when those who have gone are looked for.
    look_at: usize,
}

/// So many waiting requests are no reason to look who has gone.
const FEW: usize = 64;

impl Waiting {
    fn new() -> Self {
        Self {
            of: HashMap::new(),
            last: 0,
            look_at: FEW,
        }
    }

    /// Gives a request its number.
    fn number(&mut self, to: oneshot::Sender<Reply>) -> ReqId {
        if self.of.len() >= self.look_at {
            self.of.retain(|_, to| !to.is_closed());
            self.look_at = FEW.max(self.of.len() * 2);
        }
        self.last += 1;
        let req = ReqId(self.last);
        self.of.insert(req, to);
        req
    }

    fn answer(&mut self, req: ReqId, reply: Reply) {
        if let Some(to) = self.of.remove(&req) {
            // Whoever asked may have gone.
            let _ = to.send(reply);
        }
    }
}

/// Carries out effects. Nothing in here may wait.
pub trait EffectHandler {
    /// One effect that is no reply and no halt.
    fn perform(&mut self, effect: Effect);
    /// An input is about to be handed in.
    fn before_input(&mut self, input: &Input);
}

/// Runs the core until it has ended in order, as it was told to, or halts; says why it did.
pub async fn run(
    mut node: Box<dyn Node + Send>,
    mut outlets: Outlets,
    mut handler: impl EffectHandler,
    notifier: &Notifier,
) -> Result<(), String> {
    let mut clocks = Clocks::open();
    if !clocks.has_chip() {
        eprintln!("ccrd: no clock chip here: a pause of the whole machine cannot be seen");
    }
    let mut waiting = Waiting::new();
    let mut last_sign = 0;
    let mut input = Input::Start;
    loop {
        let (boot_us, rtc_us) = clocks.read();
        handler.before_input(&input);
        let only_looked = matches!(
            &input,
            Input::Operator {
                command: Command::Status | Command::Dump,
                ..
            }
        );
        let worked = matches!(
            &input,
            Input::Client { .. } | Input::LmtpDone { .. } | Input::DiskDone { .. }
        );
        for effect in node.step(Now { boot_us, rtc_us }, input) {
            match effect {
                Effect::Reply { req, reply } => waiting.answer(req, reply),
                Effect::Halt { why } => return Err(why),
                Effect::Ended => return Ok(()),
                other => handler.perform(other),
            }
        }
        if !only_looked {
            outlets.steps.send_modify(|s| {
                s.all += 1;
                s.work += u64::from(worked);
            });
        }
        if let Some(interval) = notifier.interval
            && boot_us.saturating_sub(last_sign) >= interval.as_micros() as u64 / 2
        {
            notifier.alive();
            last_sign = boot_us;
        }
        let mut rest = node
            .next_deadline()
            .map_or(LONGEST_REST, |at| {
                Duration::from_micros(at.saturating_sub(crate::clock::boot_us()))
            })
            .clamp(SHORTEST_REST, LONGEST_REST);
        if let Some(interval) = notifier.interval {
            rest = rest.min(interval / 2);
        }
        input = tokio::select! {
            Some(i) = outlets.done.recv() => i,
            Some(i) = outlets.datagrams.recv() => i,
            Some(i) = outlets.streams.recv() => i,
            Some(asked) = outlets.asked.recv() => match asked {
                CoreRequest::Client(request, to) => Input::Client { req: waiting.number(to), request },
                CoreRequest::Operator(command, to) => Input::Operator { req: waiting.number(to), command },
            },
            () = tokio::time::sleep(rest) => Input::Tick,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc as blocking;

    /// A core that stands still at each request until it is told to go on.
    #[derive(Debug)]
    struct Hanging {
        hangs: blocking::Sender<()>,
        go_on: blocking::Receiver<()>,
    }

    impl Node for Hanging {
        fn step(&mut self, _: Now, input: Input) -> Vec<Effect> {
            match input {
                Input::Client { .. } => {
                    self.hangs.send(()).unwrap();
                    self.go_on.recv().unwrap();
                    Vec::new()
                }
                Input::Operator { .. } => vec![Effect::Halt { why: "told to".into() }],
                _ => Vec::new(),
            }
        }
        fn next_deadline(&self) -> Option<u64> {
            None
        }
    }

    struct NoEffects;

    impl EffectHandler for NoEffects {
        fn perform(&mut self, _: Effect) {}
        fn before_input(&mut self, _: &Input) {}
    }

    #[test]
    fn who_has_gone_does_not_wait_for_ever() {
        let mut waiting = Waiting::new();
        let mut patient = Vec::new();
        for n in 0..10_000 {
            let (to, answer) = oneshot::channel();
            let req = waiting.number(to);
            assert_eq!(req, ReqId(n + 1));
            // One in a hundred goes on waiting.
            if n % 100 == 0 {
                patient.push((req, answer));
            }
            assert!(
                waiting.of.len() <= FEW + 2 * patient.len() + 1,
                "{n}: {}",
                waiting.of.len()
            );
        }
        for (req, mut answer) in patient {
            waiting.answer(req, Reply::Queued(req.0.to_string()));
            assert!(matches!(answer.try_recv(), Ok(Reply::Queued(id)) if id == req.0.to_string()));
        }
        // One that nobody asked for.
        waiting.answer(ReqId(0), Reply::Queued("x".into()));
    }

    /// Signs of life come from the loop that serves: while it stands still there are none.
    #[test]
    fn a_loop_that_hangs_gives_no_sign_of_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        systemd.set_nonblocking(false).unwrap();
        let interval = Duration::from_millis(20);
        let notifier = Notifier::watched(path.to_str().unwrap(), interval);
        let (hangs, hung) = blocking::channel();
        let (go_on, told) = blocking::channel();
        let node = Box::new(Hanging { hangs, go_on: told });
        let (core, _inlets, outlets) = channels();
        let serving = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
            runtime.unwrap().block_on(run(node, outlets, NoEffects, &notifier))
        });
        let mut word = [0; 64];
        let mut alive = || {
            systemd.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
            let n = systemd.recv(&mut word).expect("a sign of life");
            assert_eq!(&word[..n], b"WATCHDOG=1");
        };
        alive();
        alive();
        let asker = core.clone();
        let asked = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap();
            runtime.block_on(asker.client(ClientRequest::Greet))
        });
        hung.recv().unwrap();
        // What was said before it stood still.
        systemd.set_nonblocking(true).unwrap();
        while systemd.recv(&mut [0; 64]).is_ok() {}
        systemd.set_nonblocking(false).unwrap();
        systemd.set_read_timeout(Some(interval * 10)).unwrap();
        assert!(
            systemd.recv(&mut [0; 64]).is_err(),
            "a sign of life of a loop that stands still"
        );
        go_on.send(()).unwrap();
        alive();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let ended = runtime.block_on(core.operator(Command::Evict { node: "x".into() }));
        assert!(ended.is_err(), "{ended:?}");
        assert_eq!(serving.join().unwrap(), Err("told to".into()));
        assert!(asked.join().unwrap().is_err());
    }
}
