//! Follows the life of Docker's containers: each that runs is taken up, whenever it started.
//!
//! ```text
//!  Docker there ─► events ─► who runs now ─► take up each ─┐
//!                   ├─ start, connect, rename ─► take up ──┴─► the proxy: on the network, if it is to be
//!                   ├─ connect ─► the loop: its names        └► the loop: names, settings
//!                   ├─ die ─► the proxy
//!                   ├─ destroy ─► its addresses are free at once
//!                   └─ prune ─► the network `weft` is made again
//!               └─► what it could not start without us ─► started
//!  Docker gone ──► nothing is concluded from it; try again
//! ```
//!
//! Events are asked for from a time before the list is made, so none is missed; taking up twice does no harm. A container
//! that ends needs no event: its interface is gone, and that is what names and addresses follow. One that may be started
//! again keeps its addresses for a while; one that is removed does not, and others may have them at once.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::StreamExt as _;
use ipnet::Ipv4Net;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};

use super::docker::{Docker, DockerError, News};
use super::docker_sight::DockerSight;
use super::firewall;
use super::plugin::{DEFAULT_NETWORK, Verdict, ensure_network, judge, start_left_out};
use super::proxy::ProxyHandle;
use super::request::Request;
use crate::ipam::request::Request as AddressRequest;

/// Before the first new attempt to reach Docker.
const PAUSE: Duration = Duration::from_millis(100);
/// Each attempt waits twice as long as the one before, up to this: after a restart of Docker its containers are to be
/// whole within seconds.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often is looked at what runs, since events may be missed around a break; at the rule for Docker's filter, which
/// somebody may flush; and what failed is tried again.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How often is looked whether somebody listens at Docker's socket: a Docker that is told to end shuts it at once, and
/// keeps the stream of events open until its containers have ended.
const KNOCK_EVERY: Duration = Duration::from_secs(1);
/// Containers that are tried again; a bridge of Linux has 1024 ports. Others wait for their next event.
const FAILED_MAX: usize = 1024;
/// Containers that are taken up at the same time: Docker describes one in milliseconds.
const AT_ONCE: usize = 8;

/// What follows Docker.
#[derive(Debug, Clone)]
pub struct Life {
    docker: Docker,
    requests: mpsc::Sender<Request>,
    /// The subnet of the network that Docker is to have; `None`: no plugin.
    network: Option<Ipv4Net>,
    /// Docker may be without it.
    is_wanted: Arc<Notify>,
    proxy: Option<ProxyHandle>,
    sight: DockerSight,
    bridge: String,
    places: Arc<Semaphore>,
    /// Containers that were not taken up.
    failed: Arc<Mutex<BTreeSet<String>>>,
}

