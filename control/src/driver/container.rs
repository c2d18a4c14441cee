//! What the user calls a container, and the namespace that it stands for.
//!
//! `NAME|ID` of a running Docker container · `netns:NAME` · `netns:/path` · `pid:N`. Docker is asked for the first only.

use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::docker::{Docker, DockerError, HostsFile};
use super::netns::{NetNs, NetNsError};

/// Longest name or path, in bytes: what is remembered of a container has to fit into an interface's alias.
const NAME_MAX: usize = 180;
/// The namespace of process 1, which is the machine's own even if the daemon runs in another.
const FIRST: &str = "/proc/1/ns/net";
/// Digits of Docker's id that are shown.
const SHOWN_DIGITS: usize = 12;

/// Why there is no such container to work on.
#[derive(Debug, thiserror::Error)]
pub enum ContainerError {
    /// Not of any form.
    #[error("{0:?} names no container: give a Docker NAME or ID, netns:NAME, netns:/path or pid:N")]
    Unreadable(String),
    /// A path from nowhere.
    #[error("{0:?} is not an absolute path: give netns:NAME or netns:/path")]
    RelativePath(String),
    /// Longer than can be remembered.
    #[error("the container's name is {0} bytes long: at most {NAME_MAX}")]
    TooLong(usize),
    /// A namespace that the host itself lives in.
    #[error("{0} is the host's own network, not a container's")]
    HostNetwork(String),
    /// It cannot be told whether it is one that the host itself lives in.
    #[error(
        "cannot tell whether {id} is the machine's own network, so it is left alone: weft needs CAP_SYS_PTRACE to look"
    )]
    Unknown {
        /// Whose namespace it is.
        id: String,
        /// What hinders.
        #[source]
        source: NetNsError,
    },
    /// The namespace cannot be opened.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// Docker did not find it.
    #[error(transparent)]
    Docker(#[from] DockerError),
    /// There is no Docker to ask, and perhaps none was meant.
    #[error(
        "{source}, so no container {name:?} is found: start Docker, or name a namespace by netns:NAME, netns:/path or \
         pid:N{hint}"
    )]
    NoDocker {
        /// As typed.
        name: String,
        /// What it may be instead.
        hint: String,
        /// Why Docker is not asked.
        #[source]
        source: DockerError,
    },
}

impl ContainerError {
    /// True if the request named something that is not there or cannot be attached.
    pub fn is_request_fault(&self) -> bool {
        match self {
            Self::Unreadable(_)
            | Self::RelativePath(_)
            | Self::TooLong(_)
            | Self::HostNetwork(_) => true,
            Self::Unknown { .. } => false,
            Self::NetNs(error) => error.is_request_fault(),
            Self::Docker(error) | Self::NoDocker { source: error, .. } => error.is_request_fault(),
        }
    }

    fn not_found(name: &str, error: DockerError) -> Self {
        if !matches!(error, DockerError::Unreachable { .. }) {
            return Self::Docker(error);
        }
        let path = NetNs::named_path(name);
        let hint = if path.is_ok_and(|path| path.exists()) {
            format!(" (there is netns:{name})")
        } else {
            String::new()
        };
        Self::NoDocker {
            name: name.to_owned(),
            hint,
            source: error,
        }
    }
}

/// A container as it was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContainerRef {
    /// A Docker name, id or beginning of an id.
    Docker(String),
    /// A name under `/run/netns`.
    Named(String),
    /// A namespace file.
    Path(PathBuf),
    /// A process.
    Pid(u32),
}

/// A container that exists, with its namespace held open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    /// What owns its addresses: Docker's whole id, or the name, path or number as given.
    pub id: String,
    /// Its namespace.
    pub netns: NetNs,
    /// Where the namespace can be opened again.
    pub path: PathBuf,
    /// What `ip netns` calls it, for files under `/etc/netns`.
    pub netns_name: Option<String>,
    /// What it calls itself: Docker's whole host name, or the name of its namespace.
    pub host_name: Option<String>,
    /// The `/etc/hosts` that Docker keeps for it.
    pub hosts: Option<HostsFile>,
}

impl FromStr for ContainerRef {
    type Err = ContainerError;

