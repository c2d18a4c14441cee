//! What else Docker is asked: images, running containers, news of them.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{SystemTime, UNIX_EPOCH};

use bollard::models::{
    ContainerInspectResponse, EventMessage, EventMessageTypeEnum, NetworkInspect,
};
use bollard::query_parameters::{EventsOptions, ListContainersOptions};
use futures_util::{Stream, StreamExt};
use ipnet::IpNet;
use tokio::net::UnixStream;

use super::{Docker, DockerError, Silence, other_names};
use crate::plugin::DRIVERS;
use crate::proxy::WAIT_FOLDER;
use crate::proxy::create::{Image, is_mounted_at_ours};

/// What is news.
const EVENTS: &[&str] = &["start", "die", "connect", "destroy", "prune", "rename"];

/// A container's place on a network, which it has before its program begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Docker's id of it.
    pub endpoint: String,
    /// The container's address there.
    pub address: IpNet,
    /// What the container is called: its name, and what its networks call it.
    pub names: Vec<String>,
}

/// A running container, as far as it matters for attaching it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Started {
    /// Docker's id.
    pub id: String,
    /// Its name, for the log.
    pub name: String,
    /// Its first process.
    pub pid: u32,
    /// What it was started with.
    pub entrypoint: Vec<String>,
    /// Its variables, those of its image among them.
    pub environment: Vec<String>,
    /// Its network mode.
    pub network_mode: String,
    /// The folder that is mounted where the wait program is.
    pub folder: Option<String>,
}

/// What happened in Docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// A container runs; its id.
    Started(String),
    /// It runs no more.
    Ended(String),
    /// It was put on a network.
    Connected {
        /// Its id.
        container: String,
        /// The network's, if its driver is one of ours.
        network: Option<String>,
    },
    /// It is called otherwise; its id.
    Renamed(String),
    /// It will never be started again.
    Removed(String),
    /// All networks that nobody used are gone; of one that is removed by name there is no such news.
    Pruned,
}

