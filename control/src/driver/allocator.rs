//! Addresses for an attachment: each argument asked of the machine in the loop, in order, and given back on failure.
//!
//! ```text
//!  net:default, net:CIDR ─► allocate ─┐
//!  explicit in the range ─► claim ────┼─► addresses in the order of the arguments
//!  explicit outside ──────► noted ────┘
//! ```
//!
//! Without address management explicit addresses are used as they are, and `net:` is refused.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use tokio::sync::{mpsc, oneshot};

use super::address::{AddressArgument, AddressError};
use super::request::Request;
use super::turns::{Look, Turn};
use crate::ipam::request::{Failure, Reply, Request as AddressRequest};
use crate::ipam::sight::Sight;

/// What is said of addresses that were freed and not written.
const UNWRITTEN: &str =
    "freed, and free for others once the store takes writes again (see `weft status`)";

/// Why there are no addresses.
#[derive(Debug, thiserror::Error)]
pub enum AllocateError {
    /// The machine says no.
    #[error(transparent)]
    Refused(#[from] Failure),
    /// There is no machine.
    #[error(
        "allocation is off on this host (--ipalloc-range ''): net: cannot be used, give an address such as 10.2.1.1/24"
    )]
    Off,
    /// Only IPv4 is allocated from subnets.
    #[error("{0} is no IPv4 subnet: addresses are allocated from IPv4 subnets")]
    NotFour(IpNet),
    /// The answer does not come: what it rests on is not on disk.
    #[error("the store takes writes too slowly to give an address: see `weft status`")]
    Slow,
    /// The loop has ended.
    #[error("the daemon is stopping")]
    Stopping,
    /// An argument was refused.
    #[error(transparent)]
    Argument(#[from] AddressError),
}

/// The way to the machine that gives addresses.
#[derive(Debug, Clone)]
pub struct Allocator {
    /// `None`: addresses are not given.
    requests: Option<mpsc::Sender<Request>>,
}

/// What one request got.
#[derive(Debug, Clone, Default)]
pub(crate) struct Obtained {
    /// In the order of the arguments.
    pub(crate) addresses: Vec<IpNet>,
    /// Those that the holder did not have before.
    fresh: Vec<IpNet>,
}

impl Obtained {
    pub(crate) fn fresh(&self) -> &[IpNet] {
        &self.fresh
    }
}

impl Allocator {
    /// One that asks the driver, or none.
    #[must_use]
    pub fn new(requests: Option<mpsc::Sender<Request>>) -> Self {
        Self { requests }
    }

    /// Whether there is a machine that gives addresses.
    pub(crate) fn is_on(&self) -> bool {
        self.requests.is_some()
    }

    async fn ask(&self, what: AddressRequest) -> Result<Reply, AllocateError> {
        let requests = self.requests.as_ref().ok_or(AllocateError::Off)?;
        let (reply, answer) = oneshot::channel();
        let sent = requests.send(Request::Addresses(what, reply)).await;
        sent.map_err(|_| AllocateError::Stopping)?;
        Ok(answer.await.map_err(|_| AllocateError::Stopping)??)
    }

    /// Asks for an address, and waits no longer than somebody needs it.
    async fn ask_for(&self, turn: &Turn, what: AddressRequest) -> Result<Reply, AllocateError> {
        let asking = self.ask(what);
        tokio::pin!(asking);
        tokio::select! {
            answer = &mut asking => return answer,
            () = turn.over() => {}
        }
        let holder = turn.owner().to_owned();
        let (answer, withdrawn) =
            tokio::join!(asking, self.ask(AddressRequest::Withdraw { holder }));
        withdrawn?;
        match (answer, turn.is_over()) {
            (Err(_), Some(failure)) => Err(failure.into()),
            (answer, _) => answer,
        }
    }

