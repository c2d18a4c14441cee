//! Answers the API's attach, detach and ps: reads what was typed, finds the container, and has it done.

mod absent;
pub(super) mod endpoints;
mod host;
mod rest;
mod unnamed;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex as StdMutex, OnceLock};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net};
use tokio::sync::{Mutex, OnceCell};

use super::address::{AddressArgument, meant_of, read_arguments};
use super::allocator::{AllocateError, Allocator};
use super::attach::watch::AttachmentWatch;
use super::attach::{AttachError, AttachOptions, Attached, Detached, Host, mac_text};
use super::bridge::{self, BridgeError};
use super::client::Client;
use super::complaint::in_one_line;
use super::container::{Container, ContainerRef};
use super::dns::desk;
use super::dns::guest::{Called, FileWishes, Guest};
use super::dns::parked::Parked;
use super::docker::Docker;
use super::expose::Exposure;
use super::host_routes::overlaps;
use super::request::{Attacher, BoxFuture, Changed, Effect};
use super::turns::{Turn, Turns};
use super::underlay::local_addresses;
use crate::api::{ApiError, AttachReply, AttachRequest, Attachment, ExposeRequest};
use crate::dns::names::Entry;
use crate::dns::registry::EXPOSE as EXPOSED;
use crate::ipam::HOST;
use crate::ipam::request::Failure;

/// Between two looks at which containers exist; a dead one's addresses are kept for 30 s all the same.
const WATCH_PAUSE: Duration = Duration::from_secs(5);

/// Attaches containers of this host.
#[derive(Debug, Clone)]
pub struct HostAttacher {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    host: Host,
    docker: Docker,
    options: AttachOptions,
    /// What containers get for DNS, unless it is off.
    guest: Option<Guest>,
    /// What waits for DNS, if it is off.
    parked: Option<Parked>,
    /// Begins when somebody first asks for changes.
    watch: OnceLock<AttachmentWatch>,
    allocator: Allocator,
    default_subnet: Option<Ipv4Net>,
    exposure: Exposure,
    turns: Turns,
    /// One look at what exists at a time.
    looking: Mutex<()>,
    /// Nothing is given before the addresses in use are known.
    surveyed: OnceCell<()>,
    /// What users know the holders by of addresses that came through Docker's plugin: container or endpoint.
    known: StdMutex<BTreeMap<String, String>>,
}

impl HostAttacher {
    /// `options` hold for every container, except that each request says whether it wants the multicast route and
    /// DNS. Without DNS there is no guest, only what is parked of the last one's.
    /// Addresses that are not given come from `allocator`, of `default_subnet` unless a subnet is named.
    pub fn new(
        host: Host,
        docker: Docker,
        options: AttachOptions,
        guest: Result<Guest, Parked>,
        allocator: Allocator,
        default_subnet: Option<Ipv4Net>,
    ) -> Self {
        let (guest, parked) = match guest {
            Ok(guest) => (Some(guest), None),
            Err(parked) => (None, Some(parked)),
        };
        let exposure = Exposure::new(host.netns().clone(), host.bridge(), host.docker_bridge());
        Self {
            shared: Arc::new(Shared {
                exposure,
                host,
                docker,
                options,
                guest,
                parked,
                watch: OnceLock::new(),
                allocator,
                default_subnet,
                turns: Turns::default(),
                looking: Mutex::new(()),
                surveyed: OnceCell::new(),
                known: StdMutex::default(),
            }),
        }
    }

    /// Tells the allocator which containers exist, now and again, so that the addresses of dead ones are freed.
    /// A listing that fails says nothing.
    /// Rules for exposed subnets are put back if they are gone.
    pub async fn watch(self) {
        tokio::join!(self.shared.exposure.watch(), self.watch_containers());
    }

    async fn watch_containers(&self) {
        if let Err(error) = self.shared.survey().await {
            tracing::debug!(error = error.error, "cannot see which containers exist");
        }
        loop {
            tokio::time::sleep(WATCH_PAUSE).await;
            if let Err(error) = self.shared.tell_what_exists().await {
                match error {
                    ListError::Allocator(AllocateError::Off | AllocateError::Stopping) => return,
                    ListError::Host(_) | ListError::Bridge(_) | ListError::Allocator(_) => {
                        tracing::debug!(%error, "cannot see which containers exist");
                    }
                }
            }
        }
    }
}

