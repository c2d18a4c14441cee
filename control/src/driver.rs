//! The shell around the control core: sockets, namespaces, files and the clock.
//!
//! Containers reach the network through [`attach`](mod@attach), the host's own devices through [`bridge`].

pub mod address;
mod announce;
pub mod api;
pub mod attach;
pub mod attach_service;
pub mod bridge;
pub mod container;
pub mod docker;
mod identity;
pub mod netlink;
pub mod netns;
pub mod request;
mod sysctl;
pub mod underlay;
