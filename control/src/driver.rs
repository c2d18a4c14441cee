//! The shell around the control core: sockets, namespaces, files and the clock.
//!
//! [`run`](mod@run) is the loop. Containers reach the network through [`attach`](mod@attach), the host's own devices through [`bridge`].

pub mod address;
pub mod allocator;
mod announce;
pub mod api;
pub mod attach;
pub mod attach_service;
pub(crate) mod bench;
pub mod bridge;
pub mod check;
pub mod client;
mod complaint;
pub mod container;
pub mod dns;
pub mod docker;
pub mod docker_sight;
pub mod engine;
pub mod expose;
pub mod firewall;
pub mod host_routes;
mod identity;
pub mod life;
mod log;
pub mod netlink;
pub mod netns;
pub mod plugin;
pub mod proxy;
pub mod request;
pub(crate) mod resolve;
pub mod run;
pub(crate) mod sockets;
pub mod start;
pub mod store;
mod sysctl;
mod turns;
pub mod underlay;
