//! A laboratory of network namespaces for tests of the built `weft` binary.
//!
//! ```text
//!  #[test] ─► in_lab ─► unshare (own network, mounts, processes) ─► the same test again, inside
//!                                                                    │
//!             Lab ─► Host ─┬─ link, switch: the underlay, its MTU, rate, delay, loss, holes, translation
//!             Mesh: several hosts on a switch, Overlay: two with a container each
//!                          ├─ Dockerd: a real Docker of the host's own, and its client; HttpClient: its API, to the letter
//!                          ├─ Terminal: a shell on a host, Transcript: what is entered there, for the documentation
//!                          ├─ Weft: the daemon and every verb, as a user types them
//!                          ├─ Traces: what was left behind
//!                          ├─ Capture, RawSocket: frames seen and frames made up
//!                          └─ flows: TCP and UDP whose every byte is checked
//! ```
//!
//! A test runs in namespaces of its own, so names and addresses never collide and nothing is left behind: when the
//! test ends, however it ends, the kernel ends its daemons and removes its namespaces, devices and files. It works
//! as root, and as an ordinary user where user namespaces are allowed. Where neither is possible, or `/dev/net/tun`
//! is missing, a test prints `skipped: …`; with `CI=true` it fails instead.
//!
//! The binary is `$WEFT_BIN`, else the one beside the test executables (`target/debug/weft` for `cargo test`).
//! `WEFT_TESTS_LONG=1` runs the long versions of the tests that have one.
//!
//! Everything here panics when it cannot do what it was asked: that fails the test, with the reason.

mod capture;
mod dockerd;
mod flow;
mod frame;
mod host;
mod http;
mod lab;
mod mesh;
mod names;
mod overlay;
mod ping;
mod raw;
mod record;
mod sandbox;
mod slow;
mod terminal;
mod traces;
mod transcript;
mod wait;
mod weft;

pub use crate::capture::Capture;
pub use crate::dockerd::{DockerClient, Dockerd, IMAGE};
pub use crate::flow::{Paced, Stream, StreamReport, flood, pace, transfer};
pub use crate::frame::{
    ETHERTYPE_ARP, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Mac, UdpDatagram, checksum_faults, ethernet,
    ipv4, udp_datagram, udp_frame_like, vlan,
};
pub use crate::host::Host;
pub use crate::http::{Answer, HttpClient, HttpConnection, chunked, request};
pub use crate::lab::Lab;
pub use crate::mesh::Mesh;
pub use crate::names::{
    NameServer, addresses_in_answer, answers, attached, dig, launch_with, resolved,
};
pub use crate::overlay::Overlay;
pub use crate::ping::{Ping, PingReport};
pub use crate::raw::RawSocket;
pub use crate::record::record;
pub use crate::sandbox::{
    alone_in_docker_lab, alone_in_lab, in_docker_lab, in_lab, is_long, say_skipped, weft_binary,
};
pub use crate::slow::SlowHub;
pub use crate::terminal::Terminal;
pub use crate::traces::Traces;
pub use crate::transcript::Transcript;
pub use crate::wait::{eventually, now, pause, within};
pub use crate::weft::{Outcome, Weft};
