//! Follows the life of Docker's containers: each that runs is taken up, whenever it started.
//!
//! ```text
//!  Docker there ─► events ─► who runs now ─► adopt each ─┐
//!                   ├─ start, connect ─► adopt ──────────┴─► the loop: names, settings
//!                   └─ destroy ─► its addresses are free at once
//!  Docker gone ──► nothing is concluded from it; try again
//! ```
//!
//! Events are asked for from a time before the list is made, so none is missed; adopting twice does no harm. A container
//! that ends needs no event: its interface is gone, and that is what names and addresses follow. One that may be started
//! again keeps its addresses for a while; one that is removed does not, and others may have them at once.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use futures_util::StreamExt as _;
use ipnet::Ipv4Net;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::docker::{Docker, DockerError};
use super::firewall;
use super::plugin::ensure_network;
use super::request::Request;
use crate::ipam::request::Request as AddressRequest;

/// Before the first new attempt to reach Docker.
const PAUSE: Duration = Duration::from_millis(100);
/// Each attempt waits twice as long as the one before, up to this: after a restart of Docker its containers are to be
/// whole within seconds.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// How often the rule for Docker's filter is looked for, which somebody may flush, and what failed is tried again.
const LOOK_EVERY: Duration = Duration::from_secs(5);
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
    bridge: String,
    places: Arc<Semaphore>,
    /// Containers that were not taken up.
    failed: Arc<Mutex<BTreeSet<String>>>,
}

