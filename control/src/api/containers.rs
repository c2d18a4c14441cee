//! The words about containers: attach, detach, and what a container gets besides.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::yes;

/// Say what a container is called in lists; answered as an attach is, with all that it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindRequest {
    /// As it is typed: a name or id of Docker's, `netns:NAME`, `pid:N`.
    pub container: String,
}

/// Attach a container to, or detach it from, the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachRequest {
    /// `NAME|ID`, `netns:NAME`, `netns:/path` or `pid:N`.
    pub container: String,
    /// Address arguments as typed: `[ip:]CIDR`, `net:CIDR`, `net:default`.
    pub addresses: Vec<String>,
    /// Route 224.0.0.0/4 to the interface.
    #[serde(default = "yes")]
    pub multicast_route: bool,
    /// Names in DNS; none means the container's own.
    #[serde(default)]
    pub names: Vec<String>,
    /// No names, no `resolv.conf`, no route to the server.
    #[serde(default)]
    pub without_dns: bool,
    /// The container's own files.
    #[serde(flatten)]
    pub files: ContainerFiles,
}

/// What goes into the files that `ip netns exec` lays over `/etc`; by default what names need, beside the files of
/// others.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerFiles {
    /// Domains in which short names are looked for, in place of our own; `.` is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dns_search: Vec<String>,
    /// `NAME:IP`, for `hosts`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub add_hosts: Vec<String>,
    /// `hosts` has the container's own names: also in place of somebody else's file, or not at all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewrite_hosts: Option<bool>,
}

/// The addresses that an attach or detach was about, in the order asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachReply {
    /// Without prefix lengths.
    pub addresses: Vec<IpAddr>,
    /// The container, as `weft ps` shows it.
    #[serde(default)]
    pub id: String,
    /// Its names in DNS from this call.
    #[serde(default)]
    pub names: Vec<String>,
    /// What the user should know though it worked: an address that another container has, too; a file that stays as it
    /// is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// The Docker API proxy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Where it listens, in the form of `DOCKER_HOST`.
    pub addresses: Vec<String>,
    /// Whose API it is.
    pub docker: String,
    /// Why Docker does not answer, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trouble: Option<String>,
    /// Clients that were refused, since all places were taken by others who were served.
    #[serde(default)]
    pub refused: u64,
}
