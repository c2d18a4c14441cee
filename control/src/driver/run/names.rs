//! The loop's part in DNS: attaching gives names, detaching takes them, and a container that is gone loses its own.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::api::{ApiError, AttachReply, Attachment, DnsReply, DnsRequest, DnsStatus};
use crate::dns::names::Sources;
use crate::dns::record;
use crate::driver::client::Client;
use crate::driver::dns::desk::{Change, Desk, is_off};
use crate::driver::dns::{DnsConfig, DnsServer};
use crate::driver::engine::EngineHandle;
use crate::driver::request::{BoxFuture, Changed, Reply};
use crate::driver::run::Driver;
use crate::driver::run::beside::{Beside, Done};
use crate::error::ControlError;
use crate::node::exchange::Input;

/// What the loop has for DNS.
pub(super) struct Naming {
    pub(super) desk: Desk,
}

impl<E: EngineHandle> Driver<E> {
    /// Starts a server with this host's names, and keeps these from now on.
    ///
    /// # Errors
    /// [`ControlError::StartDns`].
    pub fn with_dns(mut self, config: DnsConfig) -> Result<(Self, DnsServer), ControlError> {
        let saved = self.store.names();
        let entries = saved.iter().flat_map(|body| record::parse_saved(body));
        let mut sources = Sources::default();
        sources.set(self.id, entries.map(|(entry, _)| entry).collect());
        let server = DnsServer::start(config, sources)?;
        let (store, dns) = (Arc::clone(&self.store), server.handle());
        self.naming = Some(Naming {
            desk: Desk::start(store, &saved, dns, self.id),
        });
        Ok((self, server))
    }

    /// Answers for no blocked address.
    pub(super) fn block_names(&mut self, blocked: BTreeSet<Ipv4Addr>) {
        if let Some(naming) = &mut self.naming {
            naming.desk.block(blocked);
        }
    }

    /// Takes the names of containers that are no longer attached.
    pub(super) fn keep_names(&mut self, list: &[Attachment], generation: u64, beside: &Beside) {
        let Some(naming) = &mut self.naming else {
            return;
        };
        let living = list.iter().map(|line| line.id.clone()).collect();
        match naming.desk.keep(&living, generation) {
            None => beside.lister.again(),
            // Those without a name may have files, too.
            Some(gone) => {
                tokio::spawn(self.attacher.forget(gone, false));
            }
        }
    }

    /// Removes what attached containers got for the sake of names.
    pub(super) async fn forget_containers(&self) {
        let mut all = match &self.naming {
            Some(naming) => naming.desk.containers(),
            None => BTreeSet::new(),
        };
        // Those that have no name.
        let listed = self.attacher.list().await.unwrap_or_default();
        all.extend(listed.into_iter().map(|line| line.id.into()));
        self.attacher.forget(all, true).await;
    }

