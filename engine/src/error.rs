//! What can fail when the engine is set up.
#![expect(missing_docs, reason = "the display text is the documentation")]

use std::io;

/// A set-up step that failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("open /dev/net/tun")]
    OpenTun {
        #[source]
        source: io::Error,
    },
    #[error("attach queue {queue} of TAP device {name}")]
    AttachTap {
        name: String,
        queue: u16,
        #[source]
        source: io::Error,
    },
    #[error("set {option} on TAP device {name}")]
    SetTapOption {
        name: String,
        option: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("open UDP port {port}")]
    OpenUdp {
        port: u16,
        #[source]
        source: io::Error,
    },
    #[error("set socket option {option}")]
    SetSocketOption {
        option: &'static str,
        #[source]
        source: io::Error,
    },
    #[error("set up epoll")]
    SetUpEpoll {
        #[source]
        source: io::Error,
    },
    #[error("set up io_uring")]
    SetUpUring {
        #[source]
        source: io::Error,
    },
    #[error("kernel lacks io_uring operation {0}")]
    UnsupportedOperation(&'static str),
    #[error("start worker thread {worker}")]
    StartWorker {
        worker: u16,
        #[source]
        source: io::Error,
    },
    #[error("interface name {name:?} is longer than 15 bytes or empty")]
    InterfaceName { name: String },
    #[error("{0} workers asked, 1 to 16 are possible")]
    WorkerCount(u16),
    #[error("worker {0} has ended")]
    WorkerGone(u16),
}
