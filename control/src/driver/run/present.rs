//! The loop's part in attachments: the node is told what is attached whenever that may have changed.
//!
//! ```text
//!  attach, detach ──────────────┐
//!  interface or address changed ┼─► list ─► Done::Present ─► node
//!  now and then ────────────────┘
//! ```

use std::sync::Arc;

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

/// Looks at the host whenever something may have changed, and now and then.
pub(super) async fn keep_listing(attacher: Arc<dyn Attacher>, done: mpsc::UnboundedSender<Done>) {
    loop {
        list_once(&*attacher, &done).await;
        sleep(ATTACHMENTS_PAUSE).await;
        // Either is a reason to look.
        let _ = timeout(ATTACHMENTS_LISTED_EVERY, attacher.changed()).await;
    }
}

/// Lists what is attached, for the node.
pub(super) async fn list_once(attacher: &dyn Attacher, done: &mpsc::UnboundedSender<Done>) {
    match attacher.list().await {
        Ok(list) => {
            let _ = done.send(Done::Present(list));
        }
        Err(error) => tracing::debug!(error = error.error, "attachments cannot be listed"),
    }
}

impl<E: EngineHandle> Driver<E> {
    /// Tells the node what is attached to the host.
    pub(super) fn present(&mut self, list: Vec<Attachment>, beside: &Beside) {
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
