//! What runs beside the loop because it blocks: writes to the store; and how finished work comes back.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::api::{ApiError, AttachReply, Attachment, DnsReply, DnsRequest};
use crate::driver::dns::desk::Change;
use crate::driver::request::{Attacher, Reply};
use crate::driver::run::present::Lister;
use crate::driver::store::Store;
use crate::error::ControlError;
use crate::node::exchange::{PersistToken, Record};
use crate::secret::{SecretError, Secrets};

/// Writes that wait for the store; each holds an answer back, and there are no more requests than that.
const WRITES_MAX: usize = 64;

/// Work beside the loop that is done.
pub(super) enum Done {
    Persisted(PersistToken, bool),
    Attached(AttachReply, Reply<Result<AttachReply, ApiError>>),
    Detached(AttachReply, Reply<Result<AttachReply, ApiError>>),
    /// The container that a request about names is for.
    Described(
        Change,
        DnsRequest,
        AttachReply,
        Reply<Result<DnsReply, ApiError>>,
    ),
    /// What is attached to the host, listed since that generation of names.
    Present(Vec<Attachment>, u64),
    Stretched(Result<Secrets, SecretError>, Reply<Result<(), ApiError>>),
}

/// The ways to what runs beside the loop.
pub(super) struct Beside {
    pub(super) writes: mpsc::Sender<(PersistToken, Record)>,
    pub(super) done: mpsc::UnboundedSender<Done>,
    pub(super) writer: JoinHandle<()>,
    pub(super) lister: Lister,
    pub(super) listing: JoinHandle<()>,
}

impl Beside {
    pub(super) fn start(
        store: Arc<Store>,
        attacher: Arc<dyn Attacher>,
        generation: Arc<AtomicU64>,
        done: mpsc::UnboundedSender<Done>,
    ) -> Self {
        let (writes, waiting) = mpsc::channel(WRITES_MAX);
        let writer = tokio::spawn(write_records(store, waiting, done.clone()));
        let lister = Lister::new(attacher, generation, done.clone());
        let listing = tokio::spawn(lister.clone().keep());
        Self {
            writes,
            done,
            writer,
            lister,
            listing,
        }
    }
}

/// Writes records one after the other.
async fn write_records(
    store: Arc<Store>,
    mut waiting: mpsc::Receiver<(PersistToken, Record)>,
    done: mpsc::UnboundedSender<Done>,
) {
    while let Some((token, record)) = waiting.recv().await {
        let store = Arc::clone(&store);
        let write = move || match record {
            Record::Targets(targets) => store.set_targets(&targets),
            Record::Incarnation(incarnation) => store.raise_incarnation(incarnation),
        };
        let failure = match spawn_blocking(write).await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(error),
            Err(source) => Some(ControlError::Task {
                task: "a write to the store",
                source,
            }),
        };
        if let Some(error) = &failure {
            tracing::error!(%error, "write to the store failed");
        }
        let _ = done.send(Done::Persisted(token, failure.is_none()));
    }
}
