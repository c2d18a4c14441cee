//! Carries out what the machine that gives addresses wants: writes, answers, lines in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use tokio::sync::watch;

use crate::api::{ApiError, IpamFinding};
use crate::driver::check::against;
use crate::driver::engine::EngineHandle;
use crate::driver::firewall;
use crate::driver::request::Reply;
use crate::driver::run::Driver;
use crate::driver::run::beside::{AddressWork, Beside};
use crate::ipam::check::readdress;
use crate::ipam::request::{Failure, IpamRequestId, Reply as AddressReply, Request};
use crate::ipam::{IpamInput, IpamNotice, IpamOutput, StoreContent};
use crate::node::exchange::Input;

/// Requests whose answers are awaited.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    answers: BTreeMap<IpamRequestId, Reply<Result<AddressReply, Failure>>>,
    requests: u64,
    /// Why the last write failed, until the store has been read again. Other writes may work meanwhile.
    trouble: Option<String>,
    blocker: Option<watch::Sender<Vec<Ipv4Addr>>>,
}

impl<E: EngineHandle> Driver<E> {
    /// Asks; the answer goes to `reply`.
    pub(super) fn ask_for_addresses(
        &mut self,
        what: Request,
        reply: Reply<Result<AddressReply, Failure>>,
        beside: &Beside,
    ) {
        self.addresses.answers.retain(|_, reply| !reply.is_closed());
        self.addresses.requests += 1;
        let request = IpamRequestId(self.addresses.requests);
        self.addresses.answers.insert(request, reply);
        let deadline = None;
        let input = IpamInput::Request {
            request,
            what,
            deadline,
        };
        self.feed(Input::Ipam(input), beside);
    }

    /// Holds what is believed against what exists; `None` if addresses are not given.
    pub(super) fn check_addresses(&self, reply: Reply<Result<Option<Vec<IpamFinding>>, ApiError>>) {
        let Some(believed) = self.node.believed_addresses() else {
            let _ = reply.send(Ok(None));
            return;
        };
        let listing = self.attacher.list_by_holder();
        tokio::spawn(async move {
            let findings = listing.await.map(|list| Some(against(believed, list)));
            let _ = reply.send(findings);
        });
    }

    /// A step is on disk, or this is why it is not.
    pub(super) fn addresses_written(
        &mut self,
        token: u64,
        trouble: Option<String>,
        beside: &Beside,
    ) {
        let durable = trouble.is_none();
        self.addresses.trouble = trouble;
        self.feed(Input::Ipam(IpamInput::Persisted { token, durable }), beside);
    }

    /// The store works again, and holds this.
    pub(super) fn addresses_read(&mut self, content: StoreContent, beside: &Beside) {
        self.addresses.trouble = None;
        self.feed(Input::Ipam(IpamInput::Reloaded(content)), beside);
    }

    /// The machine does not know why a write failed.
    fn with_cause(&self, failure: Failure) -> Failure {
        let trouble = self.store.trouble();
        match (failure, trouble.or_else(|| self.addresses.trouble.clone())) {
            (Failure::Store, Some(cause)) => Failure::Disk { cause },
            (failure, _) => failure,
        }
    }

    pub(super) fn carry_out_for_addresses(&mut self, output: IpamOutput, beside: &Beside) {
        match output {
            IpamOutput::Persist { token, changes } => {
                let _ = beside.addresses.send(AddressWork::Write(token, changes));
            }
            IpamOutput::Reload => {
                let _ = beside.addresses.send(AddressWork::Read);
            }
            IpamOutput::Answer { request, result } => {
                if let Some(reply) = self.addresses.answers.remove(&request) {
                    let _ = reply.send(result.map_err(|failure| self.with_cause(failure)));
                }
            }
            IpamOutput::Blocked(blocked) => {
                let blocked = blocked.into_iter().map(Ipv4Addr::from).collect();
                self.addresses.block(&blocked);
                self.block_names(blocked);
            }
            IpamOutput::Notice(notice) => log_notice(&notice),
            // The node has done these.
            IpamOutput::Publish { .. } | IpamOutput::Send { .. } | IpamOutput::Flow { .. } => {}
        }
    }
}

impl Addresses {
    /// Has what is blocked held back by the firewall; the task for it begins with the first blocked address.
    fn block(&mut self, blocked: &BTreeSet<Ipv4Addr>) {
        let addresses = Vec::from_iter(blocked.iter().copied());
        if !addresses.is_empty() {
            tracing::warn!(
                ?addresses,
                "other peers own addresses that are in use here: blocked"
            );
        } else if self.blocker.is_none() {
            return;
        }
        let blocker = self.blocker.get_or_insert_with(|| {
            let (blocker, wanted) = watch::channel(Vec::new());
            tokio::spawn(hold_back(wanted));
            blocker
        });
        blocker.send_replace(addresses);
    }
}

/// Applies what is wanted last, until nobody wants anything any more.
async fn hold_back(mut wanted: watch::Receiver<Vec<Ipv4Addr>>) {
    while wanted.changed().await.is_ok() {
        let addresses = wanted.borrow_and_update().clone();
        if let Err(error) = firewall::block(&addresses).await {
            tracing::error!(%error, "blocked addresses are on the wire");
        }
    }
}

fn log_notice(notice: &IpamNotice) {
    match notice {
        IpamNotice::RingKnown { genesis } => tracing::info!(%genesis, "there is a ring"),
        IpamNotice::Stranger { peer, why } => tracing::warn!(%peer, why, "peer refused"),
        IpamNotice::Removed { index } => {
            tracing::warn!(
                index,
                "this peer was removed: its ranges belong to others now"
            );
        }
        IpamNotice::Readdress { holder, address } => {
            let remedy = readdress(holder);
            tracing::warn!(holder, %address, remedy, "needs a new address");
        }
        IpamNotice::Disputed { span } => {
            tracing::warn!(%span, "two peers claim a range: nothing of it is given until they agree");
        }
        IpamNotice::Settled { span } => tracing::info!(%span, "a dispute is settled"),
        IpamNotice::Freed { holder } => {
            tracing::info!(holder, "addresses of a dead container are free")
        }
        IpamNotice::Relearned { count } => {
            tracing::warn!(
                count,
                "peers have told what this host owned: addresses are given again"
            );
        }
    }
}
