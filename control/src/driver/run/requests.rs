//! Answers requests: at once from the node, or from a task beside the loop.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::api::{ApiError, BenchRequest, ConnectRequest, PeerRequest, PingReply, Report, Status};
use crate::driver::bench::{self, Bench, Progress};
use crate::driver::dns::desk::Change;
use crate::driver::docker_sight::DockerSight;
use crate::driver::engine::EngineHandle;
use crate::driver::proxy::ProxyHandle;
use crate::driver::request::{BoxFuture, Reply, Request};
use crate::driver::run::beside::{Beside, Done};
use crate::driver::run::{Driver, now};
use crate::node::exchange::{Input, RequestId};
use crate::secret::{Credential, Secrets};

/// Seconds that one phase of `weft bench` may take.
const BENCH_SECONDS_MAX: u32 = 3600;

impl<E: EngineHandle> Driver<E> {
    /// Lets the status tell of a proxy.
    #[must_use]
    pub fn with_proxy(self, proxy: Option<ProxyHandle>) -> Self {
        Self { proxy, ..self }
    }

    /// Lets the status tell of Docker's network plugin.
    #[must_use]
    pub fn with_docker_sight(self, docker_sight: DockerSight) -> Self {
        Self {
            docker_sight,
            ..self
        }
    }

    pub(super) fn request(&mut self, request: Request, beside: &Beside) {
        match request {
            Request::Status(reply) => {
                let mut status = self.status();
                status.dns = self.dns_status(false);
                let _ = reply.send(status);
            }
            Request::Report(reply) => self.report(reply),
            Request::Peers(reply) => {
                let _ = reply.send(self.node.peer_reports());
            }
            Request::Topology(reply) => {
                let _ = reply.send(self.node.topology_report());
            }
            Request::Path(request, reply) => {
                let _ = reply.send(self.node.path_report(&request.peer));
            }
            Request::Ping(request, reply) => self.ping(request, reply, beside),
            Request::Connect(request, reply) => self.connect(request, reply, beside),
            Request::Forget(request, reply) => {
                let peers = request.peers;
                let request = self.expect_answer(reply);
                self.feed(Input::Forget { request, peers }, beside);
            }
            Request::Attach(request, reply) => {
                let work = |client| self.attacher.attach(request, client);
                self.attach(work, Done::Attached, reply, beside);
            }
            Request::Detach(request, reply) => {
                let work = |_| self.attacher.detach(request);
                self.attach(work, Done::Detached, reply, beside);
            }
            Request::Adopt(container, reply) => self.adopt(container, reply, beside),
            Request::Expect(network, id, reply) => self.expect(network, id, reply, beside),
            Request::Disowned(left) => self.disown(&left),
            Request::Dns(reply) => {
                let _ = reply.send(self.dns_status(true));
            }
            Request::DnsAdd(request, reply) => {
                self.dns_change(Change::Add, request, reply, beside);
            }
            Request::DnsRemove(request, reply) => {
                self.dns_change(Change::Remove, request, reply, beside);
            }
            Request::DnsLookup(request, reply) => {
                let _ = reply.send(self.ask_desk(|desk| desk.lookup(&request)));
            }
            Request::Expose(request, reply) => {
                let work = |client| self.attacher.expose(request, client);
                self.attach(work, Done::Attached, reply, beside);
            }
            Request::Hide(request, reply) => {
                let work = |_| self.attacher.hide(request);
                self.attach(work, Done::Detached, reply, beside);
            }
            Request::Find(asked, reply) => {
                answer_later(self.attacher.describe(asked.container), reply);
            }
            Request::Ps(reply) => answer_later(self.attacher.list(), reply),
            Request::Addresses(what, reply) => self.ask_for_addresses(what, reply, beside),
            Request::CheckAddresses(reply) => self.check_addresses(reply),
            Request::FindOwner(text, reply) => {
                let _ = reply.send(self.node.find_owner(&text));
            }
            Request::Bench(request, progress) => self.bench(request, progress, beside),
            Request::Reload(credentials, reply) => self.reload(credentials, reply, beside),
            // The loop has taken these two.
            Request::Stop(_) | Request::Reset(_) => {}
        }
    }

