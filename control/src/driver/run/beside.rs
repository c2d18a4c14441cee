//! What runs beside the loop because it blocks: writes to the store; and how finished work comes back.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::api::{ApiError, AttachReply, Attachment, DnsReply, DnsRequest};
use crate::driver::dns::desk::Change;
use crate::driver::request::{Attacher, Changed, Reply};
use crate::driver::run::present::Lister;
use crate::driver::store::Store;
use crate::error::ControlError;
use crate::ipam::{StoreChange, StoreContent};
use crate::node::exchange::{PersistToken, Record};
use crate::secret::{SecretError, Secrets};

/// Writes that wait for the store; each holds an answer back, and there are no more requests than that.
const WRITES_MAX: usize = 64;

/// Steps of IPAM that share one transaction.
const STEPS_AT_ONCE_MAX: usize = 256;
/// Before the first attempt to use the store after it failed.
const STORE_PAUSE: Duration = Duration::from_millis(250);
/// Each attempt waits twice as long as the one before, up to this: a disk that was mended is used soon.
const STORE_PAUSE_MAX: Duration = Duration::from_secs(4);

/// Work beside the loop that is done.
pub(super) enum Done {
    Persisted(PersistToken, bool),
    Attached(Changed, Reply<Result<AttachReply, ApiError>>),
    Detached(Changed, Reply<Result<AttachReply, ApiError>>),
    /// As `Attached`, of a container that has its addresses through Docker.
    Adopted(Changed, Reply<Result<AttachReply, ApiError>>),
    /// The container that a request about names is for.
    Described(
        Change,
        DnsRequest,
        AttachReply,
        Reply<Result<DnsReply, ApiError>>,
    ),
    /// What is attached to the host, listed since that generation of names.
    Present(Vec<Attachment>, u64),
    /// A step, and why it is not on disk if it is not.
    AddressesWritten(u64, Option<String>),
    AddressesRead(StoreContent),
    Stretched(Result<Secrets, SecretError>, Reply<Result<(), ApiError>>),
}

/// The ways to what runs beside the loop.
pub(super) struct Beside {
    pub(super) writes: mpsc::Sender<(PersistToken, Record)>,
    pub(super) addresses: mpsc::UnboundedSender<AddressWork>,
    pub(super) done: mpsc::UnboundedSender<Done>,
    pub(super) writer: JoinHandle<()>,
    pub(super) lister: Lister,
    pub(super) listing: JoinHandle<()>,
    pub(super) address_writer: JoinHandle<()>,
}

/// What is to be done with the addresses in the store.
pub(super) enum AddressWork {
    /// One step; its number comes back when it is on disk.
    Write(u64, Vec<StoreChange>),
    /// A step failed: say what the store holds, once it can be read and written again.
    Read,
}

impl Beside {
    pub(super) fn start(
        store: Arc<Store>,
        attacher: Arc<dyn Attacher>,
        generation: Arc<AtomicU64>,
        done: mpsc::UnboundedSender<Done>,
    ) -> Self {
        let (writes, waiting) = mpsc::channel(WRITES_MAX);
        let writer = tokio::spawn(write_records(Arc::clone(&store), waiting, done.clone()));
        // No bound of its own: a step is made for a request, of which there is a bound, or for a message.
        let (addresses, steps) = mpsc::unbounded_channel();
        let address_writer = tokio::spawn(write_addresses(store, steps, done.clone()));
        let lister = Lister::new(attacher, generation, done.clone());
        let listing = tokio::spawn(lister.clone().keep());
        Self {
            writes,
            addresses,
            done,
            writer,
            lister,
            listing,
            address_writer,
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
            tracing::error!(
                error = error as &dyn std::error::Error,
                "write to the store failed"
            );
        }
        let _ = done.send(Done::Persisted(token, failure.is_none()));
    }
}

/// Writes the steps of IPAM in their order; those that wait at the same time share one transaction.
async fn write_addresses(
    store: Arc<Store>,
    mut steps: mpsc::UnboundedReceiver<AddressWork>,
    done: mpsc::UnboundedSender<Done>,
) {
    let mut waiting = Vec::new();
    let mut has_failed = false;
    while steps.recv_many(&mut waiting, STEPS_AT_ONCE_MAX).await > 0 {
        let mut changes = Vec::new();
        let mut last = None;
        for work in waiting.drain(..) {
            match work {
                // What follows a step that failed rests on it.
                AddressWork::Write(..) if has_failed => {}
                AddressWork::Write(token, step) => {
                    last = Some(token);
                    changes.extend(step);
                }
                AddressWork::Read => {
                    has_failed = false;
                    let _ = done.send(Done::AddressesRead(read_again(&store).await));
                }
            }
        }
        if let Some(token) = last {
            let writing = Arc::clone(&store);
            let written = spawn_blocking(move || writing.write_ipam(&changes)).await;
            has_failed = !matches!(&written, Ok(Ok(())));
            if let Ok(Err(error)) = &written {
                tracing::error!(%error, "addresses cannot be written");
            }
            let trouble = has_failed.then(|| {
                let cause = store.trouble();
                cause.unwrap_or_else(|| "see the log".to_owned())
            });
            let _ = done.send(Done::AddressesWritten(token, trouble));
        }
    }
}

/// Tries until the store takes writes again.
async fn read_again(store: &Arc<Store>) -> StoreContent {
    let mut pause = STORE_PAUSE;
    loop {
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(STORE_PAUSE_MAX);
        let reading = Arc::clone(store);
        let tried = spawn_blocking(move || {
            reading.recover()?;
            reading.ipam()
        });
        match tried.await {
            Ok(Ok(content)) => return content,
            Ok(Err(error)) => tracing::debug!(%error, "the store does not work yet"),
            Err(error) => tracing::debug!(%error, "the store does not work yet"),
        }
    }
}