    fn from_str(text: &str) -> Result<Self, ContainerError> {
        if text.len() > NAME_MAX {
            return Err(ContainerError::TooLong(text.len()));
        }
        let unreadable = || ContainerError::Unreadable(text.to_owned());
        // The id is printed one a line.
        if text.contains(char::is_control) {
            return Err(unreadable());
        }
        if let Some(name) = text.strip_prefix("netns:") {
            if name.starts_with('/') {
                return Ok(Self::Path(name.into()));
            }
            if name.contains('/') {
                return Err(ContainerError::RelativePath(name.to_owned()));
            }
            NetNs::named_path(name)?;
            return Ok(Self::Named(name.to_owned()));
        }
        if let Some(number) = text.strip_prefix("pid:") {
            let is_plain = number.bytes().all(|digit| digit.is_ascii_digit());
            return match number.parse() {
                Ok(pid) if is_plain && pid > 0 => Ok(Self::Pid(pid)),
                Ok(_) | Err(_) => Err(unreadable()),
            };
        }
        // Docker's own rule for names; it also keeps the text harmless in a request path.
        let is_name = text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte));
        if !is_name || !text.starts_with(|first: char| first.is_ascii_alphanumeric()) {
            return Err(unreadable());
        }
        Ok(Self::Docker(text.to_owned()))
    }
}

impl ContainerRef {
    /// What `ip netns` calls the namespace, if it does.
    fn netns_name(&self) -> Option<String> {
        match self {
            Self::Named(name) => Some(name.clone()),
            Self::Path(path) => name_at(path),
            Self::Docker(_) | Self::Pid(_) => None,
        }
    }

    /// Finds the container and opens its namespace, which must not be `host` nor the machine's first one.
    pub async fn resolve(
        &self,
        host: &NetNs,
        docker: &Docker,
    ) -> Result<Container, ContainerError> {
        let netns_name = self.netns_name();
        let mut host_name = netns_name.clone();
        let mut hosts = None;
        let (id, path, netns) = match self {
            Self::Docker(name) => {
                let found = docker.find(name).await;
                let found = found.map_err(|error| ContainerError::not_found(name, error))?;
                let path = NetNs::pid_path(found.pid);
                let netns = NetNs::from_pid(found.pid)
                    .map_err(|_| DockerError::NotRunning { name: name.clone() })?;
                // Without a domain it is Docker's short id, or of no meaning outside the container.
                hosts = found.hosts;
                host_name = Some(found.host_name).filter(|name| name.contains('.'));
                (found.id, path, netns)
            }
            Self::Named(name) => (
                name.clone(),
                NetNs::named_path(name)?,
                NetNs::from_name(name)?,
            ),
            Self::Path(path) => (
                path.to_string_lossy().into_owned(),
                path.clone(),
                NetNs::from_path(path)?,
            ),
            Self::Pid(pid) => (
                pid.to_string(),
                NetNs::pid_path(*pid),
                NetNs::from_pid(*pid)?,
            ),
        };
        if netns == *host || is_first(&netns, &id, Path::new(FIRST))? {
            return Err(ContainerError::HostNetwork(id));
        }
        Ok(Container {
            id,
            netns,
            path,
            netns_name,
            host_name,
            hosts,
        })
    }
}

impl Container {
    /// The same under the name by which it is attached: an id, and where the namespace was opened then.
    #[must_use]
    pub fn attached_as(mut self, id: String, path: &Path) -> Self {
        let name = name_at(path);
        self.host_name = self.host_name.or_else(|| name.clone());
        self.netns_name = self.netns_name.or(name);
        self.id = id;
        self
    }

    /// Whether its namespace can still be found where it was.
    pub fn is_there(&self) -> bool {
        NetNs::from_path(&self.path).is_ok_and(|found| found == self.netns)
    }

    /// The id as it is shown: Docker's cut to 12 digits.
    pub fn shown(&self) -> &str {
        shown_id(&self.id)
    }
}

/// What `ip netns` calls what lies at a path, if it does.
fn name_at(path: &Path) -> Option<String> {
    let folder = path.parent()?;
    let is_named = ["/run/netns", "/var/run/netns"]
        .map(Path::new)
        .contains(&folder);
    let name = path.file_name()?.to_str()?;
    is_named.then(|| name.to_owned())
}

