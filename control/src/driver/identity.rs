//! What tells one attachment from another: the host interface's name and alias, and the container's MAC.
//!
//! The alias is where an attachment is remembered: it lives exactly as long as the interface, so nothing has to be
//! brought into line after a crash.
//!
//! ```text
//!  vethwe3f0c81d2a   "weft weft 4026532290 @ c1"
//!  └ 6 ┘└─── 9 ──┘    mark bridge namespace path id
//! ```
//!
//! Path `@` means that name under `/run/netns`, `=` the id itself. A pair that Docker's plugin made has the namespace
//! number 0, for only its path is known, and `-` for the path until Docker has said it. After its id, which is a mark of
//! ours, comes what users know it by: Docker's id of the endpoint, and once that is known the container's.

use std::path::{Path, PathBuf};

use blake2::{Blake2s256, Digest};

use super::container::{Container, shown_id};
use super::netns::NetNs;

/// How the host ends of all container interfaces begin; `veth` keeps desktop tools quiet about them.
pub(super) const HOST_PREFIX: &str = "vethwe";
/// How the other ends begin that wait for Docker to take them.
pub(super) const GUEST_PREFIX: &str = "vethwg";
/// Hexadecimal digits after that: 15 characters are the kernel's limit.
const HOST_DIGITS: usize = 9;
const MARK: &str = "weft";
/// Stands for the number of a namespace that is known by its path alone: Docker makes it after it was told the path.
pub(super) const UNNUMBERED: u64 = 0;
/// Stands for a path that is not known yet.
const NOWHERE: &str = "-";
/// Before the id of an endpoint whose container is not known yet.
const ENDPOINT_PREFIX: &str = "endpoint:";

/// Name of the host end. The namespace's number is part of it: a name or process number can come again while the
/// namespace that it stood for lives on.
pub(super) fn host_name(container: &Container) -> String {
    let inode = container.netns.inode().to_be_bytes();
    let hash = digest("host interface", &inode, &container.id);
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{HOST_PREFIX}{}", &digits[..HOST_DIGITS])
}

/// MAC of the container's end: the same whenever this container is attached on this peer.
pub(super) fn container_mac(peer_name: [u8; 6], id: &str) -> [u8; 6] {
    let hash = digest("container mac", &peer_name, id);
    local_mac([hash[0], hash[1], hash[2], hash[3], hash[4], hash[5]])
}

/// The nearest locally administered unicast MAC.
pub(super) fn local_mac(mut mac: [u8; 6]) -> [u8; 6] {
    mac[0] = mac[0] & !1 | 2;
    mac
}

/// Names of the two ends of a pair for one of Docker's endpoints: ours, and the one that Docker takes away.
pub(super) fn endpoint_names(endpoint: &str) -> (String, String) {
    let hash = digest("docker endpoint", &[], endpoint);
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let digits = &digits[..HOST_DIGITS];
    (
        format!("{HOST_PREFIX}{digits}"),
        format!("{GUEST_PREFIX}{digits}"),
    )
}

/// What users know an endpoint by whose container is not known.
pub(super) fn shown_endpoint(endpoint: &str) -> String {
    format!("{ENDPOINT_PREFIX}{}", shown_id(endpoint))
}

/// Whether that is what a pair is known by.
pub(super) fn is_endpoint(shown: &str) -> bool {
    shown.starts_with(ENDPOINT_PREFIX)
}

fn digest(purpose: &str, salt: &[u8], id: &str) -> [u8; 32] {
    let mut hash = Blake2s256::new();
    for part in [purpose.as_bytes(), salt, id.as_bytes()] {
        hash.update([u8::try_from(part.len()).unwrap_or(u8::MAX)]);
        hash.update(part);
    }
    hash.finalize().into()
}

/// What the alias of a host end says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Alias {
    /// The bridge that it belongs to.
    pub(super) bridge: String,
    /// Number of the container's namespace.
    pub(super) inode: u64,
    /// Where the namespace was opened.
    pub(super) path: PathBuf,
    /// The container's id.
    pub(super) id: String,
    /// What users know a pair of Docker's plugin by.
    pub(super) shown: Option<String>,
}

impl Alias {
    pub(super) fn new(bridge: &str, container: &Container) -> Self {
        Self {
            bridge: bridge.to_owned(),
            inode: container.netns.inode(),
            path: container.path.clone(),
            id: container.id.clone(),
            shown: None,
        }
    }

    /// That of a pair for Docker's plugin: Docker puts it into a namespace at `sandbox`, if that is known.
    pub(super) fn of_docker(
        bridge: &str,
        holder: &str,
        sandbox: Option<&Path>,
        shown: Option<String>,
    ) -> Self {
        Self {
            bridge: bridge.to_owned(),
            inode: UNNUMBERED,
            path: sandbox.unwrap_or(Path::new(NOWHERE)).to_owned(),
            id: holder.to_owned(),
            shown,
        }
    }

    /// True for a pair of Docker's plugin.
    pub(super) fn is_dockers(&self) -> bool {
        self.inode == UNNUMBERED
    }

