//! The loop's part in attachments: node and names are told what is attached whenever that may have changed.
//!
//! ```text
//!  interface or address changed ─┐                         ┌─► names
//!  now and then ─────────────────┴─► list ─► Done::Present ┴─► node
//!  attach, detach ─► the one line that changed ──────────────► node, before the answer
//! ```
//!
//! A list enters every container, so no answer waits for one. A list that was begun before the last change is not
//! believed; another one follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ipnet::IpNet;
use tokio::sync::{Notify, mpsc};
use tokio::time::{sleep, timeout};

use crate::api::Attachment;
use crate::config::{ATTACHMENTS_LISTED_EVERY, ATTACHMENTS_PAUSE};
use crate::driver::engine::EngineHandle;
use crate::driver::request::{Attacher, Changed, Effect};
use crate::driver::run::Driver;
use crate::driver::run::beside::{Beside, Done};
use crate::node::exchange::{Input, LocalAttachment};

/// Makes lists of what is attached.
#[derive(Clone)]
pub(super) struct Lister {
    attacher: Arc<dyn Attacher>,
    generation: Arc<AtomicU64>,
    wanted: Arc<Notify>,
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
            wanted: Arc::default(),
            done,
        }
    }

    /// What was listed so far is old.
    fn outdate(&self) {
        self.generation.fetch_add(1, Ordering::Relaxed);
    }

    fn is_old(&self, generation: u64) -> bool {
        generation != self.generation.load(Ordering::Relaxed)
    }

    /// Asks for another list soon.
    pub(super) fn again(&self) {
        self.wanted.notify_one();
    }

    /// Looks at the host whenever something may have changed, and now and then.
    pub(super) async fn keep(self) {
        loop {
            self.once().await;
            sleep(ATTACHMENTS_PAUSE).await;
            tokio::select! {
                () = self.wanted.notified() => {}
                // Either is a reason to look.
                _ = timeout(ATTACHMENTS_LISTED_EVERY, self.attacher.changed()) => {}
            }
        }
    }

    /// Makes one list.
    async fn once(&self) {
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
        if beside.lister.is_old(generation) {
            beside.lister.again();
            return;
        }
        self.keep_names(&list, generation, beside);
        self.attached = list.iter().filter_map(local).collect();
        self.tell_attached(beside);
    }

    /// Tells the node of one change, which is newer than any list.
    pub(super) fn one_changed(&mut self, changed: &Changed, beside: &Beside) {
        match &changed.effect {
            Effect::Nothing => return,
            Effect::On(attachment) => self.attached.extend(local(attachment)),
            // What else the container has, by Docker's plugin, is in the next list.
            Effect::Off => {
                let id = &changed.reply.id;
                self.attached.retain(|(owner, _), _| owner != id);
            }
        }
        beside.lister.outdate();
        self.tell_attached(beside);
    }

    fn tell_attached(&mut self, beside: &Beside) {
        let list = self.attached.values().cloned().collect();
        self.feed(Input::Attached(list), beside);
    }
}

fn local(attachment: &Attachment) -> Option<((String, String), LocalAttachment)> {
    let local = LocalAttachment {
        mac: attachment.mac.parse().ok()?,
        addresses: attachment.addresses.iter().map(IpNet::addr).collect(),
    };
    Some(((attachment.id.clone(), attachment.mac.clone()), local))
}
