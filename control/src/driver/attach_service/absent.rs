//! Why `detach` leaves an address where it is: nobody has attached it, or Docker's plugin has, for a network of Docker's.

use std::net::IpAddr;

use ipnet::IpNet;

use super::Shared;
use crate::driver::container::Container;

impl Shared {
    /// Says of addresses why they are not taken off.
    pub(super) async fn why_absent(
        &self,
        container: &Container,
        typed: &str,
        absent: &[IpNet],
    ) -> Vec<String> {
        if absent.is_empty() {
            return Vec::new();
        }
        let mut told = Vec::new();
        for address in absent {
            let of_docker = self.of_docker(container, typed, Some(address.addr())).await;
            let nowhere = || vec![format!("{address} was not attached to {typed}")];
            told.extend(if of_docker.is_empty() {
                nowhere()
            } else {
                of_docker
            });
        }
        told
    }

    /// The addresses that a container has by networks of Docker's.
    async fn by_docker(&self, container: &Container) -> Vec<IpNet> {
        let mut listed = self.host.list_as_shown().await.unwrap_or_default();
        listed.retain(|(_, shown)| shown.is_some());
        let theirs = self.as_shown(listed).into_iter();
        let theirs = theirs.filter(|line| line.id == container.shown());
        theirs.flat_map(|line| line.addresses).collect()
    }

    /// Says which of a container's addresses by networks of Docker's are of the subnets that it is attached with now: it
    /// sends to either by one of its two interfaces.
    pub(super) async fn beside_docker(
        &self,
        container: &Container,
        typed: &str,
        attached: &[IpNet],
    ) -> Vec<String> {
        // Most have none, and a look at all interfaces takes its time.
        if !self.known().values().any(|id| id == container.shown()) {
            return Vec::new();
        }
        let theirs = self.by_docker(container).await.into_iter();
        let overlaps = |one: &IpNet, other: &IpNet| {
            one.contains(&other.network()) || other.contains(&one.network())
        };
        let both =
            theirs.filter_map(|had| Some((had, attached.iter().find(|new| overlaps(&had, new))?)));
        both.map(|(had, new)| {
            format!(
                "{typed} has {had} by a network of Docker's, in the same subnet as {new} on an interface of its own: `weft detach {typed}` takes that off again"
            )
        })
        .collect()
    }

    /// Says how addresses go, this one or all, that a container has by a network of Docker's.
    pub(super) async fn of_docker(
        &self,
        container: &Container,
        typed: &str,
        wanted: Option<IpAddr>,
    ) -> Vec<String> {
        let addresses = self.by_docker(container).await.into_iter();
        let addresses = addresses.filter(|had| wanted.is_none_or(|wanted| had.addr() == wanted));
        let mut told = Vec::new();
        for address in addresses.collect::<Vec<_>>() {
            let network = self.docker.network_of(&container.id, address.addr()).await;
            let network = network.as_deref().unwrap_or("NETWORK");
            told.push(format!(
                "{address} is of a network of Docker's: `docker network disconnect {network} {typed}` takes it off"
            ));
        }
        told
    }
}
