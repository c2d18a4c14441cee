//! Asks Docker which process a container's name or id stands for.
//!
//! A connection per question, since Docker may restart between two of them. The version of its API is agreed on once for
//! each Docker: to say what it is, Docker starts other programs, which takes longer than all else that is asked.

mod hosts_file;
mod queries;
mod silence;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bollard::API_DEFAULT_VERSION;
use bollard::errors::Error as BollardError;
use bollard::models::{ContainerInspectResponse, EndpointSettings};

pub use hosts_file::HostsFile;
pub use queries::{News, Place, Started};
pub use silence::Silence;

/// Where Docker listens unless told otherwise.
const DEFAULT_HOST: &str = "unix:///var/run/docker.sock";
/// Longest wait for an answer, in seconds; Docker answers an inspection in milliseconds, or slowly when it is pulling.
const ANSWER_TIMEOUT_S: u64 = 10;

/// Why Docker did not say what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DockerError {
    /// A form of address that weft does not speak.
    #[error("Docker at {host:?} is not supported: give unix:///path/to/docker.sock")]
    BadHost {
        /// As given.
        host: String,
    },
    /// weft was told to leave Docker alone.
    #[error(
        "weft was launched without Docker (--docker-host ''): name a container by netns:NAME, netns:/path or pid:N"
    )]
    Off,
    /// No answer, or no Docker.
    #[error("Docker at {host} does not answer ({silence})")]
    Unreachable {
        /// Where it was tried.
        host: String,
        /// Why not.
        silence: Silence,
    },
    /// It went away.
    #[error("Docker at {host} has ended")]
    Ended {
        /// Who.
        host: String,
    },
    /// Docker knows no such container.
    #[error(
        "no container {name:?} in Docker at {host} (by namespace: netns:NAME, netns:/path or pid:N)"
    )]
    Unknown {
        /// As typed.
        name: String,
        /// Who was asked.
        host: String,
    },
    /// Docker knows it; it has no process.
    #[error("container {name} is not running: start it first")]
    NotRunning {
        /// As typed.
        name: String,
    },
    /// The container has no network namespace of its own.
    #[error(
        "container {name} shares the host's network and cannot be attached: run it without --net=host"
    )]
    HostNetwork {
        /// As typed.
        name: String,
    },
    /// Docker refused.
    #[error("Docker at {host} refused to describe container {name:?}")]
    Refused {
        /// Who was asked.
        host: String,
        /// As typed.
        name: String,
        /// Why not.
        #[source]
        source: Box<BollardError>,
    },
}

impl DockerError {
    /// True if the request named something that cannot be attached.
    pub fn is_request_fault(&self) -> bool {
        matches!(
            self,
            Self::Off | Self::Unknown { .. } | Self::NotRunning { .. } | Self::HostNetwork { .. }
        )
    }
}

/// A running container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DockerContainer {
    /// Docker's id, 64 hexadecimal digits.
    pub id: String,
    /// Its first process.
    pub pid: u32,
    /// Its host name with its domain; empty if it has none.
    pub host_name: String,
    /// Its `/etc/hosts`, if Docker keeps one.
    pub hosts: Option<HostsFile>,
    /// What else it is called: its name, and what its networks call it.
    pub other_names: Vec<String>,
}

/// Where Docker's API is. Clones share what they agreed on with it.
#[derive(Debug, Clone)]
pub struct Docker {
    host: String,
    socket: PathBuf,
    agreed: Arc<Mutex<Option<bollard::Docker>>>,
}

impl Docker {
    /// `host` as in `--docker-host` and `DOCKER_HOST`: `unix:///path` or a path; none or empty means Docker's default.
    pub fn new(host: Option<&str>) -> Result<Self, DockerError> {
        let host = host.filter(|host| !host.is_empty()).unwrap_or(DEFAULT_HOST);
        let socket = host.strip_prefix("unix://").unwrap_or(host);
        if !Path::new(socket).is_absolute() {
            return Err(DockerError::BadHost {
                host: host.to_owned(),
            });
        }
        Ok(Self {
            host: host.to_owned(),
            socket: socket.into(),
            agreed: Arc::default(),
        })
    }

    /// None at all: whoever asks is told so.
    #[must_use]
    pub fn none() -> Self {
        Self {
            host: String::new(),
            socket: PathBuf::new(),
            agreed: Arc::default(),
        }
    }

    /// Its address, as given.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Finds a running container by name, id or the beginning of an id.
    pub async fn find(&self, name: &str) -> Result<DockerContainer, DockerError> {
        let client = self.connect().await?;
        let found = client
            .inspect_container(name, None)
            .await
            .map_err(|cause| self.refusal(name, cause))?;
        running(name, found)
    }

    fn agreed(&self) -> MutexGuard<'_, Option<bollard::Docker>> {
        // Nothing in here panics half way.
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What asks Docker, in a version that both know.
    pub(super) async fn connect(&self) -> Result<bollard::Docker, DockerError> {
        let agreed = self.agreed().clone();
        match agreed {
            Some(client) => Ok(client),
            None => self.connect_anew().await,
        }
    }

    /// The same for a Docker that may be another one than before.
    pub(super) async fn connect_anew(&self) -> Result<bollard::Docker, DockerError> {
        if self.socket.as_os_str().is_empty() {
            return Err(DockerError::Off);
        }
        let unreachable = |cause| DockerError::Unreachable {
            host: self.host.clone(),
            silence: Silence::of(&cause),
        };
        let socket = self.socket.to_string_lossy();
        let client =
            bollard::Docker::connect_with_unix(&socket, ANSWER_TIMEOUT_S, API_DEFAULT_VERSION)
                .map_err(unreachable)?;
        // An older Docker refuses a newer client's version.
        let client = client.negotiate_version().await.map_err(unreachable)?;
        *self.agreed() = Some(client.clone());
        Ok(client)
    }

