//! The loop's part in attachments: node and names are told what is attached whenever that may have changed.
//!
//! ```text
//!  attach, detach ──────────────┐                         ┌─► names
//!  interface or address changed ┼─► list ─► Done::Present ┴─► node
//!  now and then ────────────────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use crate::api::Attachment;
use crate::config::{ATTACHMENTS_LISTED_EVERY, ATTACHMENTS_PAUSE};
use crate::driver::engine::EngineHandle;
use crate::driver::request::Attacher;
use crate::driver::run::Driver;
use crate::driver::run::beside::{Beside, Done};
use crate::node::exchange::{Input, LocalAttachment};

/// Makes lists of what is attached.
#[derive(Clone)]
pub(super) struct Lister {
    attacher: Arc<dyn Attacher>,
    generation: Arc<AtomicU64>,
    done: mpsc::UnboundedSender<Done>,
}

impl Lister {
    /// Each list carries what `generation` was when it was begun.
    pub(super) fn new(
        attacher: Arc<dyn Attacher>,
        generation: Arc<AtomicU64>,
        done: mpsc::UnboundedSender<Done>,
    ) -> Self {
        Self {
            attacher,
            generation,
            done,
        }
    }

    /// Looks at the host whenever something may have changed, and now and then.
    pub(super) async fn keep(self) {
        loop {
            self.once().await;
            sleep(ATTACHMENTS_PAUSE).await;
            // Either is a reason to look.
            let _ = timeout(ATTACHMENTS_LISTED_EVERY, self.attacher.changed()).await;
        }
    }

    /// Makes one list.
    pub(super) async fn once(&self) {
        // Before the list, which may not know a container that is named meanwhile.
        let generation = self.generation.load(Ordering::Relaxed);
        match self.attacher.list().await {
            Ok(list) => {
                let _ = self.done.send(Done::Present(list, generation));
            }
            Err(error) => tracing::warn!(error = error.error, "attachments cannot be listed"),
        }
    }
}

impl<E: EngineHandle> Driver<E> {
    /// Tells names and node what is attached to the host.
    pub(super) fn present(&mut self, list: Vec<Attachment>, generation: u64, beside: &Beside) {
        self.keep_names(&list, generation, beside);
        let local = |attachment: Attachment| {
            Some(LocalAttachment {
                mac: attachment.mac.parse().ok()?,
                addresses: attachment.addresses.iter().map(IpNet::addr).collect(),
            })
        };
        let list = list.into_iter().filter_map(local).collect();
        self.feed(Input::Attached(list), beside);
    }
}
