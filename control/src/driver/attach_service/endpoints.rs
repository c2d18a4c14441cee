//! What Docker's plugin asks of the host: addresses whose container is not known yet, pairs, and their adoption.
//!
//! ```text
//!  RequestAddress ─► holder `docker:…`, its address ─► CreateEndpoint, Join ─► Docker starts the container
//!  the container runs ─► adopt: settings, its names, and its id for what the holder has
//! ```
//!
//! The pair's alias names the holder, so a pair keeps its address, and addresses without a pair are freed as those of
//! dead containers. It names endpoint or container, too, so that these are known after a restart without Docker.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use ipnet::IpNet;

use super::{HostAttacher, Shared, reply};
use crate::api::{ApiError, AttachReply, Attachment};
use crate::driver::address::AddressArgument;
use crate::driver::allocator::AllocateError;
use crate::driver::attach::{AttachError, Endpoint};
use crate::driver::client::Client;
use crate::driver::complaint::in_one_line;
use crate::driver::container::{ContainerError, ContainerRef, shown_id};
use crate::driver::dns::guest::Guest;
use crate::driver::docker::DockerError;
use crate::driver::identity::is_endpoint;
use crate::driver::netns::NetNs;
use crate::driver::request::{Changed, Effect};
use crate::ipam::REQUEST_TIMEOUT;
use crate::ipam::request::Failure;

/// How the holders begin of addresses that Docker asks for.
const HOLDER_PREFIX: &str = "docker:";
/// Longest wait for an address: the machine that gives them has said before why there is none, unless the disk keeps it
/// from that. Docker gives up after 30 s, and its user should learn why.
const ADDRESS_TIMEOUT: Duration = REQUEST_TIMEOUT.saturating_add(Duration::from_secs(10));

/// Interfaces of Docker's that are known before those that are gone are looked for; Docker tells of most ends itself.
const KNOWN_MAX: usize = 4096;

/// What was removed with an endpoint.
pub(in crate::driver) struct Removed {
    /// Who has its address.
    pub(in crate::driver) holder: String,
    /// The container that it was in as it is shown, if that was adopted.
    pub(in crate::driver) container: Option<String>,
}

/// The holder of what Docker asks for; `mark` tells it from the others.
pub(in crate::driver) fn docker_holder(mark: &str) -> String {
    format!("{HOLDER_PREFIX}{mark}")
}

impl HostAttacher {
    /// Gets addresses for a holder of Docker's. One that another such holder is noted for, and that is `forgotten`
    /// by Docker and on no interface, is taken over.
    pub(in crate::driver) async fn give(
        &self,
        holder: &str,
        wanted: AddressArgument,
        forgotten: impl Fn(IpAddr) -> bool,
    ) -> Result<Vec<IpNet>, ApiError> {
        let shared = &self.shared;
        shared.survey().await?;
        let first = self.give_in_time(holder, wanted).await;
        let Err(AllocateError::Refused(Failure::Held {
            address,
            holder: old,
        })) = &first
        else {
            return first.map_err(|error| shared.refusal(error));
        };
        let is_in_use = !old.starts_with(HOLDER_PREFIX)
            || !forgotten(*address)
            || self
                .is_on_an_interface(old)
                .await
                .map_err(|error| in_one_line(&error))?;
        if is_in_use {
            return first.map_err(|error| shared.refusal(error));
        }
        let address = IpNet::from(*address);
        shared.allocator.release(old, &[address]).await;
        let second = self.give_in_time(holder, wanted).await;
        second.map_err(|error| shared.refusal(error))
    }

    async fn give_in_time(
        &self,
        holder: &str,
        wanted: AddressArgument,
    ) -> Result<Vec<IpNet>, AllocateError> {
        let (presence, client) = Client::present();
        let turn = self.shared.turns.take(holder).await.with(client, None);
        let arguments = [wanted];
        let mut asking = std::pin::pin!(self.shared.allocator.obtain(&turn, &arguments));
        let obtained = tokio::select! {
            obtained = &mut asking => obtained,
            () = tokio::time::sleep(ADDRESS_TIMEOUT) => {
                drop(presence);
                match asking.await {
                    Err(AllocateError::Refused(Failure::Abandoned(_))) => Err(AllocateError::Slow),
                    obtained => obtained,
                }
            }
        };
        Ok(obtained?.addresses)
    }

