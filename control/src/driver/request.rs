//! What the local API asks of the running daemon, each request with the place for its answer.
//!
//! ```text
//!  HTTP API ── mpsc::Sender<Request> ──► driver loop ──► node, engine, attacher
//!      ▲                                                        │
//!      └──────────────── oneshot answer ◄───────────────────────┘
//! ```
//!
//! An answer whose receiver is gone is dropped: the client hung up. Bound: `config::REQUESTS_MAX` waiting.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::api::{
    ApiError, AttachReply, AttachRequest, Attachment, BenchProgress, BenchRequest, ConnectRequest,
    DnsFound, DnsLookup, DnsReply, DnsRequest, DnsStatus, ExposeRequest, FindRequest,
    ForgetRequest, IpamFinding, PeerReport, PeerRequest, PingReply, Report, RouteReport, Status,
    TopologyReport,
};
use crate::dns::names::Entry;
use crate::driver::client::Client;
use crate::ipam;
use crate::peer::PeerId;
use crate::secret::Credential;

/// Where an answer goes.
pub type Reply<T> = oneshot::Sender<T>;

/// One request to the driver.
#[derive(Debug)]
pub enum Request {
    /// `GET /status`.
    Status(Reply<Status>),
    /// `GET /report`.
    Report(Reply<Report>),
    /// `GET /peers`.
    Peers(Reply<Vec<PeerReport>>),
    /// `GET /topology`.
    Topology(Reply<TopologyReport>),
    /// `POST /path`.
    Path(PeerRequest, Reply<Result<RouteReport, ApiError>>),
    /// `POST /ping`: makes a session if there is none.
    Ping(PeerRequest, Reply<Result<PingReply, ApiError>>),
    /// `POST /connect`: add targets and dial them at once; answered when the list is on disk.
    Connect(ConnectRequest, Reply<Result<(), ApiError>>),
    /// `POST /forget`: remove targets; answered when the list is on disk.
    Forget(ForgetRequest, Reply<Result<(), ApiError>>),
    /// `POST /attach`.
    Attach(AttachRequest, Reply<Result<AttachReply, ApiError>>),
    /// `POST /detach`.
    Detach(AttachRequest, Reply<Result<AttachReply, ApiError>>),
    /// `POST /expose`.
    Expose(ExposeRequest, Reply<Result<AttachReply, ApiError>>),
    /// `POST /hide`.
    Hide(ExposeRequest, Reply<Result<AttachReply, ApiError>>),
    /// A container of Docker's runs, or is called otherwise now: take up what weft's plugin gave it.
    Adopt(String, Reply<Result<AttachReply, ApiError>>),
    /// A container of Docker's has a place on a network and may not run yet; ids of network and container.
    Expect(String, String, Reply<Result<AttachReply, ApiError>>),
    /// A container left a network of Docker's: these addresses are not its own any more, nor are their names.
    Disowned(AttachReply),
    /// `POST /find`.
    Find(FindRequest, Reply<Result<AttachReply, ApiError>>),
    /// `GET /ps`.
    Ps(Reply<Result<Vec<Attachment>, ApiError>>),
    /// `GET /dns`.
    Dns(Reply<Option<DnsStatus>>),
    /// `POST /dns/add`; answered when it is on disk and answered for.
    DnsAdd(DnsRequest, Reply<Result<DnsReply, ApiError>>),
    /// `POST /dns/remove`; as [`Request::DnsAdd`].
    DnsRemove(DnsRequest, Reply<Result<DnsReply, ApiError>>),
    /// `POST /dns/lookup`.
    DnsLookup(DnsLookup, Reply<Result<DnsFound, ApiError>>),
    /// `POST /bench`: steps until the one with `done`, or one error.
    Bench(BenchRequest, mpsc::Sender<Result<BenchProgress, ApiError>>),
    /// Of the machine that gives addresses.
    Addresses(
        ipam::request::Request,
        Reply<Result<ipam::request::Reply, ipam::request::Failure>>,
    ),
    /// `GET /ipam/check`.
    CheckAddresses(Reply<Result<Option<Vec<IpamFinding>>, ApiError>>),
    /// The peers that a name can mean to `rmpeer`.
    FindOwner(String, Reply<Vec<PeerId>>),
    /// The secrets that are valid from now on (SIGHUP); none means open membership.
    Reload(Vec<Credential>, Reply<Result<(), ApiError>>),
    /// `POST /stop`: say goodbye to the peers and end the loop; state stays.
    Stop(Reply<()>),
    /// `POST /reset`: as `stop`, and the identity and the store are deleted.
    Reset(Reply<Result<(), ApiError>>),
}

/// A future that a trait object can return.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send + 'static>>;

/// What came of a change to what is attached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// For the user.
    pub reply: AttachReply,
    /// What is there now.
    pub effect: Effect,
}

/// What is there after a change; about the container that the reply names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Effect {
    /// The same as before.
    #[default]
    Nothing,
    /// This.
    On(Attachment),
    /// It is off the network.
    Off,
}

/// Puts containers on the network; the driver runs its futures beside the loop, never in it.
pub trait Attacher: Send + Sync {
    /// Attaches a container as asked and says which addresses it has. A wait for an address ends when the client
    /// goes away; no address stays then.
    fn attach(
        &self,
        request: AttachRequest,
        client: Client,
    ) -> BoxFuture<Result<Changed, ApiError>>;
    /// Detaches a container, or takes the named addresses from it.
    fn detach(&self, request: AttachRequest) -> BoxFuture<Result<Changed, ApiError>>;
    /// Puts the host itself on the network; ends as [`Attacher::attach`].
    fn expose(
        &self,
        request: ExposeRequest,
        client: Client,
    ) -> BoxFuture<Result<Changed, ApiError>>;
    /// Takes it off again.
    fn hide(&self, request: ExposeRequest) -> BoxFuture<Result<Changed, ApiError>>;
    /// Lists what is attached.
    fn list(&self) -> BoxFuture<Result<Vec<Attachment>, ApiError>>;
    /// The same, each by the name that its addresses are noted for: Docker asks for some before it says for whom.
    fn list_by_holder(&self) -> BoxFuture<Result<Vec<Attachment>, ApiError>>;
    /// Finds a container, attached or not: its shown id, its own names, and the addresses that it has.
    fn describe(&self, container: String) -> BoxFuture<Result<AttachReply, ApiError>>;
    /// Finishes what Docker has put into a running container of its own accord: settings, and who it is. Names come
    /// with the answer; a container without such an interface has no addresses in it.
    fn adopt(&self, container: String) -> BoxFuture<Result<Changed, ApiError>>;
    /// Names a container for its place on one of Docker's networks (ids), before it runs. What is none of ours has no
    /// addresses.
    fn expect(&self, network: String, container: String) -> BoxFuture<Result<Changed, ApiError>>;
    /// Removes files that were written for containers that are gone, and if `also_living` for these (shown ids).
    fn forget(&self, containers: BTreeSet<Arc<str>>, also_living: bool) -> BoxFuture<()>;
    /// Takes names that containers no longer have out of the files that were written for them.
    fn unname(&self, removed: Vec<Entry>) -> BoxFuture<()>;
    /// Waits until what is attached may have changed: an interface or an address, here or in a container.
    fn changed(&self) -> BoxFuture<()>;
}