impl Docker {
    /// What an image says about its containers.
    ///
    /// # Errors
    /// [`DockerError`]; a name that cannot be one is unknown.
    pub async fn image(&self, name: &str) -> Result<Image, DockerError> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_name) {
            return Err(DockerError::Unknown {
                name: name.to_owned(),
                host: self.host.clone(),
            });
        }
        let found = self.connect().await?.inspect_image(name).await;
        let found = found.map_err(|cause| self.refusal(name, cause))?;
        let config = found.config.unwrap_or_default();
        Ok(Image {
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            environment: config.env.unwrap_or_default(),
        })
    }

    /// Describes a running container.
    ///
    /// # Errors
    /// [`DockerError`].
    pub async fn started(&self, name: &str) -> Result<Started, DockerError> {
        let found = self.connect().await?.inspect_container(name, None).await;
        let found = found.map_err(|cause| self.refusal(name, cause))?;
        started(found).ok_or_else(|| DockerError::NotRunning {
            name: name.to_owned(),
        })
    }

    /// The network by which a container has an address.
    pub async fn network_of(&self, container: &str, address: IpAddr) -> Option<String> {
        let client = self.connect().await.ok()?;
        let found = client.inspect_container(container, None).await.ok()?;
        network_with(found, address)
    }

    /// A network, and who runs on it; `None`: there is none of that name or id.
    ///
    /// # Errors
    /// [`DockerError`].
    pub async fn network(&self, network: &str) -> Result<Option<NetworkInspect>, DockerError> {
        let found = self.connect().await?.inspect_network(network, None).await;
        match found.map_err(|cause| self.refusal(network, cause)) {
            Ok(found) => Ok(Some(found)),
            Err(DockerError::Unknown { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fails if nobody listens at Docker's socket; asks nothing.
    ///
    /// # Errors
    /// [`DockerError::Unreachable`].
    pub async fn knock(&self) -> Result<(), DockerError> {
        let silence = match UnixStream::connect(&self.socket).await {
            Ok(_) => return Ok(()),
            Err(error) => Silence::of_system(&error),
        };
        // Whoever is too busy to let us in is there.
        silence.map_or(Ok(()), |silence| {
            let host = self.host.clone();
            Err(DockerError::Unreachable { host, silence })
        })
    }

    /// Says what place a container has on a network, if it has one. Docker describes no container before it runs; its
    /// networks and its list are there at any time.
    ///
    /// # Errors
    /// [`DockerError`].
    pub async fn place(
        &self,
        network: &str,
        container: &str,
    ) -> Result<Option<Place>, DockerError> {
        let users = self
            .network(network)
            .await?
            .and_then(|found| found.containers);
        let Some(place) = users.unwrap_or_default().remove(container) else {
            return Ok(None);
        };
        let filters = HashMap::from([("id".to_owned(), vec![container.to_owned()])]);
        let options = ListContainersOptions {
            all: true,
            filters: Some(filters),
            ..ListContainersOptions::default()
        };
        let listed = self.connect().await?.list_containers(Some(options)).await;
        let listed = listed.map_err(|cause| self.refusal(container, cause))?;
        let place = || {
            let listed = listed.into_iter().next()?;
            let networks = listed
                .network_settings
                .and_then(|settings| settings.networks);
            let name = listed.names.unwrap_or_default().into_iter().next();
            Some(Place {
                endpoint: place.endpoint_id?,
                address: place.ipv4_address?.parse().ok()?,
                names: other_names(name, networks, container),
            })
        };
        Ok(place())
    }

    /// Kills a container's first process.
    ///
    /// # Errors
    /// [`DockerError`].
    pub async fn kill(&self, name: &str) -> Result<(), DockerError> {
        let killed = self.connect().await?.kill_container(name, None).await;
        killed.map_err(|cause| self.refusal(name, cause))
    }

    /// The ids of all running containers.
    ///
    /// # Errors
    /// [`DockerError`].
    pub async fn running(&self) -> Result<BTreeSet<String>, DockerError> {
        let options = ListContainersOptions::default();
        let listed = self.connect().await?.list_containers(Some(options)).await;
        let listed = listed.map_err(|cause| self.refusal("", cause))?;
        Ok(listed.into_iter().filter_map(|found| found.id).collect())
    }

    /// What happens from now on: nothing until Docker has heard the question is missed, and some may be older.
    ///
    /// # Errors
    /// [`DockerError`] if Docker does not answer; it may be another one than before.
    pub async fn news(
        &self,
    ) -> Result<impl Stream<Item = Result<News, DockerError>> + use<'_>, DockerError> {
        let client = self.connect_anew().await?;
        let filters = [("type", &["container", "network"][..]), ("event", EVENTS)];
        let filters = filters.map(|(key, words)| {
            let words = words.iter().map(|&word| word.to_owned()).collect();
            (key.to_owned(), words)
        });
        let options = EventsOptions {
            since: Some(seconds().to_string()),
            filters: Some(HashMap::from(filters)),
            ..EventsOptions::default()
        };
        let events = client.events(Some(options));
        Ok(events.filter_map(|event| async {
            event
                .map(news)
                .map_err(|cause| self.refusal("", cause))
                .transpose()
        }))
    }
}

fn news(event: EventMessage) -> Option<News> {
    let actor = event.actor?;
    let is_network = event.typ == Some(EventMessageTypeEnum::NETWORK);
    match (is_network, event.action.as_deref()?) {
        (false, "start") => Some(News::Started(actor.id?)),
        (false, "die") => Some(News::Ended(actor.id?)),
        (false, "destroy") => Some(News::Removed(actor.id?)),
        (false, "rename") => Some(News::Renamed(actor.id?)),
        (true, "connect") => {
            let mut attributes = actor.attributes?;
            let driver = attributes.remove("type");
            let is_ours = DRIVERS
                .iter()
                .any(|(ours, _)| driver.as_deref() == Some(ours));
            Some(News::Connected {
                container: attributes.remove("container")?,
                network: actor.id.filter(|_| is_ours),
            })
        }
        (true, "prune") => Some(News::Pruned),
        (true | false, _) => None,
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

fn network_with(found: ContainerInspectResponse, address: IpAddr) -> Option<String> {
    let address = address.to_string();
    let networks = found.network_settings?.networks?;
    let mut named = networks.into_iter().filter(|(_, endpoint)| {
        let both = [&endpoint.ip_address, &endpoint.global_ipv6_address];
        both.into_iter().flatten().any(|had| *had == address)
    });
    named.next().map(|(name, _)| name)
}

fn started(found: ContainerInspectResponse) -> Option<Started> {
    let pid = found.state.and_then(|state| state.pid);
    let pid = pid.and_then(|pid| u32::try_from(pid).ok());
    let config = found.config.unwrap_or_default();
    let host_config = found.host_config.unwrap_or_default();
    let binds = host_config.binds.unwrap_or_default();
    let bind = binds.iter().find(|bind| is_mounted_at_ours(bind));
    let bound =
        bind.and_then(|bind| Some(bind.split_once(&format!(":{WAIT_FOLDER}"))?.0.to_owned()));
    Some(Started {
        id: found.id?,
        name: found.name.unwrap_or_default(),
        pid: pid.filter(|pid| *pid > 0)?,
        entrypoint: config.entrypoint.unwrap_or_default(),
        environment: config.env.unwrap_or_default(),
        network_mode: host_config.network_mode.unwrap_or_default(),
        folder: bound,
    })
}

#[cfg(test)]
mod tests {
    use bollard::models::{
        ContainerConfig, ContainerState, EndpointSettings, EventActor, HostConfig, NetworkSettings,
    };

    use super::*;

    #[test]
    fn a_running_container_is_described_with_its_wait_folder() {
        let running = |pid, binds: &[&str]| ContainerInspectResponse {
            id: Some("a".repeat(64)),
            state: Some(ContainerState {
                pid: Some(pid),
                ..ContainerState::default()
            }),
            config: Some(ContainerConfig {
                entrypoint: Some(vec!["/w/w".to_owned(), "sh".to_owned()]),
                ..ContainerConfig::default()
            }),
            host_config: Some(HostConfig {
                binds: Some(binds.iter().map(|&bind| bind.to_owned()).collect()),
                network_mode: Some("default".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerInspectResponse::default()
        };
        let found = started(running(7, &["/a:/b", "/var/lib/weft/wait/route:/w:ro"])).unwrap();
        assert_eq!(found.folder.as_deref(), Some("/var/lib/weft/wait/route"));
        assert_eq!((found.pid, found.entrypoint[0].as_str()), (7, "/w/w"));
        assert_eq!(started(running(7, &["/a:/www"])).unwrap().folder, None);
        assert_eq!(started(running(0, &[])), None);
    }

    #[test]
    fn the_network_of_an_address_is_found_by_it() {
        let on = |address: &str| EndpointSettings {
            ip_address: Some(address.to_owned()),
            ..EndpointSettings::default()
        };
        let networks = [("bridge", "172.17.0.2"), ("blue", "10.40.0.1")];
        let networks = networks.map(|(name, address)| (name.to_owned(), on(address)));
        let found = ContainerInspectResponse {
            network_settings: Some(NetworkSettings {
                networks: Some(HashMap::from(networks)),
                ..NetworkSettings::default()
            }),
            ..ContainerInspectResponse::default()
        };
        let of = |address: &str| network_with(found.clone(), address.parse().unwrap());
        assert_eq!(of("10.40.0.1").as_deref(), Some("blue"));
        assert_eq!(of("10.40.0.2"), None);
    }

    #[test]
    fn events_are_news_of_containers_and_of_networks_that_went_together() {
        let event = |typ, action: &str, attributes: &[(&str, &str)]| {
            news(EventMessage {
                typ: Some(typ),
                action: Some(action.to_owned()),
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
            })
        };
        let (container, network) = (
            EventMessageTypeEnum::CONTAINER,
            EventMessageTypeEnum::NETWORK,
        );
        let id = || "actor".to_owned();
        assert_eq!(event(container, "start", &[]), Some(News::Started(id())));
        assert_eq!(event(container, "die", &[]), Some(News::Ended(id())));
        assert_eq!(event(container, "destroy", &[]), Some(News::Removed(id())));
        assert_eq!(event(container, "pause", &[]), None);
        assert_eq!(event(container, "prune", &[]), None);
        for (driver, ours) in [("weftmesh", Some(id())), ("bridge", None)] {
            let connected = [("container", "c1"), ("type", driver)];
            let expected = News::Connected {
                container: "c1".to_owned(),
                network: ours,
            };
            assert_eq!(event(network, "connect", &connected), Some(expected));
        }
        let renamed = event(container, "rename", &[("name", "b"), ("oldName", "/a")]);
        assert_eq!(renamed, Some(News::Renamed(id())));
        assert_eq!(event(network, "connect", &[]), None);
        assert_eq!(event(network, "destroy", &[("name", "weft")]), None);
        assert_eq!(event(network, "prune", &[]), Some(News::Pruned));
        assert_eq!(news(EventMessage::default()), None);
    }
}
