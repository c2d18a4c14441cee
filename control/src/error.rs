//! What can fail while control starts or runs, one variant for each operation.
#![expect(missing_docs, reason = "the display text is the documentation")]

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::secret::SecretError;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    #[error("prepare secrets")]
    Secrets {
        #[source]
        source: SecretError,
    },
    #[error("listen on TCP {address}")]
    Listen {
        address: SocketAddr,
        #[source]
        source: io::Error,
    },
    #[error("create data directory {}", path.display())]
    CreateDataDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("read identity key {}", path.display())]
    ReadIdentity {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(
        "identity key {} is damaged ({len} bytes, a key has {wanted}); restore it, or run `weft reset --force` to get a new identity",
        path.display()
    )]
    DamagedIdentity {
        path: PathBuf,
        len: usize,
        wanted: usize,
    },
    #[error("write identity key {}", path.display())]
    WriteIdentity {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("open store {}", path.display())]
    OpenStore {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error("store {} is in use by another weft", path.display())]
    StoreInUse { path: PathBuf },
    #[error("store {} has schema {found}, this weft knows up to {known}; use a newer weft", path.display())]
    NewerStore {
        path: PathBuf,
        found: u64,
        known: u64,
    },
    #[error("store {} is damaged: {what}", path.display())]
    DamagedStore { path: PathBuf, what: &'static str },
    #[error("put a new store in the place of {}", path.display())]
    SetAside {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("write store {}", path.display())]
    WriteStore {
        path: PathBuf,
        #[source]
        source: Box<redb::Error>,
    },
    #[error(
        "no identity can be kept in {}, and this host has none yet: make room there, make it writable, or name another directory with --data-dir",
        path.display()
    )]
    NoPlace {
        path: PathBuf,
        #[source]
        source: Box<Self>,
    },
    #[error("remove state in {}", path.display())]
    RemoveState {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("start the control thread's runtime")]
    Runtime {
        #[source]
        source: io::Error,
    },
    #[error("start the DNS server's thread")]
    StartDns {
        #[source]
        source: io::Error,
    },
    #[error("wait for the engine's events")]
    EngineEvents {
        #[source]
        source: io::Error,
    },
    #[error("run {task} beside the loop")]
    Task {
        task: &'static str,
        #[source]
        source: tokio::task::JoinError,
    },
}

impl ControlError {
    /// Whether the disk under the state takes no writes: it is full, read-only, or fails.
    pub(crate) fn is_of_disk(&self) -> bool {
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "all other errors would come on a sound disk, too"
        )]
        match self {
            Self::OpenStore { source, .. } | Self::WriteStore { source, .. } => {
                matches!(**source, redb::Error::Io(_) | redb::Error::PreviousIo)
            }
            Self::CreateDataDir { .. } | Self::WriteIdentity { .. } | Self::SetAside { .. } => true,
            _ => false,
        }
    }
}
