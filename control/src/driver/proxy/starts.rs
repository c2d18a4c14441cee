//! Puts containers that wait for the network on it, each once for every start.
//!
//! ```text
//!  Docker's event, a start through the proxy, a look at what runs ─► begin ─► attach ─┬─► the held answer
//!                                                    (once for a process)            └─► failed: again, later
//! ```
//!
//! A container whose start somebody waits for is killed if it cannot be attached, and the start fails with the reason.
//! Otherwise it goes on waiting and is tried again: killing it would only make Docker start another that fails.
//! Bound: one entry for each running container.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::sync::{mpsc, oneshot, watch};

use super::kept::{Kept, instead};
use crate::api::{AttachRequest, Attachment, ContainerFiles, STOPPING};
use crate::driver::container::shown_id;
use crate::driver::docker::{Docker, DockerError, Started};
use crate::driver::request::Request;
use crate::proxy::WAIT_PROGRAM;
use crate::proxy::wish::Wish;

/// The first pause before another try.
const RETRY_MIN: Duration = Duration::from_secs(2);
/// The longest.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// How containers are attached.
#[derive(Debug, Clone)]
pub(super) struct AttachRules {
    pub(super) without_dns: bool,
    pub(super) rewrite_hosts: bool,
    /// The folder whose containers get a multicast route, and the one whose containers get none. Those of another
    /// weft on this host have another.
    pub(super) folders: [String; 2],
    /// Where addresses come from, if they are given.
    pub(super) range: Option<Ipv4Net>,
}

type Outcome = Option<Result<(), String>>;

/// A process that is known.
#[derive(Debug)]
struct Known {
    pid: u32,
    /// None for a container that is not ours.
    outcome: Option<watch::Receiver<Outcome>>,
}

/// All starts.
#[derive(Debug, Clone)]
pub(super) struct Starts {
    docker: Docker,
    requests: mpsc::Sender<Request>,
    rules: Arc<AttachRules>,
    known: Arc<Mutex<BTreeMap<String, Known>>>,
    kept: Arc<Kept>,
}