    /// Gets an address for each argument, for the owner whose turn it is.
    pub(crate) async fn obtain(
        &self,
        turn: &Turn,
        arguments: &[AddressArgument],
    ) -> Result<Obtained, AllocateError> {
        let holder = turn.owner();
        let mut obtained = Obtained::default();
        let before = match &self.requests {
            Some(_) => self.lookup(holder, None).await?,
            None => Vec::new(),
        };
        for argument in arguments {
            match self.obtain_one(turn, argument).await {
                Ok(addresses) => {
                    for address in addresses {
                        if !before.iter().any(|had| had.addr() == address.addr()) {
                            obtained.fresh.push(address);
                        }
                        if !obtained.addresses.contains(&address) {
                            obtained.addresses.push(address);
                        }
                    }
                }
                Err(error) => {
                    self.give_back(holder, &obtained).await;
                    return Err(error);
                }
            }
        }
        if let Some(failure) = turn.is_over() {
            self.give_back(holder, &obtained).await;
            return Err(failure.into());
        }
        Ok(obtained)
    }

    async fn obtain_one(
        &self,
        turn: &Turn,
        argument: &AddressArgument,
    ) -> Result<Vec<IpNet>, AllocateError> {
        let holder = turn.owner().to_owned();
        let what = match argument {
            AddressArgument::Explicit(address) if self.requests.is_none() => {
                return Ok(vec![*address]);
            }
            AddressArgument::Explicit(address) => AddressRequest::Claim {
                holder,
                address: *address,
            },
            AddressArgument::Subnet(subnet) => AddressRequest::Allocate {
                holder,
                subnet: Some(four(*subnet)?),
            },
            AddressArgument::DefaultSubnet => AddressRequest::Allocate {
                holder,
                subnet: None,
            },
        };
        Ok(addresses(self.ask_for(turn, what).await?))
    }

    /// Frees what a failed attachment had got.
    pub(crate) async fn give_back(&self, holder: &str, obtained: &Obtained) {
        let _the_failure_is_told = self.release(holder, &obtained.fresh).await;
    }

    /// The addresses that the arguments mean, of those that the holder has; an explicit one means itself.
    pub(crate) async fn find(
        &self,
        holder: &str,
        arguments: &[AddressArgument],
        default_subnet: Option<Ipv4Net>,
    ) -> Result<Vec<IpNet>, AllocateError> {
        let mut found = Vec::new();
        for argument in arguments {
            let subnet = match argument {
                AddressArgument::Explicit(address) => {
                    found.push(*address);
                    continue;
                }
                AddressArgument::Subnet(subnet) => Some(four(*subnet)?),
                AddressArgument::DefaultSubnet => default_subnet,
            };
            for address in self.lookup(holder, subnet).await? {
                if !found.contains(&address) {
                    found.push(address);
                }
            }
        }
        Ok(found)
    }

    async fn lookup(
        &self,
        holder: &str,
        subnet: Option<Ipv4Net>,
    ) -> Result<Vec<IpNet>, AllocateError> {
        let holder = holder.to_owned();
        let found = self.ask(AddressRequest::Lookup { holder, subnet }).await?;
        Ok(addresses(found))
    }

    /// Frees addresses; one that cannot be freed now is freed when its container is seen to be gone. Says if that is
    /// not on disk.
    pub(crate) async fn release(&self, holder: &str, addresses: &[IpNet]) -> Option<String> {
        self.requests.as_ref()?;
        let mut note = None;
        for address in addresses {
            let what = AddressRequest::Release {
                holder: holder.to_owned(),
                address: address.addr(),
            };
            match self.ask(what).await {
                Ok(Reply::Freed { written: false }) => note = Some(UNWRITTEN.to_owned()),
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(holder, address = %IpAddr::to_string(&address.addr()), %error, "address not freed");
                }
            }
        }
        note
    }

    /// Says which holders exist, with the addresses on their interfaces; all others are dead. Nothing is said of
    /// those whose addresses are not known, nor of those that changed during the look.
    pub(crate) async fn present(
        &self,
        holders: BTreeMap<String, Option<Vec<IpNet>>>,
        look: Look,
    ) -> Result<(), AllocateError> {
        let requests = self.requests.as_ref().ok_or(AllocateError::Off)?;
        let (reply, answer) = oneshot::channel();
        // The place in the queue comes first: nothing may come between the end of the look and what is said of it.
        let place = requests.reserve().await;
        let place = place.map_err(|_| AllocateError::Stopping)?;
        look.end(|changed| {
            let mut unsure = changed;
            let mut present = BTreeMap::new();
            for (holder, addresses) in holders {
                match addresses {
                    Some(addresses) => {
                        present.insert(holder, addresses);
                    }
                    None => {
                        unsure.insert(holder);
                    }
                }
            }
            let what = AddressRequest::Present(Sight { present, unsure });
            place.send(Request::Addresses(what, reply));
        });
        answer.await.map_err(|_| AllocateError::Stopping)??;
        Ok(())
    }
}