    /// As the kernel keeps it: at most 233 bytes of its 255, for the id has at most 180.
    pub(super) fn to_text(&self) -> String {
        let Self {
            bridge,
            inode,
            path,
            id,
            shown,
        } = self;
        let path = path.to_string_lossy();
        let path = if path == id.as_str() {
            "="
        } else if NetNs::named_path(id).is_ok_and(|named| named == self.path) {
            "@"
        } else {
            &path
        };
        let text = format!("{MARK} {bridge} {inode} {path} {id}");
        match shown {
            Some(shown) => format!("{text} {shown}"),
            None => text,
        }
    }

    /// Reads an alias; none if the interface is not weft's.
    pub(super) fn from_text(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, ' ');
        if parts.next()? != MARK {
            return None;
        }
        let bridge = parts.next()?.to_owned();
        let inode = parts.next()?.parse().ok()?;
        let path = parts.next()?;
        let id = parts.next()?;
        // Other ids may have spaces.
        let (id, shown) = match id.split_once(' ') {
            Some((id, shown)) if inode == UNNUMBERED => (id, Some(shown.to_owned())),
            Some(_) | None => (id, None),
        };
        let id = id.to_owned();
        let path = match path {
            "=" => PathBuf::from(&id),
            "@" => NetNs::named_path(&id).ok()?,
            other => other.into(),
        };
        Some(Self {
            bridge,
            inode,
            path,
            id,
            shown,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(id: &str, path: &str) -> Container {
        Container {
            id: id.to_owned(),
            netns: NetNs::current().unwrap(),
            path: path.into(),
            netns_name: None,
            hosts: None,
            host_name: None,
        }
    }

    #[test]
    fn an_alias_comes_back_as_it_was_written() {
        let docker_id = "0123456789abcdef".repeat(4);
        let longest = format!("/{}", "x".repeat(179));
        let table = [
            ("c1", "/run/netns/c1", " @ c1"),
            ("two words", "/run/netns/two words", " @ two words"),
            ("/tmp/a b", "/tmp/a b", " = /tmp/a b"),
            ("77", "/proc/77/ns/net", " /proc/77/ns/net 77"),
            (docker_id.as_str(), "/proc/4194304/ns/net", "cdef"),
            (longest.as_str(), longest.as_str(), "x"),
        ];
        for (id, path, end) in table {
            let alias = Alias::new("weft-bridge-15c", &container(id, path));
            let text = alias.to_text();
            assert!(
                text.starts_with("weft weft-bridge-15c ") && text.ends_with(end),
                "{text}"
            );
            assert!(text.len() < 256, "{text}");
            assert_eq!(Alias::from_text(&text), Some(alias));
        }
    }

    #[test]
    fn an_alias_of_docker_knows_its_place_by_path_alone() {
        let holder = "docker:0123456789abcdef";
        for sandbox in [None, Some(Path::new("/var/run/docker/netns/0123456789ab"))] {
            for shown in [None, Some(shown_endpoint(&"ab".repeat(32)))] {
                let alias = Alias::of_docker("weft-bridge-15c", holder, sandbox, shown.clone());
                assert!(alias.is_dockers());
                let read = Alias::from_text(&alias.to_text()).unwrap();
                assert_eq!((read.id.as_str(), &read.shown), (holder, &shown));
                assert_eq!(read, alias);
            }
        }
        assert_eq!(shown_endpoint(&"ab".repeat(32)), "endpoint:abababababab");
        let (outer, inner) = endpoint_names(&"ab".repeat(32));
        assert_eq!((outer.len(), inner.len()), (15, 15));
        assert_ne!(outer, inner);
        assert_ne!(endpoint_names("e1"), endpoint_names("e2"));
    }

    #[test]
    fn a_foreign_alias_is_left_alone() {
        for text in [
            "",
            "weft",
            "uplink to weft 1 @ c1",
            "weft weft x @ c1",
            "weft weft 1 @",
        ] {
            assert_eq!(Alias::from_text(text), None, "{text}");
        }
    }

    #[test]
    fn names_fit_the_kernel_and_differ() {
        let (a, b) = (
            host_name(&container("a", "/a")),
            host_name(&container("b", "/b")),
        );
        assert_ne!(a, b);
        assert_eq!((a.len(), &a[..6]), (15, "vethwe"));
        assert_eq!(a, host_name(&container("a", "/elsewhere")));
    }

    #[test]
    fn macs_are_stable_local_and_unicast() {
        let mac = container_mac([1, 2, 3, 4, 5, 6], "c1");
        assert_eq!(mac, container_mac([1, 2, 3, 4, 5, 6], "c1"));
        assert_ne!(mac, container_mac([1, 2, 3, 4, 5, 7], "c1"));
        assert_ne!(mac, container_mac([1, 2, 3, 4, 5, 6], "c2"));
        assert_eq!(mac[0] & 3, 2);
        assert_eq!(
            local_mac([0xda, 0xfa, 0xeb, 0xdc, 0x28, 0x27]),
            [0xda, 0xfa, 0xeb, 0xdc, 0x28, 0x27]
        );
        assert_eq!(local_mac([0, 0, 0, 0, 0, 1]), [2, 0, 0, 0, 0, 1]);
        assert_eq!(local_mac([0xff; 6])[0], 0xfe);
    }
}