    fn reload(
        &self,
        credentials: Vec<Credential>,
        reply: Reply<Result<(), ApiError>>,
        beside: &Beside,
    ) {
        let (network, done) = (self.network, beside.done.clone());
        spawn_blocking(move || {
            let _ = done.send(Done::Stretched(
                Secrets::stretch(&credentials, &network),
                reply,
            ));
        });
    }

    fn connect(
        &mut self,
        request: ConnectRequest,
        reply: Reply<Result<(), ApiError>>,
        beside: &Beside,
    ) {
        let (peers, replace) = (request.peers, request.replace);
        let request = self.expect_answer(reply);
        let input = Input::Connect {
            request,
            peers,
            replace,
        };
        self.feed(input, beside);
    }

    fn expect_answer(&mut self, reply: Reply<Result<(), ApiError>>) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.answers.insert(request, reply);
        request
    }

    fn status(&self) -> Status {
        let mut status = self.node.status(self.engine.status(), now());
        status.engine.notes.extend(self.store.notes());
        let kept = self.proxy.as_ref().and_then(ProxyHandle::note);
        status.engine.notes.extend(kept);
        status.proxy = self.proxy.as_ref().map(ProxyHandle::status);
        status.plugin = self.docker_sight.plugin();
        status
    }

    fn report(&self, reply: Reply<Report>) {
        let mut status = self.status();
        let mut control_counters = self.node.counters();
        let mut dns_entries = Vec::new();
        if let Some(mut dns) = self.dns_status(true) {
            dns_entries = std::mem::take(&mut dns.entries);
            status.dns = Some(dns);
        }
        if let Some(naming) = &self.naming {
            control_counters.extend(naming.desk.dns().counters());
        }
        let (peers, routes) = (self.node.peer_reports(), self.node.route_reports());
        let listing = self.attacher.list();
        tokio::spawn(async move {
            let attachments = listing.await.unwrap_or_else(|error| {
                tracing::warn!(
                    error = error.error,
                    "attachments are missing from the report"
                );
                Vec::new()
            });
            let _ = reply.send(Report {
                status,
                attachments,
                dns_entries,
                control_counters,
                peers,
                routes,
            });
        });
    }

    fn ping(
        &mut self,
        request: PeerRequest,
        reply: Reply<Result<PingReply, ApiError>>,
        beside: &Beside,
    ) {
        self.requests += 1;
        let (peer, request) = (request.peer, RequestId(self.requests));
        self.pings.insert(request, reply);
        self.feed(Input::Ping { request, peer }, beside);
    }

    fn bench(&mut self, request: BenchRequest, progress: Progress, beside: &Beside) {
        let slot = if self
            .benching
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            let error = "another measurement is running".to_owned();
            Err(ApiError { error })
        } else if !(1..=BENCH_SECONDS_MAX).contains(&request.seconds) {
            let error = format!("seconds is not 1 to {BENCH_SECONDS_MAX}");
            Err(ApiError { error })
        } else {
            self.node.find_peer(&request.peer)
        };
        let slot = match slot {
            Ok(slot) => slot,
            Err(refusal) => {
                tokio::spawn(async move {
                    let _ = progress.send(Err(refusal)).await;
                });
                return;
            }
        };
        let bench = Bench {
            slot,
            phase: Duration::from_secs(request.seconds.into()),
            mtu: self.mtu,
        };
        let engine = Arc::clone(&self.engine);
        // The first ping makes the session, if there is none yet.
        let (reply, answer) = oneshot::channel();
        if !self.node.has_session(slot) {
            let peer = request.peer;
            self.ping(PeerRequest { peer }, reply, beside);
        }
        self.benching = Some(tokio::spawn(async move {
            match answer.await {
                Ok(Err(refusal)) => {
                    let _ = progress.send(Err(refusal)).await;
                }
                Ok(Ok(_)) | Err(_) => bench::run(engine, bench, progress).await,
            }
        }));
    }
}

fn answer_later<T: Send + 'static>(work: BoxFuture<T>, reply: Reply<T>) {
    tokio::spawn(async move {
        let _ = reply.send(work.await);
    });
}
