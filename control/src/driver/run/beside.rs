//! What runs beside the loop because it blocks: writes to the store; and how finished work comes back.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};
use tokio::time::MissedTickBehavior;

use crate::api::{ApiError, Attachment};
use crate::config::ATTACHMENTS_LISTED_EVERY;
use crate::driver::request::{Attacher, Reply};
use crate::driver::store::Store;
use crate::error::ControlError;
use crate::node::exchange::{PersistToken, Record};
use crate::secret::{SecretError, Secrets};

/// Writes that wait for the store; each holds an answer back, and there are no more requests than that.
const WRITES_MAX: usize = 64;

/// Work beside the loop that is done.
pub(super) enum Done {
    Persisted(PersistToken, bool),
    /// What is attached to the host, as it was listed.
    Attached(Vec<Attachment>),
    Stretched(Result<Secrets, SecretError>, Reply<Result<(), ApiError>>),
}

/// The ways to what runs beside the loop.
pub(super) struct Beside {
    pub(super) writes: mpsc::Sender<(PersistToken, Record)>,
    pub(super) done: mpsc::UnboundedSender<Done>,
    pub(super) writer: JoinHandle<()>,
    pub(super) lister: JoinHandle<()>,
}

impl Beside {
    pub(super) fn start(
        store: Arc<Store>,
        attacher: Arc<dyn Attacher>,
        done: mpsc::UnboundedSender<Done>,
    ) -> Self {
        let (writes, waiting) = mpsc::channel(WRITES_MAX);
        let writer = tokio::spawn(write_records(store, waiting, done.clone()));
        let lister = tokio::spawn(list_attachments(attacher, done.clone()));
        Self {
            writes,
            done,
            writer,
            lister,
        }
    }
}

/// Looks at the host now and then: containers go without a word.
async fn list_attachments(attacher: Arc<dyn Attacher>, done: mpsc::UnboundedSender<Done>) {
    let mut turns = tokio::time::interval(ATTACHMENTS_LISTED_EVERY);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        turns.tick().await;
        list_once(&*attacher, &done).await;
    }
}

/// Lists what is attached, for the node.
pub(super) async fn list_once(attacher: &dyn Attacher, done: &mpsc::UnboundedSender<Done>) {
    match attacher.list().await {
        Ok(list) => {
            let _ = done.send(Done::Attached(list));
        }
        Err(error) => tracing::debug!(error = error.error, "attachments cannot be listed"),
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