impl Attacher for HostAttacher {
    fn attach(
        &self,
        request: AttachRequest,
        client: Client,
    ) -> BoxFuture<Result<Changed, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.attach(&request, client).await })
    }

    fn detach(&self, request: AttachRequest) -> BoxFuture<Result<Changed, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.detach(&request).await })
    }

    fn expose(
        &self,
        request: ExposeRequest,
        client: Client,
    ) -> BoxFuture<Result<Changed, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.expose(&request, client).await })
    }

    fn hide(&self, request: ExposeRequest) -> BoxFuture<Result<Changed, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.hide(&request).await })
    }

    fn list(&self) -> BoxFuture<Result<Vec<Attachment>, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.list().await.map_err(|error| in_one_line(&error)) })
    }

    fn list_by_holder(&self) -> BoxFuture<Result<Vec<Attachment>, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.list_by_holder().await })
    }

    fn describe(&self, container: String) -> BoxFuture<Result<AttachReply, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.describe(container).await })
    }

    fn adopt(&self, container: String) -> BoxFuture<Result<Changed, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.adopt(&container).await })
    }

    fn expect(&self, network: String, container: String) -> BoxFuture<Result<Changed, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.expect(&network, &container).await })
    }

    fn forget(&self, containers: BTreeSet<Arc<str>>, also_living: bool) -> BoxFuture<()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            if also_living {
                shared.forget_living(&containers).await;
            }
            if let Some(guest) = &shared.guest {
                guest.sweep();
            }
        })
    }

    fn unname(&self, removed: Vec<Entry>) -> BoxFuture<()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            if let Some(guest) = &shared.guest {
                guest.unname(&removed);
            }
        })
    }

    fn changed(&self) -> BoxFuture<()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let watch = shared
                .watch
                .get_or_init(|| AttachmentWatch::start(shared.host.netns().clone()));
            watch.changed().await;
        })
    }
}