impl Life {
    /// Follows `docker` and tells the loop behind `requests`; a Docker that comes gets the network `weft`, if that has
    /// a subnet here, and its filter lets `bridge` pass.
    #[must_use]
    pub fn new(
        docker: Docker,
        requests: mpsc::Sender<Request>,
        network: Option<Ipv4Net>,
        bridge: &str,
    ) -> Self {
        Self {
            docker,
            requests,
            network,
            bridge: bridge.to_owned(),
            places: Arc::new(Semaphore::new(AT_ONCE)),
            failed: Arc::default(),
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
            match self.while_it_is_there().await {
                Ok(()) => (pause, is_told) = (PAUSE, false),
                Err(error) => {
                    if !is_told {
                        tracing::info!(%error, "works without Docker, and waits for it");
                        is_told = true;
                    }
                    pause = (2 * pause).min(PAUSE_MAX);
                }
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// Ends well when Docker, having been there, is gone.
    async fn while_it_is_there(&self) -> Result<(), DockerError> {
        let client = self.docker.connect().await?;
        let filters = HashMap::from([
            ("type", vec!["container", "network"]),
            ("event", vec!["start", "connect", "destroy"]),
        ]);
        let filters = filters.into_iter().map(|(key, values)| {
            let values = values.into_iter().map(str::to_owned).collect();
            (key.to_owned(), values)
        });
        let options = EventsOptions {
            since: Some(seconds().to_string()),
            filters: Some(filters.collect()),
            ..EventsOptions::default()
        };
        let mut events = std::pin::pin!(client.events(Some(options)));
        // The first look at the stream subscribes; what happens before Docker has heard that comes all the same.
        let mut first = std::pin::pin!(self.take_up_all(&client));
        let mut has_listed = false;
        let mut looks = std::pin::pin!(self.look_now_and_again());
        loop {
            tokio::select! {
                biased;
                event = events.next() => match event {
                    Some(Ok(event)) => match news_of(event) {
                        Some(News::There(id)) => self.take_up(id),
                        Some(News::Removed(id)) => self.free(id),
                        None => {}
                    },
                    Some(Err(error)) => {
                        tracing::debug!(%error, "Docker's events broke off");
                        return Ok(());
                    }
                    None => return Ok(()),
                },
                () = &mut looks => return Ok(()),
                listed = &mut first, if !has_listed => {
                    has_listed = true;
                    if !listed {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Without end, and part of whoever waits for it: what comes after that finds the rule as it was left.
    async fn look_now_and_again(&self) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        loop {
            looks.tick().await;
            self.try_again();
            pass_filter(&self.bridge).await;
        }
    }

    async fn take_up_all(&self, client: &bollard::Docker) -> bool {
        let is_listed = match client.list_containers(None::<ListContainersOptions>).await {
            Ok(running) => {
                tracing::info!(running = running.len(), "follows Docker");
                for id in running.into_iter().filter_map(|container| container.id) {
                    self.take_up(id);
                }
                true
            }
            Err(error) => {
                tracing::debug!(%error, "Docker does not say what runs");
                false
            }
        };
        // The containers come first: Docker may take its time for a network.
        if let Some(subnet) = self.network {
            ensure_network(&self.docker, subnet).await;
        }
        is_listed
    }

    /// Has one container taken up, beside all else.
    fn take_up(&self, id: String) {
        let life = self.clone();
        tokio::spawn(async move {
            let Ok(_place) = life.places.acquire().await else {
                return;
            };
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

/// What an event says of a container.
#[derive(Debug, PartialEq, Eq)]
enum News {
    /// It started, or was put on a network.
    There(String),
    Removed(String),
}

fn news_of(event: EventMessage) -> Option<News> {
    let actor = event.actor?;
    match event.typ {
        Some(EventMessageTypeEnum::NETWORK) => {
            Some(News::There(actor.attributes?.remove("container")?))
        }
        Some(_) | None if event.action.as_deref() == Some("destroy") => {
            Some(News::Removed(actor.id?))
        }
        Some(_) | None => Some(News::There(actor.id?)),
    }
}

/// The time as Docker's events have it.
#[expect(
    clippy::disallowed_methods,
    reason = "the driver reads the clock; Docker, on the same host, has the same"
)]
fn seconds() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;
    use crate::api::{ApiError, AttachReply};

    #[tokio::test]
    async fn what_was_not_taken_up_is_tried_again_until_it_is() {
        let (requests, mut asked) = mpsc::channel(8);
        let docker = Docker::new(Some("unix:///nowhere/docker.sock")).unwrap();
        let life = Life::new(docker, requests, None, "weft");
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

    #[test]
    fn an_event_is_about_the_container_that_started_was_connected_or_was_removed() {
        let event = |typ, attributes: &[(&str, &str)]| EventMessage {
            typ: Some(typ),
            actor: Some(EventActor {
                id: Some("actor".to_owned()),
                attributes: Some(
                    attributes
                        .iter()
                        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                        .collect(),
                ),
            }),
            ..EventMessage::default()
        };
        let there = |id: &str| Some(News::There(id.to_owned()));
        let started = event(EventMessageTypeEnum::CONTAINER, &[("name", "web")]);
        assert_eq!(news_of(started), there("actor"));
        let connected = event(EventMessageTypeEnum::NETWORK, &[("container", "c1")]);
        assert_eq!(news_of(connected), there("c1"));
        let mut other = event(EventMessageTypeEnum::NETWORK, &[("name", "weft")]);
        other.action = Some("destroy".to_owned());
        assert_eq!(news_of(other), None);
        let mut removed = event(EventMessageTypeEnum::CONTAINER, &[("name", "web")]);
        removed.action = Some("destroy".to_owned());
        assert_eq!(news_of(removed), Some(News::Removed("actor".to_owned())));
    }

    #[tokio::test]
    async fn the_addresses_of_a_removed_container_are_free_at_once() {
        let (requests, mut asked) = mpsc::channel(8);
        let docker = Docker::new(Some("unix:///nowhere/docker.sock")).unwrap();
        let life = Life::new(docker, requests, None, "weft");
        life.free("c1".to_owned());
        let Some(Request::Addresses(AddressRequest::ReleaseAll { holder }, _)) = asked.recv().await
        else {
            panic!("they are freed");
        };
        assert_eq!(holder, "c1");
    }
}
