//! Whole drivers over real TCP on loopback, with stand-ins for the engine and the containers.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, Weak};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use weft_engine::command::{Command, Event, PeerSlot};
use weft_engine::engine::BenchCounts;
use weft_engine::path::PathStatus;
use weft_engine::session::CipherSuite;

use super::*;
use crate::api::{
    self, AttachReply, AttachRequest, Attachment, BenchRequest, ConnectRequest, ExposeRequest,
    ForgetRequest, Status,
};
use crate::config::{CipherCost, RekeyConfig};
use crate::dns::names::Entry;
use crate::driver::client::Client;
use crate::driver::request::{BoxFuture, Changed};
use crate::secret::Credential;

type Bus = Arc<Mutex<BTreeMap<u32, (Weak<StandIn>, PeerSlot)>>>;

/// Installs at once, and tells the other stand-in on the bus when an epoch is active.
struct StandIn {
    events: Mutex<VecDeque<Event>>,
    wake: (UnixStream, UnixStream),
    bus: Bus,
    remotes: Mutex<BTreeMap<u32, u32>>,
    this: Weak<Self>,
}

impl StandIn {
    fn new(bus: &Bus) -> Arc<Self> {
        let wake = UnixStream::pair().unwrap();
        wake.0.set_nonblocking(true).unwrap();
        Arc::new_cyclic(|this| Self {
            events: Mutex::default(),
            wake,
            bus: Arc::clone(bus),
            remotes: Mutex::default(),
            this: this.clone(),
        })
    }

    fn report(&self, event: Event) {
        self.events.lock().unwrap().push_back(event);
        (&self.wake.1).write_all(&[1]).unwrap();
    }
}

impl EngineHandle for StandIn {
    fn traffic(&self) -> Vec<(PeerSlot, u64)> {
        Vec::new()
    }

    fn command(&self, command: Command) {
        match command {
            Command::InstallSession(keys) => {
                let (slot, local_index) = (keys.slot, keys.local_index);
                self.bus
                    .lock()
                    .unwrap()
                    .insert(local_index, (self.this.clone(), slot));
                self.remotes
                    .lock()
                    .unwrap()
                    .insert(local_index, keys.remote_index);
                self.report(Event::SessionInstalled { slot, local_index });
            }
            Command::ActivateSession { local_index, .. } => {
                let remote = self.remotes.lock().unwrap()[&local_index];
                let found = self.bus.lock().unwrap().get(&remote).cloned();
                if let Some((engine, slot)) =
                    found.and_then(|(engine, slot)| Some((engine.upgrade()?, slot)))
                {
                    let address = (Ipv4Addr::LOCALHOST, 1).into();
                    let rtt = Duration::from_millis(1);
                    let path = PathStatus {
                        address,
                        rtt,
                        rtt_least: rtt,
                        datagram_max: 1472,
                        loss: 0.0,
                    };
                    engine.report(Event::SessionConfirmed {
                        slot,
                        local_index: remote,
                    });
                    engine.report(Event::PathUp { slot, path });
                }
            }
            Command::AddPeer { .. }
            | Command::RemovePeer { .. }
            | Command::RemoveSession { .. }
            | Command::SetCandidates { .. }
            | Command::SetLabel(_)
            | Command::SetFib(_)
            | Command::SetNeighbours(_)
            | Command::SetDisputed(_)
            | Command::SetFlow { .. }
            | Command::SetLimits(_)
            | Command::SetGroupKey(_)
            | Command::RemoveGroupKey { .. }
            | Command::SendMessage { .. }
            | Command::Bench { .. } => {}
        }
    }

    fn poll_event(&self) -> Option<Event> {
        let event = self.events.lock().unwrap().pop_front();
        if event.is_none() {
            let _ = (&self.wake.0).read(&mut [0; 256]);
            return self.events.lock().unwrap().pop_front();
        }
        event
    }