/// Why it is not known what exists.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error(transparent)]
    Host(#[from] AttachError),
    #[error(transparent)]
    Bridge(#[from] BridgeError),
    #[error(transparent)]
    Allocator(#[from] AllocateError),
}

impl Shared {
    async fn first_look(&self) -> Result<(), ListError> {
        self.finish_detaching().await?;
        self.tell_what_exists().await
    }

    async fn tell_what_exists(&self) -> Result<(), ListError> {
        let _alone = self.looking.lock().await;
        let look = self.turns.look();
        let mut holders = self.host.holders().await?;
        if let Some(own) = self.own_line().await? {
            holders.insert(own.id, Some(own.addresses));
        }
        let own = local_addresses(self.host.bridge()).into_iter();
        holders.insert(HOST.to_owned(), Some(own.map(IpNet::from).collect()));
        Ok(self.allocator.present(holders, look).await?)
    }

    async fn attach(&self, request: &AttachRequest, client: Client) -> Result<Changed, ApiError> {
        let wishes = FileWishes::read(request)?;
        let (container, arguments) = self.read(request).await?;
        let names = match &self.guest {
            Some(guest) => guest.names(&container, &request.names)?,
            None => Vec::new(),
        };
        let guest = self.guest.as_ref().filter(|_| !request.without_dns);
        self.survey().await?;
        let turn = self.turn_of(&container.id, &client).await?;
        let turn = turn.with(client, Some(container.clone()));
        let obtained = self.allocator.obtain(&turn, &arguments).await;
        let obtained = obtained.map_err(|error| self.refusal(error))?;
        let addresses = obtained.addresses.clone();
        // Before the last sign of being attached, which the container's program may wait for.
        let hosts_note = write_hosts(&container, request, &addresses);
        let options = AttachOptions {
            multicast_route: request.multicast_route,
            dns: guest.map(Guest::server),
            ..self.options
        };
        let attached = match self.host.attach(&container, &addresses, options).await {
            Ok(attached) => attached,
            Err(error) => {
                self.allocator.give_back(&container.id, &obtained).await;
                return Err(in_one_line(&error));
            }
        };
        let notes = self.write_files(
            &container,
            &wishes,
            Called {
                names: &names,
                addresses: &addresses,
                present: &attached.addresses,
            },
        );
        let unnamed = self.why_unnamed(request);
        let bad_name = self.why_without_own_name(&container, request);
        let names = guest.map_or_else(Vec::new, |_| names);
        let mac = mac_text(attached.mac);
        tracing::info!(container = container.shown(), mac, addresses = ?attached.addresses, "attached");
        let mut reply = reply(&container, &addresses, names);
        let overlaps = overlaps(&arguments, self.host.bridge(), container.shown());
        let beside = self
            .beside_docker(&container, &request.container, &addresses)
            .await;
        reply.warnings = [overlaps, beside, hosts_note, notes, unnamed, bad_name].concat();
        let effect = is_on(&container, attached);
        Ok(Changed { reply, effect })
    }

    /// Says which of the container's files are not as they were wished for.
    fn write_files(
        &self,
        container: &Container,
        wishes: &FileWishes,
        called: Called<'_>,
    ) -> Vec<String> {
        let notes = match &self.guest {
            Some(guest) => guest.write_files(container, called, wishes),
            None if wishes.are_asked_of(container) => {
                vec![format!("no files: {}", desk::is_off().error)]
            }
            None => Vec::new(),
        };
        for note in &notes {
            tracing::warn!(container = container.shown(), note, "files of a container");
        }
        notes
    }

    /// Waits for the owner's turn, as long as the client does.
    async fn turn_of(&self, owner: &str, client: &Client) -> Result<Turn, ApiError> {
        tokio::select! {
            turn = self.turns.take(owner) => Ok(turn),
            () = client.gone() => Err(self.refusal(Failure::Abandoned(owner.to_owned()).into())),
        }
    }

    async fn detach(&self, request: &AttachRequest) -> Result<Changed, ApiError> {
        let (container, arguments) = self.read(request).await?;
        let _turn = self.turns.take_off(&container.id).await;
        let addresses = self.meant(&container, &arguments).await?;
        let mut reply = reply(&container, &addresses, Vec::new());
        if addresses.is_empty() {
            reply.warnings = self.of_docker(&container, &request.container, None).await;
            let effect = Effect::Nothing;
            return Ok(Changed { reply, effect });
        }
        let Detached { left, absent } = self
            .host
            .detach(&container, &addresses)
            .await
            .map_err(|error| in_one_line(&error))?;
        let typed = &request.container;
        reply.warnings = self.why_absent(&container, typed, &absent).await;
        // Off the interface first, free only then.
        let still = left.iter().flat_map(|left| &left.addresses);
        let off = off_the_wire(&addresses, still);
        let unwritten = self.allocator.release(&container.id, &off).await;
        reply.warnings.extend(unwritten);
        let left = left.filter(|left| !left.addresses.is_empty());
        let remaining = left.as_ref().map_or(0, |left| left.addresses.len());
        match &left {
            Some(left) => self.keep_files(&container, &left.addresses),
            None => reply.warnings.extend(self.remove_rest(&container).await),
        }
        tracing::info!(
            container = container.shown(),
            ?addresses,
            remaining,
            "detached"
        );
        let effect = left.map_or(Effect::Off, |left| is_on(&container, left));
        Ok(Changed { reply, effect })
    }

    /// The addresses that are to be taken off.
    async fn meant(
        &self,
        container: &Container,
        arguments: &[AddressArgument],
    ) -> Result<Vec<IpNet>, ApiError> {
        if !self.allocator.is_on() {
            let holders = self.host.holders().await;
            let mut holders = holders.map_err(|error| in_one_line(&error))?;
            let present = holders.remove(&container.id).flatten();
            return Ok(meant_of(&present.unwrap_or_default(), arguments));
        }
        let found = self
            .allocator
            .find(&container.id, arguments, self.default_subnet);
        found.await.map_err(|error| in_one_line(&error))
    }

    async fn describe(&self, container: String) -> Result<AttachReply, ApiError> {
        let container = self.find(&container).await?;
        let names = match &self.guest {
            Some(guest) => guest.names(&container, &[])?,
            None => Vec::new(),
        };
        let listed = self.list().await.map_err(|error| in_one_line(&error))?;
        let own = listed.iter().filter(|line| line.id == container.shown());
        let addresses: Vec<IpNet> = own.flat_map(|line| line.addresses.clone()).collect();
        Ok(reply(&container, &addresses, names))
    }

    async fn find(&self, container: &str) -> Result<Container, ApiError> {
        let named: ContainerRef = container.parse().map_err(|error| in_one_line(&error))?;
        let found = named.resolve(self.host.netns(), &self.docker).await;
        let found = found.map_err(|error| in_one_line(&error))?;
        let known = self.host.known(found).await;
        known.map_err(|error| in_one_line(&error))
    }

    /// Nothing is given before the addresses in use are known.
    async fn survey(&self) -> Result<(), ApiError> {
        if self.default_subnet.is_some() {
            let survey = self.surveyed.get_or_try_init(|| self.first_look());
            survey.await.map_err(|error| in_one_line(&error))?;
        }
        Ok(())
    }

    async fn read(
        &self,
        request: &AttachRequest,
    ) -> Result<(Container, Vec<AddressArgument>), ApiError> {
        let arguments = read_arguments(&request.addresses).map_err(|error| in_one_line(&error))?;
        let container = self.find(&request.container).await?;
        Ok((container, arguments))
    }

    /// The host's own line comes first, with or without addresses.
    async fn list(&self) -> Result<Vec<Attachment>, AttachError> {
        let mut listed = Vec::from_iter(self.own_line().await?);
        listed.extend(self.as_shown(self.host.list_as_shown().await?));
        Ok(listed)
    }

    async fn own_line(&self) -> Result<Option<Attachment>, BridgeError> {
        let found = bridge::exposed(self.host.netns(), self.host.bridge()).await?;
        Ok(found.map(|(mac, addresses)| Attachment {
            id: EXPOSED.to_owned(),
            mac: mac_text(mac),
            addresses,
        }))
    }
}

/// Lets the container's own name mean its addresses in the file that Docker keeps; says what went wrong.
fn write_hosts(container: &Container, request: &AttachRequest, addresses: &[IpNet]) -> Vec<String> {
    let Some(hosts) = &container.hosts else {
        return Vec::new();
    };
    if request.files.rewrite_hosts != Some(true) {
        return Vec::new();
    }
    let written = hosts.add(addresses.iter().map(IpNet::addr));
    let note = written.err().map(|error| {
        let line = format!("{} is not written: {error}", hosts.path.display());
        tracing::warn!(
            container = container.shown(),
            line,
            "hosts file of a container"
        );
        line
    });
    Vec::from_iter(note)
}

/// Those that may be free now: none whose number is left on the interface with another prefix.
fn off_the_wire<'a>(taken: &[IpNet], left: impl Iterator<Item = &'a IpNet>) -> Vec<IpNet> {
    let left: BTreeSet<IpAddr> = left.map(IpNet::addr).collect();
    let off = taken
        .iter()
        .filter(|address| !left.contains(&address.addr()));
    off.copied().collect()
}

fn is_on(container: &Container, attached: Attached) -> Effect {
    Effect::On(Attachment {
        id: container.shown().to_owned(),
        mac: mac_text(attached.mac),
        addresses: attached.addresses,
    })
}

fn reply(container: &Container, addresses: &[IpNet], names: Vec<String>) -> AttachReply {
    let addresses: Vec<IpAddr> = addresses.iter().map(IpNet::addr).collect();
    AttachReply {
        addresses,
        id: container.shown().to_owned(),
        names,
        ..AttachReply::default()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::api::ContainerFiles;
    use crate::driver::attach::Host;
    use crate::driver::netlink::GsoLimits;
    use crate::driver::netns::NetNs;

    fn attacher() -> HostAttacher {
        let gso = GsoLimits::default();
        let options = AttachOptions {
            mtu: 1376,
            multicast_route: true,
            hairpin: true,
            gso,
            dns: None,
        };
        let docker = Docker::new(Some("unix:///nowhere/docker.sock")).unwrap();
        HostAttacher::new(
            Host::new(NetNs::current().unwrap(), "weft", [2; 6]),
            docker,
            options,
            Err(Parked::below(Path::new("/nowhere"))),
            Allocator::new(None),
            None,
        )
    }

    #[test]
    fn a_name_that_is_not_given_is_told() {
        let mut request = AttachRequest {
            container: "c1".to_owned(),
            addresses: Vec::new(),
            multicast_route: true,
            names: vec!["web".to_owned(), "db".to_owned()],
            without_dns: false,
            files: ContainerFiles::default(),
        };
        let said = attacher().shared.why_unnamed(&request);
        let why = "not named web, db: DNS is off on this host: it was launched with --no-dns";
        assert_eq!(said, [why]);
        request.names.clear();
        assert_eq!(attacher().shared.why_unnamed(&request), [""; 0]);
    }

    #[tokio::test]
    async fn what_was_typed_wrong_is_answered_in_one_line() {
        let table = [
            ("a b", "10.2.1.1/24", r#""a b" names no container: "#),
            (
                "netns:c1",
                "10.2.1.0/24",
                "10.2.1.0/24 is the address of the network itself: ",
            ),
            (
                "netns:no-such-name",
                "10.2.1.1/24",
                "open network namespace /run/netns/no-such-name: No such file",
            ),
            ("pid:4194305", "10.2.1.1/24", "no process 4194305"),
            (
                "c1",
                "10.2.1.1/24",
                "Docker at unix:///nowhere/docker.sock does not answer (its socket is not there), so no container \"c1\" is \
                 found: start Docker, or name a namespace by netns:NAME, netns:/path or pid:N",
            ),
        ];
        for (container, address, beginning) in table {
            let request = AttachRequest {
                container: container.to_owned(),
                addresses: vec![address.to_owned()],
                multicast_route: true,
                names: Vec::new(),
                without_dns: false,
                files: ContainerFiles::default(),
            };
            let (_presence, client) = Client::present();
            for answer in [
                attacher().attach(request.clone(), client).await,
                attacher().detach(request).await,
            ] {
                let line = answer.unwrap_err().error;
                assert!(
                    line.starts_with(beginning) && !line.contains('\n'),
                    "{line}"
                );
            }
        }
    }
}
