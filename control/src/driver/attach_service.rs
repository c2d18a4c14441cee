//! Answers the API's attach, detach and ps: reads what was typed, finds the container, and has it done.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use ipnet::IpNet;

use super::address::explicit_addresses;
use super::attach::watch::AttachmentWatch;
use super::attach::{AttachError, AttachOptions, Host, mac_text};
use super::bridge;
use super::container::{Container, ContainerRef};
use super::dns::guest::Guest;
use super::docker::Docker;
use super::request::{Attacher, BoxFuture};
use crate::api::{ApiError, AttachReply, AttachRequest, Attachment};

/// The id of the host itself in `ps`.
const EXPOSED: &str = "weave:expose";

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
    /// Begins when somebody first asks for changes.
    watch: OnceLock<AttachmentWatch>,
}

impl HostAttacher {
    /// `options` hold for every container, except that each request says whether it wants the multicast route and DNS.
    pub fn new(host: Host, docker: Docker, options: AttachOptions, guest: Option<Guest>) -> Self {
        Self {
            shared: Arc::new(Shared {
                host,
                docker,
                options,
                guest,
                watch: OnceLock::new(),
            }),
        }
    }
}

impl Attacher for HostAttacher {
    fn attach(&self, request: AttachRequest) -> BoxFuture<Result<AttachReply, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.attach(&request).await })
    }

    fn detach(&self, request: AttachRequest) -> BoxFuture<Result<AttachReply, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.detach(&request).await })
    }

    fn list(&self) -> BoxFuture<Result<Vec<Attachment>, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.list().await.map_err(|error| in_one_line(&error)) })
    }

    fn describe(&self, container: String) -> BoxFuture<Result<AttachReply, ApiError>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { shared.describe(container).await })
    }

    fn forget(&self, containers: BTreeSet<Arc<str>>, also_living: bool) -> BoxFuture<()> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            if let Some(guest) = &shared.guest {
                for id in &containers {
                    guest.forget(id, also_living);
                }
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

impl Shared {
    async fn attach(&self, request: &AttachRequest) -> Result<AttachReply, ApiError> {
        let (container, addresses) = self.read(request).await?;
        let guest = self.guest.as_ref().filter(|_| !request.without_dns);
        let names = match guest {
            Some(guest) => guest.names(&container, &request.names)?,
            None => Vec::new(),
        };
        let options = AttachOptions {
            multicast_route: request.multicast_route,
            dns: guest.map(Guest::server),
            ..self.options
        };
        let attached = self
            .host
            .attach(&container, &addresses, options)
            .await
            .map_err(|error| in_one_line(&error))?;
        if let Some(guest) = guest {
            guest.write_files(&container, &names, &attached.addresses);
        }
        let mac = mac_text(attached.mac);
        tracing::info!(container = container.shown(), mac, addresses = ?attached.addresses, "attached");
        Ok(reply(&container, &addresses, names))
    }

    async fn detach(&self, request: &AttachRequest) -> Result<AttachReply, ApiError> {
        let (container, addresses) = self.read(request).await?;
        let left = self
            .host
            .detach(&container, &addresses)
            .await
            .map_err(|error| in_one_line(&error))?;
        let remaining = left.map_or(0, |left| left.addresses.len());
        if let Some(guest) = self.guest.as_ref().filter(|_| remaining == 0) {
            guest.remove_files(&container);
        }
        tracing::info!(
            container = container.shown(),
            ?addresses,
            remaining,
            "detached"
        );
        Ok(reply(&container, &addresses, Vec::new()))
    }

    async fn describe(&self, container: String) -> Result<AttachReply, ApiError> {
        let container = self.find(&container).await?;
        let names = match &self.guest {
            Some(guest) => guest.names(&container, &[])?,
            None => Vec::new(),
        };
        let listed = self
            .host
            .list()
            .await
            .map_err(|error| in_one_line(&error))?;
        let own = listed.iter().filter(|line| line.id == container.shown());
        let addresses: Vec<IpNet> = own.flat_map(|line| line.addresses.clone()).collect();
        Ok(reply(&container, &addresses, names))
    }

    async fn find(&self, container: &str) -> Result<Container, ApiError> {
        let named: ContainerRef = container.parse().map_err(|error| in_one_line(&error))?;
        let found = named.resolve(self.host.netns(), &self.docker).await;
        found.map_err(|error| in_one_line(&error))
    }

    async fn read(&self, request: &AttachRequest) -> Result<(Container, Vec<IpNet>), ApiError> {
        let named: ContainerRef = request
            .container
            .parse()
            .map_err(|error| in_one_line(&error))?;
        let addresses =
            explicit_addresses(&request.addresses).map_err(|error| in_one_line(&error))?;
        let container = named
            .resolve(self.host.netns(), &self.docker)
            .await
            .map_err(|error| in_one_line(&error))?;
        Ok((container, addresses))
    }

    /// The host's own line comes first, with or without addresses.
    async fn list(&self) -> Result<Vec<Attachment>, AttachError> {
        let mut listed = Vec::new();
        if let Some((mac, addresses)) =
            bridge::exposed(self.host.netns(), self.host.bridge()).await?
        {
            listed.push(Attachment {
                id: EXPOSED.to_owned(),
                mac: mac_text(mac),
                addresses,
            });
        }
        listed.extend(self.host.list().await?);
        Ok(listed)
    }
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

/// An error with its causes, as the one line that the user reads.
fn in_one_line(error: &dyn Error) -> ApiError {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let told = error.to_string();
        // Some libraries repeat their cause in their own text.
        if !line.contains(&told) {
            line.push_str(": ");
            line.push_str(&told);
        }
        cause = error.source();
    }
    ApiError {
        error: line.split(char::is_control).collect::<Vec<_>>().join(" "),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::driver::attach::Host;
    use crate::driver::netlink::GsoLimits;
    use crate::driver::netns::{NetNs, NetNsError};

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
            None,
        )
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
                "netns:c1",
                "net:default",
                "no address management yet for net:default: ",
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
                "cannot reach Docker at unix:///nowhere/docker.sock ",
            ),
        ];
        for (container, address, beginning) in table {
            let request = AttachRequest {
                container: container.to_owned(),
                addresses: vec![address.to_owned()],
                multicast_route: true,
                names: Vec::new(),
                without_dns: false,
            };
            for answer in [
                attacher().attach(request.clone()).await,
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

    #[test]
    fn causes_follow_in_the_same_line() {
        let error = NetNsError::Socket {
            source: io::Error::other("two\nlines"),
        };
        assert_eq!(
            in_one_line(&error).error,
            "open a netlink socket: two lines"
        );
    }
}