    fn event_fd(&self) -> BorrowedFd<'_> {
        self.wake.0.as_fd()
    }

    fn workers(&self) -> u16 {
        1
    }

    fn ciphers(&self) -> Vec<CipherCost> {
        vec![CipherCost {
            suite: CipherSuite::ChaCha20Poly1305,
            ns_per_kib: 700,
        }]
    }

    fn status(&self) -> api::EngineStatus {
        api::EngineStatus {
            backend: "stand-in".to_owned(),
            ..api::EngineStatus::default()
        }
    }

    fn bench_counts(&self, _: PeerSlot) -> BenchCounts {
        BenchCounts {
            sent: 1,
            arrived: 1,
            arrived_bytes: 1390,
        }
    }

    fn take_bench_round_trip(&self) -> Option<Duration> {
        None
    }
}

struct NoContainers;

impl Attacher for NoContainers {
    fn attach(&self, request: AttachRequest, _: Client) -> BoxFuture<Result<Changed, ApiError>> {
        Box::pin(async move {
            Err(ApiError {
                error: format!("{}: no such container", request.container),
            })
        })
    }

    fn detach(&self, _: AttachRequest) -> BoxFuture<Result<Changed, ApiError>> {
        Box::pin(async { Ok(Changed::default()) })
    }

    fn describe(&self, container: String) -> BoxFuture<Result<AttachReply, ApiError>> {
        Box::pin(async move {
            let (id, names) = (container.clone(), vec![format!("{container}.weave.local")]);
            let addresses = vec![Ipv4Addr::new(10, 2, 1, 1).into()];
            Ok(AttachReply {
                addresses,
                id,
                names,
                warnings: Vec::new(),
            })
        })
    }

    fn expose(&self, _: ExposeRequest, _: Client) -> BoxFuture<Result<Changed, ApiError>> {
        Box::pin(async { Ok(Changed::default()) })
    }

    fn hide(&self, _: ExposeRequest) -> BoxFuture<Result<Changed, ApiError>> {
        Box::pin(async { Ok(Changed::default()) })
    }

    fn list(&self) -> BoxFuture<Result<Vec<Attachment>, ApiError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn list_by_holder(&self) -> BoxFuture<Result<Vec<Attachment>, ApiError>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    fn adopt(&self, _: String) -> BoxFuture<Result<Changed, ApiError>> {
        Box::pin(async { Ok(Changed::default()) })
    }

    fn expect(&self, _network: String, _container: String) -> BoxFuture<Result<Changed, ApiError>> {
        Box::pin(async { Ok(Changed::default()) })
    }

    fn forget(&self, _: BTreeSet<Arc<str>>, _: bool) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
    }

    fn unname(&self, _: Vec<Entry>) -> BoxFuture<()> {
        Box::pin(std::future::ready(()))
    }

    fn changed(&self) -> BoxFuture<()> {
        Box::pin(std::future::pending())
    }
}

struct Daemon {
    requests: mpsc::Sender<Request>,
    task: JoinHandle<Result<Ended, ControlError>>,
    address: String,
    port: u16,
}

fn config(dir: &tempfile::TempDir, nickname: &str, password: Option<&str>) -> DriverConfig {
    DriverConfig {
        data_dir: dir.path().join(nickname),
        network: "weft".to_owned(),
        credentials: password
            .map(|text| Credential::parse(text).unwrap())
            .into_iter()
            .collect(),
        name: None,
        nickname: nickname.parse().unwrap(),
        host: Some(Ipv4Addr::LOCALHOST.into()),
        port: 0,
        targets: Vec::new(),
        resume: false,
        mtu: 1376,
        bridge: "weft".to_owned(),
        discovery: true,
        relay: true,
        cipher: None,
        rekey: RekeyConfig::default(),
        addresses: None,
    }
}