    /// Frees addresses of a holder.
    pub(in crate::driver) async fn take_back(&self, holder: &str, addresses: &[IpNet]) {
        let _turn = self.shared.turns.take_off(holder).await;
        self.shared.allocator.release(holder, addresses).await;
    }

    /// Makes the pair for an endpoint; returns its MAC.
    pub(in crate::driver) async fn make_endpoint(
        &self,
        endpoint: &Endpoint,
    ) -> Result<[u8; 6], AttachError> {
        let Shared { host, options, .. } = &*self.shared;
        // The holder is not judged by a look that began before its pair was there.
        let _turn = self.shared.turns.take(&endpoint.holder).await;
        host.make_endpoint(endpoint, *options).await
    }

    /// The addresses that are on the interface of an attached container, whose namespace this is.
    pub(in crate::driver) async fn attached_in(
        &self,
        sandbox: &Path,
    ) -> Result<Vec<IpNet>, AttachError> {
        self.shared.host.attached_in(sandbox).await
    }

    /// Notes where Docker will put an endpoint's interface; returns what that is called.
    pub(in crate::driver) async fn lead_endpoint(
        &self,
        id: &str,
        sandbox: &Path,
    ) -> Result<String, AttachError> {
        self.shared.host.lead_endpoint(id, sandbox).await
    }

    /// Removes an endpoint's pair; says who has its address, and of which container it was.
    pub(in crate::driver) async fn remove_endpoint(
        &self,
        id: &str,
    ) -> Result<Option<Removed>, AttachError> {
        let removed = self.shared.host.remove_endpoint(id).await?;
        Ok(removed.map(|alias| {
            self.shared.known().remove(&alias.id);
            Removed {
                container: alias.shown.filter(|shown| !is_endpoint(shown)),
                holder: alias.id,
            }
        }))
    }

    /// Whether a holder of Docker's has a pair.
    pub(in crate::driver) async fn is_on_an_interface(
        &self,
        holder: &str,
    ) -> Result<bool, AttachError> {
        let holders = self.shared.host.holders().await?;
        Ok(holders.contains_key(holder))
    }

    /// The addresses that a holder has.
    pub(in crate::driver) async fn addresses_of(&self, holder: &str) -> Vec<IpNet> {
        let everything = [AddressArgument::DefaultSubnet];
        let found = self.shared.allocator.find(holder, &everything, None).await;
        found.unwrap_or_default()
    }

    /// What Docker's containers route to for names, if there are any.
    pub(in crate::driver) fn dns_server(&self) -> Option<std::net::Ipv4Addr> {
        self.shared.guest.as_ref().map(Guest::server)
    }
}

