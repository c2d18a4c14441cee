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

    /// Says how addresses go, this one or all, that a container has by a network of Docker's.
    pub(super) async fn of_docker(
        &self,
        container: &Container,
        typed: &str,
        wanted: Option<IpAddr>,
    ) -> Vec<String> {
        let mut listed = self.host.list_as_shown().await.unwrap_or_default();
        listed.retain(|(_, shown)| shown.is_some());
        let theirs = self.as_shown(listed).into_iter();
        let theirs = theirs.filter(|line| line.id == container.shown());
        let addresses = theirs.flat_map(|line| line.addresses);
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