async fn start(config: DriverConfig, bus: &Bus) -> Daemon {
    let driver = Driver::new(config, StandIn::new(bus), |_| Arc::new(NoContainers))
        .await
        .unwrap();
    let (port, address) = (driver.address().port(), driver.address().to_string());
    let (requests, receiver) = mpsc::channel(8);
    Daemon {
        requests,
        task: tokio::spawn(driver.run(receiver)),
        address,
        port,
    }
}

impl Daemon {
    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> T {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.unwrap();
        timeout(Duration::from_secs(20), answer)
            .await
            .unwrap()
            .unwrap()
    }

    async fn connect(&self, peer: &str) -> Result<(), ApiError> {
        let request = ConnectRequest {
            peers: vec![peer.to_owned()],
            replace: false,
        };
        self.ask(|reply| Request::Connect(request, reply)).await
    }

    async fn wait_for(&self, what: &str, condition: impl Fn(&Status) -> bool) -> Status {
        for _ in 0..2000 {
            let status = self.ask(Request::Status).await;
            if condition(&status) {
                return status;
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("{what} never came: {:#?}", self.ask(Request::Status).await);
    }

    async fn stop(self) {
        self.ask(Request::Stop).await;
        assert_eq!(self.task.await.unwrap().unwrap(), Ended::Stopped);
    }
}

fn established(status: &Status) -> bool {
    status
        .connections
        .iter()
        .any(|line| line.state == "established")
}

#[tokio::test]
async fn two_daemons_connect_by_name_stop_and_come_back() {
    let (dir, bus) = (tempfile::tempdir().unwrap(), Bus::default());
    let a = start(config(&dir, "a", Some("wfvAwt7sj")), &bus).await;
    let b = start(config(&dir, "b", Some("wfvAwt7sj")), &bus).await;

    a.connect(&format!("localhost:{}", b.port)).await.unwrap();
    let status = a.wait_for("a connection", established).await;
    b.wait_for("a connection", established).await;

    assert_eq!(status.membership, "password");
    assert_eq!(status.connections[0].nickname, "b");
    assert_eq!(
        status.connections[0].cipher.as_deref(),
        Some("chacha20-poly1305")
    );
    assert_eq!(status.engine.backend, "stand-in");
    let before = status.peer_id.clone();
    a.stop().await;
    b.wait_for("the loss of a", |status| status.connections.is_empty())
        .await;

    let a = start(config(&dir, "a", Some("wfvAwt7sj")), &bus).await;
    let status = a
        .wait_for("a connection from the saved target", established)
        .await;
    assert_eq!(status.peer_id, before);
    assert_eq!(status.targets[0].address, format!("localhost:{}", b.port));
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_told_on_both_sides() {
    let (dir, bus) = (tempfile::tempdir().unwrap(), Bus::default());
    let a = start(config(&dir, "a", Some("right")), &bus).await;
    let b = start(config(&dir, "b", Some("wrong")), &bus).await;

    a.connect(&b.address).await.unwrap();

    let says = |text: &'static str| {
        move |status: &Status| {
            status
                .connections
                .iter()
                .any(|line| line.detail.contains(text))
        }
    };
    a.wait_for("the reason", says("wrong password")).await;
    b.wait_for("the reason", says("wrong password")).await;
    let secrets = vec![Credential::parse("right").unwrap()];
    b.ask(|reply| Request::Reload(secrets, reply))
        .await
        .unwrap();
    a.connect(&b.address).await.unwrap();
    a.wait_for("a connection", established).await;
    a.stop().await;
    b.stop().await;
}

#[tokio::test]
async fn requests_are_answered_and_bad_ones_name_the_culprit() {
    let (dir, bus) = (tempfile::tempdir().unwrap(), Bus::default());
    let a = start(config(&dir, "a", None), &bus).await;

    let error = a.connect("not a peer").await.unwrap_err();
    assert!(
        error
            .error
            .starts_with("not a peer: not a peer; accepted are"),
        "{error:?}"
    );
    let forget = ForgetRequest {
        peers: vec!["x".to_owned()],
    };
    assert!(a.ask(|reply| Request::Forget(forget, reply)).await.is_err());
    let attach = AttachRequest {
        container: "c1".to_owned(),
        addresses: Vec::new(),
        multicast_route: true,
        names: Vec::new(),
        without_dns: false,
        files: api::ContainerFiles::default(),
    };
    let error = a
        .ask(|reply| Request::Attach(attach, reply))
        .await
        .unwrap_err();
    assert_eq!(error.error, "c1: no such container");
    assert_eq!(a.ask(Request::Ps).await, Ok(Vec::new()));
    let report = a.ask(Request::Report).await;
    assert_eq!(report.status.membership, "open");
    assert_eq!(report.control_counters["links_accepted"], 0);
    let (progress, mut lines) = mpsc::channel(4);
    let bench = BenchRequest {
        peer: "nobody".to_owned(),
        seconds: 1,
    };
    a.requests
        .send(Request::Bench(bench, progress))
        .await
        .unwrap();
    assert!(
        lines
            .recv()
            .await
            .unwrap()
            .unwrap_err()
            .error
            .starts_with("nobody: no such peer")
    );
    a.stop().await;
}

#[tokio::test]
async fn garbage_gets_no_answer_and_is_closed() {
    let (dir, bus) = (tempfile::tempdir().unwrap(), Bus::default());
    let a = start(config(&dir, "a", Some("secret")), &bus).await;

    let mut garbage = TcpStream::connect(&a.address).await.unwrap();
    garbage.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = timeout(Duration::from_secs(5), garbage.read_to_end(&mut answer))
        .await
        .expect("closed");
    assert!(answer.is_empty());
    let mut slow = TcpStream::connect(&a.address).await.unwrap();
    slow.write_all(b"we").await.unwrap();
    let _ = timeout(Duration::from_secs(8), slow.read_to_end(&mut answer))
        .await
        .expect("closed");
    assert!(answer.is_empty());
    a.stop().await;
}

#[tokio::test]
async fn reset_takes_identity_and_store_away() {
    let (dir, bus) = (tempfile::tempdir().unwrap(), Bus::default());
    let a = start(config(&dir, "a", None), &bus).await;
    a.ask(Request::Reset).await.unwrap();
    assert_eq!(a.task.await.unwrap().unwrap(), Ended::Reset);
    assert_eq!(std::fs::read_dir(dir.path().join("a")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let (dir, bus) = (tempfile::tempdir().unwrap(), Bus::default());
    let a = start(config(&dir, "a", None), &bus).await;
    let second = DriverConfig {
        port: a.port,
        ..config(&dir, "b", None)
    };
    let error = Driver::new(second, StandIn::new(&bus), |_| Arc::new(NoContainers))
        .await
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        format!("listen on TCP 127.0.0.1:{}", a.port)
    );
    a.stop().await;
}

#[tokio::test]
async fn a_measurement_runs_its_three_parts() {
    let (dir, bus) = (tempfile::tempdir().unwrap(), Bus::default());
    let a = start(config(&dir, "a", None), &bus).await;
    let b = start(config(&dir, "b", None), &bus).await;
    a.connect(&b.address).await.unwrap();
    a.wait_for("a connection", established).await;

    let (progress, mut lines) = mpsc::channel(4);
    a.requests
        .send(Request::Bench(
            BenchRequest {
                peer: "b".to_owned(),
                seconds: 1,
            },
            progress,
        ))
        .await
        .unwrap();
    let mut phases = Vec::new();
    while let Some(line) = lines.recv().await {
        let line = line.unwrap();
        if phases.last() != Some(&line.phase) {
            phases.push(line.phase);
        }
        if line.done.is_some() {
            break;
        }
    }

    assert_eq!(phases, ["throughput", "packets", "latency"]);
    a.stop().await;
    b.stop().await;
}
