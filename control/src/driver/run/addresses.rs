//! Carries out what the machine that gives addresses wants: writes, answers, lines in the log.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::driver::engine::EngineHandle;
use crate::driver::request::Reply;
use crate::driver::run::Driver;
use crate::driver::run::beside::{AddressWork, Beside};
use crate::ipam::request::{Failure, IpamRequestId, Reply as AddressReply, Request};
use crate::ipam::{IpamInput, IpamNotice, IpamOutput};
use crate::node::exchange::Input;

/// Requests whose answers are awaited.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    answers: BTreeMap<IpamRequestId, Reply<Result<AddressReply, Failure>>>,
    requests: u64,
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
                    let _ = reply.send(result);
                }
            }
            IpamOutput::Blocked(blocked) => log_blocked(&blocked),
            IpamOutput::Notice(notice) => log_notice(&notice),
            // The node has done these.
            IpamOutput::Publish { .. } | IpamOutput::Send { .. } | IpamOutput::Flow { .. } => {}
        }
    }
}

fn log_blocked(blocked: &BTreeSet<u32>) {
    if !blocked.is_empty() {
        let addresses: Vec<Ipv4Addr> = blocked.iter().map(|address| (*address).into()).collect();
        tracing::warn!(?addresses, "other peers own addresses that are in use here");
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
            tracing::warn!(holder, %address, "needs a new address: attach it again");
        }
        IpamNotice::Disputed { span } => {
            tracing::warn!(%span, "two peers claim a range: nothing of it is given until they agree");
        }
        IpamNotice::Settled { span } => tracing::info!(%span, "a dispute is settled"),
        IpamNotice::Freed { holder } => {
            tracing::info!(holder, "addresses of a dead container are free")
        }
        IpamNotice::StoreIgnored { why } => {
            tracing::warn!(why, "what the store holds of addresses is not used");
        }
    }
}