impl Starts {
    pub(super) fn new(docker: Docker, requests: mpsc::Sender<Request>, rules: AttachRules) -> Self {
        Self {
            docker,
            requests,
            rules: Arc::new(rules),
            known: Arc::default(),
            kept: Arc::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Known>> {
        // Nothing in here panics half way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a container has on the network, if it is there.
    pub(super) async fn on_the_network(&self, id: &str) -> Option<Attachment> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Request::Ps(reply)).await.ok()?;
        let all = answer.await.ok()?.ok()?;
        all.into_iter().find(|one| one.id == shown_id(id))
    }

    /// Waits until a container that a client has just started is on the network; kills it if that fails.
    ///
    /// Its process is younger than the client's call, and so is every result for it. One that ran before is not to be
    /// asked about here: it may have failed long ago.
    pub(super) async fn attached(&self, name: &str) -> Result<(), String> {
        let Some(started) = self.look(name).await else {
            return Ok(());
        };
        let (id, pid) = (started.id.clone(), started.pid);
        let Some(mut outcome) = self.begin(started, false) else {
            return Ok(());
        };
        // A task that is gone has been told to stop with the daemon.
        let outcome = match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Ok(())),
            Err(_) => Err(STOPPING.to_owned()),
        };
        if outcome.is_err() {
            self.kill(&id, pid).await;
        }
        outcome
    }

    /// Kills a container unless another process has taken the place of this one.
    async fn kill(&self, id: &str, pid: u32) {
        let is_same = self.look(id).await.is_some_and(|now| now.pid == pid);
        if is_same && let Err(error) = self.docker.kill(id).await {
            tracing::debug!(%error, "a container that was not attached is not killed");
        }
    }

    /// Looks at a container of which there is news; attaches it if it is to be.
    pub(super) async fn noticed(&self, id: &str) {
        if let Some(started) = self.look(id).await {
            self.begin(started, true);
        }
    }

    /// What the status says of addresses that are kept.
    pub(super) fn note(&self) -> Option<String> {
        self.kept.note()
    }

    /// A container has ended.
    pub(super) fn ended(&self, id: &str) {
        self.known().remove(id);
        self.kept.retain(|other| other != id);
    }

    /// These containers run: forgets others and returns those of which nothing is known.
    pub(super) fn compare(&self, running: &BTreeSet<String>) -> Vec<String> {
        let mut known = self.known();
        known.retain(|id, _| running.contains(id));
        self.kept.retain(|id| running.contains(id));
        let news = running.iter().filter(|id| !known.contains_key(*id));
        news.cloned().collect()
    }

    /// Whether a new process in a container has to wait for the network, too.
    pub(super) async fn must_wait(&self, name: &str) -> bool {
        let Some(started) = self.look(name).await else {
            return false;
        };
        if !self.is_ours(&started) {
            return false;
        }
        let known = self.known();
        let ours = known
            .get(&started.id)
            .filter(|known| known.pid == started.pid);
        let outcome = ours.and_then(|known| known.outcome.as_ref());
        !outcome.is_some_and(|outcome| matches!(*outcome.borrow(), Some(Ok(()))))
    }

    /// Whether the container's first process began as the wait program of this weft.
    fn is_ours(&self, started: &Started) -> bool {
        let folder = started.folder.as_ref();
        let first = started.entrypoint.first();
        first.is_some_and(|first| first == WAIT_PROGRAM)
            && folder.is_some_and(|folder| self.rules.folders.contains(folder))
    }

    /// What Docker says of a running container.
    async fn look(&self, name: &str) -> Option<Started> {
        match self.docker.started(name).await {
            Ok(started) => Some(started),
            // It has ended already, or never was.
            Err(DockerError::Unknown { .. } | DockerError::NotRunning { .. }) => None,
            Err(error) => {
                tracing::warn!(container = name, %error, "cannot see whether a container is to be attached");
                None
            }
        }
    }

    /// Begins to attach a container unless that is under way or done; none if it is not ours. It may have been attached
    /// by an earlier run of weft if it `may_be_old`.
    fn begin(&self, started: Started, may_be_old: bool) -> Option<watch::Receiver<Outcome>> {
        let mut known = self.known();
        if let Some(known) = known.get(&started.id)
            && known.pid == started.pid
        {
            return known.outcome.clone();
        }
        let environment = started.environment.iter().map(String::as_str);
        // It was asked for when the container was created.
        let wish = Wish::of(&started.network_mode, environment, true);
        let (id, pid) = (started.id.clone(), started.pid);
        let outcome = match wish {
            Wish::Attached(addresses) if self.is_ours(&started) => {
                let (sender, outcome) = watch::channel(None);
                let wish = (addresses, may_be_old);
                tokio::spawn(self.clone().attach(started, wish, sender));
                Some(outcome)
            }
            Wish::Attached(_) | Wish::Alone(_) => None,
        };
        let receiver = outcome.clone();
        known.insert(id, Known { pid, outcome });
        receiver
    }

    /// Tries until it is attached or has ended.
    async fn attach(
        self,
        started: Started,
        (mut addresses, may_be_old): (Vec<String>, bool),
        outcome: watch::Sender<Outcome>,
    ) {
        if may_be_old && let Some(kept) = self.kept_by(&started, &addresses).await {
            addresses = kept;
        }
        let mut pause = RETRY_MIN;
        loop {
            let result = self.try_to_attach(&started, &addresses).await;
            outcome.send_replace(Some(result.clone()));
            let Err(line) = result else {
                return;
            };
            tracing::warn!(
                container = started.name,
                error = line,
                "a container is not on the network"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(RETRY_MAX);
            let now = self.docker.started(&started.id).await;
            if !now.is_ok_and(|now| now.pid == started.pid) {
                return;
            }
        }
    }

    /// What a container keeps that was attached by an earlier run of weft with another range, in place of its wishes.
    async fn kept_by(&self, started: &Started, wished: &[String]) -> Option<Vec<String>> {
        let range = self.rules.range?;
        let present = self.on_the_network(&started.id).await?.addresses;
        let kept = instead(wished, &present, range)?;
        let name = &started.name;
        tracing::warn!(container = name, addresses = ?kept, "keeps addresses of another range until it starts again");
        self.kept.add(&started.id, name, &kept);
        Some(kept.iter().map(ToString::to_string).collect())
    }

    async fn try_to_attach(&self, started: &Started, addresses: &[String]) -> Result<(), String> {
        let request = AttachRequest {
            container: started.id.clone(),
            addresses: addresses.to_vec(),
            multicast_route: started.folder.as_ref() == Some(&self.rules.folders[0]),
            names: Vec::new(),
            without_dns: self.rules.without_dns,
            files: ContainerFiles {
                rewrite_hosts: Some(self.rules.rewrite_hosts),
                ..ContainerFiles::default()
            },
        };
        let (reply, answer) = oneshot::channel();
        let stopping = || STOPPING.to_owned();
        let asked = self.requests.send(Request::Attach(request, reply)).await;
        asked.map_err(|_| stopping())?;
        let answer = answer.await.map_err(|_| stopping())?;
        answer.map(drop).map_err(|refusal| refusal.error)
    }
}