impl Life {
    /// Follows `docker` and tells the loop behind `requests` and the proxy; a Docker that comes gets the network
    /// `weft`, if that has a subnet here, and its filter lets `bridge` pass.
    #[must_use]
    pub fn new(
        docker: Docker,
        requests: mpsc::Sender<Request>,
        network: Option<Ipv4Net>,
        bridge: &str,
        proxy: Option<ProxyHandle>,
    ) -> Self {
        Self {
            docker,
            requests,
            network,
            is_wanted: Arc::default(),
            proxy,
            sight: DockerSight::default(),
            bridge: bridge.to_owned(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            failed: Arc::default(),
        }
    }

    /// The same, which writes down what it sees.
    #[must_use]
    pub fn with_sight(self, sight: DockerSight) -> Self {
        Self { sight, ..self }
    }

    /// Docker answers, or why not.
    fn docker_is_there(&self, there: Result<(), String>) {
        self.sight.docker_is_there(there.clone());
        if let Some(proxy) = &self.proxy {
            proxy.docker_is_there(there);
        }
    }

    fn failed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        // Nothing in here panics half way.
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows Docker until nobody listens any more; Docker may come and go.
    pub async fn follow(self) {
        let mut pause = PAUSE;
        let mut is_told = false;
        while !self.requests.is_closed() {
            let mut was_there = false;
            let Err(error) = self.while_it_is_there(&mut was_there).await;
            self.docker_is_there(Err(error.to_string()));
            if was_there {
                (pause, is_told) = (PAUSE, false);
                tracing::debug!(%error, "Docker broke off");
            } else if !is_told {
                tracing::info!(%error, "works without Docker, and waits for it");
                is_told = true;
            }
            tokio::time::sleep(pause).await;
            pause = (2 * pause).min(PAUSE_MAX);
        }
    }

    async fn while_it_is_there(&self, was_there: &mut bool) -> Result<Infallible, DockerError> {
        let mut news = std::pin::pin!(self.docker.news().await?);
        // The first look at the stream subscribes; what happens before Docker has heard that comes all the same.
        let mut looks = std::pin::pin!(self.look_now_and_again(was_there));
        loop {
            tokio::select! {
                biased;
                news = news.next() => match news {
                    Some(news) => self.hear(news?),
                    None => {
                        let host = self.docker.host().to_owned();
                        return Err(DockerError::Ended { host });
                    }
                },
                failed = &mut looks => return failed,
            }
        }
    }

    fn hear(&self, news: News) {
        match news {
            News::Started(id) | News::Renamed(id) => self.take_up(id),
            News::Connected {
                container,
                network: Some(network),
            } => self.expect(container, network),
            News::Connected { container, .. } => self.take_up(container),
            News::Ended(id) => {
                if let Some(proxy) = &self.proxy {
                    proxy.ended(&id);
                }
            }
            News::Removed(id) => self.free(id),
            News::Pruned => self.is_wanted.notify_one(),
        }
    }

    /// Until Docker does not answer. Part of whoever waits for it: what comes after that finds rule and network as they
    /// were left.
    async fn look_now_and_again(&self, was_there: &mut bool) -> Result<Infallible, DockerError> {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        let mut knocks = tokio::time::interval(KNOCK_EVERY);
        let mut refusal = None;
        self.is_wanted.notify_one();
        loop {
            tokio::select! {
                biased;
                _ = looks.tick() => {
                    self.look(std::mem::replace(was_there, true)).await?;
                    self.look_at_network(refusal.as_deref()).await?;
                    pass_filter(&self.bridge).await;
                }
                _ = knocks.tick() => self.docker.knock().await?,
                // The containers come first: Docker may take its time for a network.
                () = self.is_wanted.notified() => if let Some(subnet) = self.network {
                    let why = ensure_network(&self.docker, subnet).await;
                    if let Some(why) = why.as_ref().filter(|why| refusal.as_ref() != Some(*why)) {
                        tracing::warn!(why, "Docker does not make the network {DEFAULT_NETWORK}");
                    }
                    refusal = why;
                    // Beside all else: each of them asks for a place on a network.
                    tokio::spawn(start_left_out(self.docker.clone()));
                }
            }
        }
    }

    async fn look(&self, was_there: bool) -> Result<(), DockerError> {
        let running = self.docker.running().await?;
        self.docker_is_there(Ok(()));
        let new = self.proxy.as_ref().map(|proxy| proxy.unknown(&running));
        if was_there {
            self.try_again();
            new.into_iter().flatten().for_each(|id| self.take_up(id));
        } else {
            // Docker starts containers again before it can be listened to: those that are known may have another
            // process now, which waits.
            tracing::info!(running = running.len(), "follows Docker");
            running.into_iter().for_each(|id| self.take_up(id));
        }
        Ok(())
    }

    /// Whether Docker has the network that containers ask for, as it is to be; has it made anew when nobody is on it any
    /// more, or when Docker refused to make it the last time.
    async fn look_at_network(&self, refusal: Option<&str>) -> Result<(), DockerError> {
        let Some(subnet) = self.network else {
            return Ok(());
        };
        let found = self.docker.network(DEFAULT_NETWORK).await?;
        let verdict = judge(found.as_ref(), subnet);
        let refusal = refusal.filter(|_| verdict == Verdict::Absent);
        if verdict == Verdict::Outdated || refusal.is_some() {
            self.is_wanted.notify_one();
        }
        let refused = refusal.map(|why| format!("which Docker does not make: {why}"));
        self.sight.network_has(refused.or_else(|| verdict.fault()));
        Ok(())
    }

    /// Has one container taken up, beside all else.
    fn take_up(&self, id: String) {
        let life = self.clone();
        tokio::spawn(async move {
            let Ok(_place) = life.places.acquire().await else {
                return;
            };
            if let Some(proxy) = &life.proxy {
                proxy.noticed(&id).await;
            }
            let (reply, answer) = oneshot::channel();
            if life
                .requests
                .send(Request::Adopt(id.clone(), reply))
                .await
                .is_err()
            {
                return;
            }
            match answer.await {
                Ok(Ok(_)) => {
                    life.failed().remove(&id);
                }
                Ok(Err(error)) => life.note_failure(id, &error.error),
                // The loop has ended.
                Err(_) => {}
            }
        });
    }

    /// Has a container named for its place on a network, then taken up: Docker describes it once it runs, and one of
    /// those that wait for that keeps no other from its name.
    fn expect(&self, id: String, network: String) {
        let life = self.clone();
        tokio::spawn(async move {
            let (reply, answer) = oneshot::channel();
            let what = Request::Expect(network, id.clone(), reply);
            if life.requests.send(what).await.is_ok()
                && let Ok(Err(error)) = answer.await
            {
                tracing::debug!(container = id, error = error.error, "named once it runs");
            }
            life.take_up(id);
        });
    }

    /// Has the addresses of a container freed that will never be started again.
    fn free(&self, holder: String) {
        self.failed().remove(&holder);
        let requests = self.requests.clone();
        tokio::spawn(async move {
            let (reply, answer) = oneshot::channel();
            let what = AddressRequest::ReleaseAll { holder };
            if requests.send(Request::Addresses(what, reply)).await.is_ok() {
                // Without address management there is nothing to free.
                let _ = answer.await;
            }
        });
    }

    /// Says once why a container is not taken up.
    fn note_failure(&self, id: String, error: &str) {
        let mut failed = self.failed();
        if failed.contains(&id) {
            return;
        }
        tracing::warn!(container = id, error, "not taken up");
        if failed.len() < FAILED_MAX {
            failed.insert(id);
        }
    }

    /// Has what failed taken up; a container that has ended meanwhile needs nothing more, and that is no failure.
    fn try_again(&self) {
        let failed = self.failed().clone();
        for id in failed {
            self.take_up(id);
        }
    }
}

/// Without iptables Docker does not filter either.
async fn pass_filter(bridge: &str) {
    if firewall::docker::ensure(bridge).await.is_ok_and(|new| new) {
        tracing::info!(bridge, "Docker's filter lets the bridge pass");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{ApiError, AttachReply};

    #[tokio::test]
    async fn what_was_not_taken_up_is_tried_again_until_it_is() {
        let (requests, mut asked) = mpsc::channel(8);
        let docker = Docker::new(Some("unix:///nowhere/docker.sock")).unwrap();
        let life = Life::new(docker, requests, None, "weft", None);
        life.take_up("c1".to_owned());
        for is_last in [false, false, true] {
            let Some(Request::Adopt(id, reply)) = asked.recv().await else {
                panic!("it is tried");
            };
            assert_eq!(id, "c1");
            let refused = Err(ApiError {
                error: "not now".to_owned(),
            });
            let answer = if is_last {
                Ok(AttachReply::default())
            } else {
                refused
            };
            reply.send(answer).unwrap();
            while life.failed().is_empty() != is_last || life.places.available_permits() < AT_ONCE {
                tokio::task::yield_now().await;
            }
            life.try_again();
        }
        assert!(life.failed().is_empty() && asked.try_recv().is_err());
    }

    #[tokio::test]
    async fn the_addresses_of_a_removed_container_are_free_at_once() {
        let (requests, mut asked) = mpsc::channel(8);
        let docker = Docker::new(Some("unix:///nowhere/docker.sock")).unwrap();
        let life = Life::new(docker, requests, None, "weft", None);
        life.free("c1".to_owned());
        let Some(Request::Addresses(AddressRequest::ReleaseAll { holder }, _)) = asked.recv().await
        else {
            panic!("they are freed");
        };
        assert_eq!(holder, "c1");
    }

    #[tokio::test]
    async fn what_is_seen_of_docker_is_written_down() {
        let sight = DockerSight::default();
        let (requests, _asked) = mpsc::channel(8);
        let docker = Docker::new(Some("unix:///nowhere/docker.sock")).unwrap();
        let life = Life::new(docker, requests, None, "weft", None).with_sight(sight.clone());
        life.docker_is_there(Err("early".to_owned()));
        assert_eq!(
            sight.plugin(),
            None,
            "without a plugin there is nothing to tell"
        );

        sight.plugin_serves(crate::api::PluginStatus::default());
        let gone = tokio::spawn(life.follow());
        let trouble = || sight.plugin().unwrap().trouble;
        while trouble().is_none() {
            tokio::task::yield_now().await;
        }
        gone.abort();
        assert!(trouble().unwrap().contains("its socket is not there"));
    }
}