impl Shared {
    pub(super) fn known(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // Nothing in here panics half way.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a user knows a holder by.
    fn known_as(&self, holder: &str) -> String {
        let known = self.known().get(holder).cloned();
        known.unwrap_or_else(|| shown_id(holder).to_owned())
    }

    /// Why there is no address, with whoever has it as users know it.
    pub(super) fn refusal(&self, mut error: AllocateError) -> ApiError {
        if let AllocateError::Refused(failure) = &mut error
            && let Some(holder) = failure.holder_mut()
        {
            *holder = self.known_as(holder);
        }
        in_one_line(&error)
    }

    /// What is attached, by the holders of the addresses; the host's own line comes first.
    pub(super) async fn list_by_holder(&self) -> Result<Vec<Attachment>, ApiError> {
        let own = self.own_line().await.map_err(|error| in_one_line(&error))?;
        let others = self.host.list().await;
        let others = others.map_err(|error| in_one_line(&error))?;
        Ok(own.into_iter().chain(others).collect())
    }

    /// What users know in place of the holders of what came through Docker's plugin.
    pub(super) fn as_shown(&self, listed: Vec<(Attachment, Option<String>)>) -> Vec<Attachment> {
        let mut known = self.known();
        // A list may be older than what is known, so what it does not have is not forgotten at once.
        if known.len() > KNOWN_MAX {
            known.retain(|holder, _| listed.iter().any(|(line, _)| line.id == *holder));
        }
        let shown = listed.into_iter().map(|(mut line, shown)| {
            if let Some(shown) = shown {
                let entry = known.entry(line.id).or_insert_with(|| shown.clone());
                if is_endpoint(entry) {
                    *entry = shown;
                }
                line.id = entry.clone();
            }
            line
        });
        let mut shown: Vec<_> = shown.collect();
        shown.sort_by(|a, b| a.id.cmp(&b.id));
        shown
    }

    /// Finishes what Docker has put into a running container.
    pub(super) async fn adopt(&self, name: &str) -> Result<Changed, ApiError> {
        let found = match self.docker.find(name).await {
            // Gone again, or none of ours for sure.
            Err(
                DockerError::NotRunning { .. }
                | DockerError::Unknown { .. }
                | DockerError::HostNetwork { .. },
            ) => return Ok(Changed::default()),
            found => found.map_err(|error| in_one_line(&error))?,
        };
        let Ok(netns) = NetNs::from_pid(found.pid) else {
            return Ok(Changed::default());
        };
        let settled = self.host.settle_endpoints(&netns, &found.id).await;
        let settled = settled.map_err(|error| in_one_line(&error))?;
        if settled.is_empty() {
            return Ok(Changed::default());
        }
        let container = ContainerRef::Docker(found.id.clone())
            .resolve(self.host.netns(), &self.docker)
            .await;
        let container = match container {
            Err(ContainerError::Docker(_) | ContainerError::NoDocker { .. }) => {
                return Ok(Changed::default());
            }
            container => container.map_err(|error| in_one_line(&error))?,
        };
        let mut addresses = Vec::new();
        let mut is_new = false;
        {
            let mut known = self.known();
            for part in settled {
                let shown = container.shown();
                let before = known.insert(part.holder, shown.to_owned());
                is_new |= before.is_none_or(|before| before != shown);
                addresses.extend(part.addresses);
            }
        }
        let mut names = match &self.guest {
            Some(guest) => guest.names(&container, &[]).unwrap_or_default(),
            None => Vec::new(),
        };
        let mut others = self.names_in_docker(&container.id, &found.other_names, is_new);
        others.retain(|name| !names.contains(name));
        names.extend(others);
        tracing::info!(container = container.shown(), ?addresses, ?names, "adopted");
        let reply: AttachReply = reply(&container, &addresses, names);
        // The list that follows has its MACs.
        let effect = Effect::Nothing;
        Ok(Changed { reply, effect })
    }

    /// Names a container for what Docker has for it on a network, before its program begins: that may ask for its own
    /// name with its first instruction. What it calls itself is known when it runs.
    pub(super) async fn expect(&self, network: &str, id: &str) -> Result<Changed, ApiError> {
        let place = self.docker.place(network, id).await;
        let Some(place) = place.map_err(|error| in_one_line(&error))? else {
            return Ok(Changed::default());
        };
        let holder = self.host.own_endpoint(&place.endpoint, id).await;
        let Some(holder) = holder.map_err(|error| in_one_line(&error))? else {
            return Ok(Changed::default());
        };
        let shown = shown_id(id);
        let before = self.known().insert(holder, shown.to_owned());
        let is_new = before.is_none_or(|before| before != shown);
        let reply = AttachReply {
            addresses: vec![place.address.addr()],
            id: shown.to_owned(),
            names: self.names_in_docker(id, &place.names, is_new),
            ..AttachReply::default()
        };
        let effect = Effect::Nothing;
        Ok(Changed { reply, effect })
    }

    /// What Docker and its networks call a container, as names of our domain; says of a new one what can be none.
    fn names_in_docker(&self, id: &str, called: &[String], is_new: bool) -> Vec<String> {
        let Some(guest) = &self.guest else {
            return Vec::new();
        };
        let mut names = Vec::new();
        for other in called {
            match guest.name_of_container(other) {
                Ok(name) if names.contains(&name) => {}
                Ok(name) => names.push(name),
                Err(error) if is_new => {
                    tracing::warn!(container = shown_id(id), %error, "a name that DNS does not answer for");
                }
                Err(_) => {}
            }
        }
        names
    }
}