/// An id as it is shown: 64 hexadecimal digits, which is Docker's form, are cut to 12.
pub fn shown_id(id: &str) -> &str {
    if id.len() == 64 && id.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        &id[..SHOWN_DIGITS]
    } else {
        id
    }
}

/// True for the namespace at `first`. One that cannot be found may be any. One that is there and hidden, as process 1 of
/// some machines is even from root, keeps nobody from attaching.
fn is_first(netns: &NetNs, id: &str, first: &Path) -> Result<bool, ContainerError> {
    match NetNs::from_path(first) {
        Ok(first) => Ok(first == *netns),
        Err(NetNsError::Open { source, .. })
            if source.kind() == io::ErrorKind::PermissionDenied =>
        {
            Ok(false)
        }
        Err(source) => Err(ContainerError::Unknown {
            id: id.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_forms_are_told_apart() {
        let table = [
            ("a1", ContainerRef::Docker("a1".to_owned())),
            (
                "my_app.web-1",
                ContainerRef::Docker("my_app.web-1".to_owned()),
            ),
            (
                "0123456789ab",
                ContainerRef::Docker("0123456789ab".to_owned()),
            ),
            ("netns:c1", ContainerRef::Named("c1".to_owned())),
            (
                "netns:/run/netns/c1",
                ContainerRef::Path("/run/netns/c1".into()),
            ),
            ("pid:12", ContainerRef::Pid(12)),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse::<ContainerRef>().unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_container_is_refused_in_words() {
        let accepted = "give a Docker NAME or ID, netns:NAME, netns:/path or pid:N";
        for text in [
            "",
            "a b",
            "a/b",
            "../x",
            "-a",
            "a?b",
            "pid:",
            "pid:0",
            "pid:-1",
            "pid:+1",
            "pid:x",
            "container:x",
            "netns:/a\nb",
        ] {
            let error = text.parse::<ContainerRef>().unwrap_err();
            assert_eq!(
                error.to_string(),
                format!("{text:?} names no container: {accepted}")
            );
            assert!(error.is_request_fault());
        }
        assert!(matches!(
            "netns:a/b".parse::<ContainerRef>(),
            Err(ContainerError::RelativePath(_))
        ));
        assert!(matches!(
            "netns:..".parse::<ContainerRef>(),
            Err(ContainerError::NetNs(_))
        ));
        assert!(matches!(
            "netns:".parse::<ContainerRef>(),
            Err(ContainerError::NetNs(_))
        ));
        assert!(matches!(
            "a".repeat(181).parse::<ContainerRef>(),
            Err(ContainerError::TooLong(181))
        ));
    }

    #[test]
    fn only_namespaces_of_ip_netns_have_a_name() {
        for (text, name) in [
            ("netns:c1", Some("c1")),
            ("netns:/run/netns/c1", Some("c1")),
            ("netns:/var/run/netns/c1", Some("c1")),
            ("netns:/proc/1/ns/net", None),
            ("netns:/run/netns/a/b", None),
            ("pid:7", None),
            ("web", None),
        ] {
            let named: ContainerRef = text.parse().unwrap();
            assert_eq!(named.netns_name().as_deref(), name, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_told_from_the_machines_own_network_is_refused() {
        let own = NetNs::current().unwrap();
        let here = Path::new("/proc/thread-self/ns/net");
        assert!(is_first(&own, "c1", here).unwrap());
        let error = is_first(&own, "c1", Path::new("/nowhere/net")).unwrap_err();
        assert!(
            error.to_string().starts_with("cannot tell whether c1 is "),
            "{error}"
        );
    }

    #[test]
    fn docker_ids_are_shown_short() {
        assert_eq!(shown_id(&"0123456789abcdef".repeat(4)), "0123456789ab");
        assert_eq!(
            shown_id("a_long_name_of_a_namespace"),
            "a_long_name_of_a_namespace"
        );
    }

    #[tokio::test]
    async fn the_hosts_own_network_is_refused() {
        let host = NetNs::current().unwrap();
        let docker = Docker::new(None).unwrap();
        let pid = std::process::id();

        for text in [format!("pid:{pid}"), format!("netns:/proc/{pid}/ns/net")] {
            let error = text
                .parse::<ContainerRef>()
                .unwrap()
                .resolve(&host, &docker)
                .await
                .unwrap_err();
            assert!(matches!(error, ContainerError::HostNetwork(_)), "{error}");
        }
    }
}
