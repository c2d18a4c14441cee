//! Answers requests: at once from the node, or from a task beside the loop.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::spawn_blocking;

use crate::api::{ApiError, BenchRequest, Report};
use crate::driver::bench::{self, Bench, Progress};
use crate::driver::engine::EngineHandle;
use crate::driver::request::{BoxFuture, Reply, Request};
use crate::driver::run::beside::{Beside, Done};
use crate::driver::run::{Driver, now};
use crate::node::exchange::{Input, RequestId};
use crate::secret::Secrets;

/// Seconds that one phase of `weft bench` may take.
const BENCH_SECONDS_MAX: u32 = 3600;

impl<E: EngineHandle> Driver<E> {
    pub(super) fn request(&mut self, request: Request, beside: &Beside) {
        match request {
            Request::Status(reply) => {
                let _ = reply.send(self.node.status(self.engine.status(), now()));
            }
            Request::Report(reply) => self.report(reply),
            Request::Connect(request, reply) => {
                let (peers, replace) = (request.peers, request.replace);
                let request = self.expect_answer(reply);
                self.feed(
                    Input::Connect {
                        request,
                        peers,
                        replace,
                    },
                    beside,
                );
            }
            Request::Forget(request, reply) => {
                let peers = request.peers;
                let request = self.expect_answer(reply);
                self.feed(Input::Forget { request, peers }, beside);
            }
            Request::Attach(request, reply) => answer_later(self.attacher.attach(request), reply),
            Request::Detach(request, reply) => answer_later(self.attacher.detach(request), reply),
            Request::Expose(request, reply) => answer_later(self.attacher.expose(request), reply),
            Request::Hide(request, reply) => answer_later(self.attacher.hide(request), reply),
            Request::Ps(reply) => answer_later(self.attacher.list(), reply),
            Request::Addresses(what, reply) => self.ask_for_addresses(what, reply, beside),
            Request::FindOwner(text, reply) => {
                let _ = reply.send(self.node.find_owner(&text));
            }
            Request::Bench(request, progress) => self.bench(&request, progress),
            Request::Reload(credentials, reply) => {
                let (network, done) = (self.network, beside.done.clone());
                spawn_blocking(move || {
                    let _ = done.send(Done::Stretched(
                        Secrets::stretch(&credentials, &network),
                        reply,
                    ));
                });
            }
            // The loop has taken these two.
            Request::Stop(_) | Request::Reset(_) => {}
        }
    }

    fn expect_answer(&mut self, reply: Reply<Result<(), ApiError>>) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.answers.insert(request, reply);
        request
    }

    fn report(&self, reply: Reply<Report>) {
        let status = self.node.status(self.engine.status(), now());
        let control_counters = self.node.counters();
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
                control_counters,
            });
        });
    }

    fn bench(&mut self, request: &BenchRequest, progress: Progress) {
        let refusal = if self
            .benching
            .as_ref()
            .is_some_and(|task| !task.is_finished())
        {
            "another measurement is running".to_owned()
        } else if !(1..=BENCH_SECONDS_MAX).contains(&request.seconds) {
            format!("seconds is not 1 to {BENCH_SECONDS_MAX}")
        } else {
            match self.node.find_peer(&request.peer) {
                Some(slot) => {
                    let phase = Duration::from_secs(request.seconds.into());
                    let bench = Bench {
                        slot,
                        phase,
                        mtu: self.mtu,
                    };
                    let engine = Arc::clone(&self.engine);
                    self.benching = Some(tokio::spawn(bench::run(engine, bench, progress)));
                    return;
                }
                None => format!(
                    "{}: not one connected peer; accepted are the name, nickname or PeerId that `weft status connections` shows",
                    request.peer
                ),
            }
        };
        tokio::spawn(async move {
            let _ = progress.send(Err(ApiError { error: refusal })).await;
        });
    }
}

fn answer_later<T: Send + 'static>(work: BoxFuture<T>, reply: Reply<T>) {
    tokio::spawn(async move {
        let _ = reply.send(work.await);
    });
}