    fn refusal(&self, name: &str, cause: BollardError) -> DockerError {
        let (name, host) = (name.to_owned(), self.host.clone());
        if let BollardError::DockerResponseServerError { status_code, .. } = &cause {
            if *status_code == 404 {
                return DockerError::Unknown { name, host };
            }
            // Perhaps it knows that version no more.
            *self.agreed() = None;
            return DockerError::Refused {
                host,
                name,
                source: Box::new(cause),
            };
        }
        DockerError::Unreachable {
            host,
            silence: Silence::of(&cause),
        }
    }
}

fn running(name: &str, found: ContainerInspectResponse) -> Result<DockerContainer, DockerError> {
    let not_running = || DockerError::NotRunning {
        name: name.to_owned(),
    };
    let id = found.id.ok_or_else(not_running)?;
    let pid = found
        .state
        .and_then(|state| state.pid)
        .and_then(|pid| u32::try_from(pid).ok());
    let pid = pid.filter(|pid| *pid > 0).ok_or_else(not_running)?;
    if found
        .host_config
        .and_then(|config| config.network_mode)
        .as_deref()
        == Some("host")
    {
        return Err(DockerError::HostNetwork {
            name: name.to_owned(),
        });
    }
    let named = found.config.unwrap_or_default();
    let name = named.hostname.unwrap_or_default();
    let domain = named.domainname.unwrap_or_default();
    let (name, domain) = match name.split_once('.') {
        // All of it is the host's name where Docker has the domain apart.
        Some((name, domain_in_it)) if domain.is_empty() => {
            (name.to_owned(), domain_in_it.to_owned())
        }
        Some(_) | None => (name, domain),
    };
    let host_name = match domain.as_str() {
        "" => name.clone(),
        domain => format!("{name}.{domain}"),
    };
    let path = found.hosts_path.filter(|path| !path.is_empty());
    let hosts = path.map(|path| HostsFile {
        path: path.into(),
        name,
        domain,
    });
    let other_names = other_names(
        found.name,
        found
            .network_settings
            .and_then(|settings| settings.networks),
        &id,
    );
    Ok(DockerContainer {
        id,
        pid,
        host_name,
        other_names,
        hosts,
    })
}

/// The container's name, and its aliases but for the one that Docker makes of its id.
fn other_names(
    name: Option<String>,
    networks: Option<HashMap<String, EndpointSettings>>,
    id: &str,
) -> Vec<String> {
    let name = name.map(|name| name.trim_start_matches('/').to_owned());
    let mut names = Vec::from_iter(name);
    let networks = networks.unwrap_or_default().into_values();
    let aliases: BTreeSet<String> = networks
        .flat_map(|network| network.aliases.unwrap_or_default())
        .collect();
    names.extend(
        aliases
            .into_iter()
            .filter(|alias| !id.starts_with(alias) && names.first() != Some(alias))
            .collect::<Vec<_>>(),
    );
    names
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerState, HostConfig};

    use super::*;

    fn described(pid: i64, network_mode: &str) -> ContainerInspectResponse {
        ContainerInspectResponse {
            id: Some("a".repeat(64)),
            state: Some(ContainerState {
                pid: Some(pid),
                ..ContainerState::default()
            }),
            host_config: Some(HostConfig {
                network_mode: Some(network_mode.to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn a_host_is_a_unix_socket() {
        assert_eq!(
            Docker::new(None).unwrap().socket,
            Path::new("/var/run/docker.sock")
        );
        assert_eq!(
            Docker::new(Some("")).unwrap().host,
            "unix:///var/run/docker.sock"
        );
        assert_eq!(
            Docker::new(Some("unix:///tmp/d.sock")).unwrap().socket,
            Path::new("/tmp/d.sock")
        );
        assert_eq!(
            Docker::new(Some("/tmp/d.sock")).unwrap().socket,
            Path::new("/tmp/d.sock")
        );
        for host in [
            "tcp://10.0.0.1:2375",
            "ssh://h",
            "unix://relative",
            "d.sock",
        ] {
            assert!(
                matches!(Docker::new(Some(host)), Err(DockerError::BadHost { .. })),
                "{host}"
            );
        }
    }

    #[test]
    fn only_a_running_container_with_a_network_of_its_own_is_found() {
        let found = running("c", described(42, "bridge")).unwrap();
        assert_eq!(
            found,
            DockerContainer {
                id: "a".repeat(64),
                pid: 42,
                host_name: String::new(),
                hosts: None,
                other_names: Vec::new(),
            }
        );
        assert!(matches!(
            running("c", described(0, "bridge")),
            Err(DockerError::NotRunning { .. })
        ));
        assert!(matches!(
            running("c", described(42, "host")),
            Err(DockerError::HostNetwork { .. })
        ));
        assert!(matches!(
            running("c", ContainerInspectResponse::default()),
            Err(DockerError::NotRunning { .. })
        ));
    }

    #[tokio::test]
    async fn a_docker_that_is_off_is_not_asked() {
        let error = Docker::none().find("c1").await.unwrap_err();
        assert!(matches!(error, DockerError::Off) && error.is_request_fault());
        assert!(error.to_string().contains("netns:NAME"), "{error}");
    }

    #[tokio::test]
    async fn where_no_docker_is_the_answer_says_where_it_was_sought() {
        let error = Docker::new(Some("unix:///nowhere/docker.sock"))
            .unwrap()
            .find("c1")
            .await
            .unwrap_err();

        assert_eq!(
            error.to_string(),
            "Docker at unix:///nowhere/docker.sock does not answer (its socket is not there)"
        );
        assert!(!error.is_request_fault());
    }
}