    /// Has what is attached changed beside the loop; then the node is told, and the names follow. The work learns when
    /// nobody waits for the answer any more.
    pub(super) fn attach(
        &self,
        work: impl FnOnce(Client) -> BoxFuture<Result<Changed, ApiError>>,
        done: impl FnOnce(Changed, Reply<Result<AttachReply, ApiError>>) -> Done + Send + 'static,
        mut reply: Reply<Result<AttachReply, ApiError>>,
        beside: &Beside,
    ) {
        let sender = beside.done.clone();
        let (presence, client) = Client::present();
        let mut work = work(client);
        tokio::spawn(async move {
            let outcome = tokio::select! {
                outcome = &mut work => outcome,
                () = reply.closed() => {
                    drop(presence);
                    work.await
                }
            };
            match outcome {
                Ok(changed) => {
                    let _ = sender.send(done(changed, reply));
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
        });
    }

    pub(super) fn adopt(
        &self,
        container: String,
        reply: Reply<Result<AttachReply, ApiError>>,
        beside: &Beside,
    ) {
        let work = |_| self.attacher.adopt(container);
        self.attach(work, Done::Adopted, reply, beside);
    }

    pub(super) fn expect(
        &self,
        network: String,
        container: String,
        reply: Reply<Result<AttachReply, ApiError>>,
        beside: &Beside,
    ) {
        let work = |_| self.attacher.expect(network, container);
        self.attach(work, Done::Attached, reply, beside);
    }

    pub(super) fn attached(
        &mut self,
        changed: Changed,
        reply: Reply<Result<AttachReply, ApiError>>,
        beside: &Beside,
    ) {
        self.one_changed(&changed, beside);
        let mut attached = changed.reply;
        let duplicates = self.node.duplicates_among(&attached.addresses);
        attached.warnings.extend(duplicates);
        let Some(naming) = &mut self.naming else {
            let _ = reply.send(Ok(attached));
            return;
        };
        let mut answer = attached.clone();
        naming.desk.attached(&attached, move |note| {
            answer.warnings.extend(note);
            let _ = reply.send(Ok(answer));
        });
    }

    pub(super) fn detached(
        &mut self,
        changed: Changed,
        reply: Reply<Result<AttachReply, ApiError>>,
        beside: &Beside,
    ) {
        self.one_changed(&changed, beside);
        let detached = changed.reply;
        let Some(naming) = &mut self.naming else {
            let _ = reply.send(Ok(detached));
            return;
        };
        let answer = detached.clone();
        naming.desk.detached(&detached, move || {
            let _ = reply.send(Ok(answer));
        });
    }

    /// A container whose addresses and names are all that it has through Docker.
    pub(super) fn adopted(
        &mut self,
        now: Changed,
        reply: Reply<Result<AttachReply, ApiError>>,
        beside: &Beside,
    ) {
        if let Some(naming) = &mut self.naming {
            naming.desk.only_called(&now.reply);
        }
        self.attached(now, reply, beside);
    }

    /// Takes the names of addresses that a container had through Docker.
    pub(super) fn disown(&mut self, left: &AttachReply) {
        if let Some(naming) = &mut self.naming {
            naming.desk.detached(left, || {});
        }
    }

    /// Finds the container that a request names, then goes on with [`Self::change_names`].
    pub(super) fn dns_change(
        &mut self,
        change: Change,
        request: DnsRequest,
        reply: Reply<Result<DnsReply, ApiError>>,
        beside: &Beside,
    ) {
        if self.naming.is_none() {
            let _ = reply.send(Err(is_off()));
            return;
        }
        let Some(container) = request.container.clone() else {
            self.change_names(change, &request, None, reply);
            return;
        };
        let (describing, done) = (self.attacher.describe(container), beside.done.clone());
        tokio::spawn(async move {
            match describing.await {
                Ok(described) => {
                    let _ = done.send(Done::Described(change, request, described, reply));
                }
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
        });
    }

    pub(super) fn change_names(
        &mut self,
        change: Change,
        request: &DnsRequest,
        described: Option<&AttachReply>,
        reply: Reply<Result<DnsReply, ApiError>>,
    ) {
        let Some(naming) = &mut self.naming else {
            let _ = reply.send(Err(is_off()));
            return;
        };
        let (sender, changed) = oneshot::channel();
        let desk = &mut naming.desk;
        let removed = desk.change(change, request, described, |result| {
            let _ = sender.send(result);
        });
        let unnaming = self.attacher.unname(removed);
        tokio::spawn(async move {
            unnaming.await;
            if let Ok(result) = changed.await {
                let _ = reply.send(result);
            }
        });
    }

    /// Takes what `ask` says of the desk, or says that DNS is off.
    pub(super) fn ask_desk<T>(
        &self,
        ask: impl FnOnce(&Desk) -> Result<T, ApiError>,
    ) -> Result<T, ApiError> {
        self.naming
            .as_ref()
            .map_or_else(|| Err(is_off()), |naming| ask(&naming.desk))
    }

    pub(super) fn dns_status(&self, with_entries: bool) -> Option<DnsStatus> {
        let naming = self.naming.as_ref()?;
        let name_of = |id| self.node.shown_name(id);
        Some(naming.desk.status(with_entries, name_of))
    }

    /// Tells other hosts of what has changed.
    pub(super) fn publish_names(&mut self, beside: &Beside) {
        let fresh = self
            .naming
            .as_mut()
            .and_then(|naming| naming.desk.take_fresh());
        if let Some(bodies) = fresh {
            self.feed(Input::Names(bodies), beside);
        }
    }

    /// Waits until all names are on disk.
    pub(super) async fn finish_naming(&mut self) {
        if let Some(naming) = self.naming.take() {
            naming.desk.finish().await;
        }
    }
}