fn addresses(reply: Reply) -> Vec<IpNet> {
    match reply {
        Reply::Addresses(addresses) => addresses,
        Reply::Done | Reply::Freed { .. } | Reply::Removed { .. } | Reply::Left { .. } => {
            Vec::new()
        }
    }
}

fn four(subnet: IpNet) -> Result<Ipv4Net, AllocateError> {
    match subnet {
        IpNet::V4(subnet) => Ok(subnet),
        IpNet::V6(_) => Err(AllocateError::NotFour(subnet)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::driver::turns::Turns;

    #[tokio::test]
    async fn without_management_explicit_addresses_are_used_and_subnets_refused() {
        let allocator = Allocator::new(None);
        let explicit: AddressArgument = "10.2.1.1/24".parse().unwrap();

        let turn = Turns::default().take("c1").await;
        let obtained = allocator.obtain(&turn, &[explicit]).await.unwrap();
        assert_eq!(
            obtained.addresses,
            ["10.2.1.1/24".parse::<IpNet>().unwrap()]
        );
        let error = allocator
            .obtain(&turn, &[explicit, AddressArgument::DefaultSubnet])
            .await;
        assert!(
            error
                .unwrap_err()
                .to_string()
                .starts_with("allocation is off on this host")
        );
        allocator.give_back("c1", &obtained).await;
    }

    /// A machine that gives one address and then fails: the first is given back.
    #[tokio::test]
    async fn what_was_got_is_given_back_when_a_later_argument_fails() {
        let (sender, mut requests) = mpsc::channel(4);
        let allocator = Allocator::new(Some(sender));
        let arguments = ["net:default", "net:10.9.0.0/24"].map(|text| text.parse().unwrap());
        let turn = Turns::default().take("c1").await;
        let asking = tokio::spawn(async move { allocator.obtain(&turn, &arguments).await });
        let mut said = Vec::new();
        while let Some(Request::Addresses(what, reply)) = requests.recv().await {
            let answer = if let AddressRequest::Allocate { subnet, .. } = &what {
                let first = vec!["10.32.0.1/12".parse().unwrap()];
                subnet.map_or(Ok(Reply::Addresses(first)), |_| Err(Failure::Store))
            } else {
                Ok(Reply::Done)
            };
            said.push(what);
            let _ = reply.send(answer);
        }

        assert!(asking.await.unwrap().is_err());
        let freed = AddressRequest::Release {
            holder: "c1".to_owned(),
            address: "10.32.0.1".parse().unwrap(),
        };
        assert_eq!(said.last(), Some(&freed));
    }

    /// A machine that lets an allocation wait until it is withdrawn.
    #[tokio::test]
    async fn a_wait_for_an_address_ends_when_the_owner_is_to_leave() {
        let (sender, mut requests) = mpsc::channel(4);
        let (allocator, turns) = (Allocator::new(Some(sender)), Turns::default());
        let turn = turns.take("c1").await;
        let attaching = tokio::spawn(async move {
            let arguments = [AddressArgument::DefaultSubnet];
            allocator.obtain(&turn, &arguments).await.map(drop)
        });
        let mut detaching = None;
        let mut waiting = None;
        while let Some(Request::Addresses(what, reply)) = requests.recv().await {
            if matches!(what, AddressRequest::Allocate { .. }) {
                waiting = Some(reply);
                let turns = turns.clone();
                detaching = Some(tokio::spawn(
                    async move { drop(turns.take_off("c1").await) },
                ));
                continue;
            }
            if let (AddressRequest::Withdraw { holder }, Some(waiting)) = (&what, waiting.take()) {
                let _ = waiting.send(Err(Failure::Withdrawn(holder.clone())));
            }
            let _ = reply.send(Ok(Reply::Done));
        }

        let error = attaching.await.unwrap().unwrap_err();
        assert!(error.to_string().starts_with("c1 was taken off"), "{error}");
        detaching.unwrap().await.unwrap();
    }
}
