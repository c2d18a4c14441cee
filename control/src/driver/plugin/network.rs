//! The network `weft` in Docker: made at launch, removed at the end.

use std::collections::HashMap;

use bollard::errors::Error as BollardError;
use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::ListNetworksOptions;
use ipnet::Ipv4Net;

use crate::driver::docker::Docker;
use crate::plugin::{DRIVERS, LOCAL_DRIVER, MULTICAST_OPTIONS};

/// The network that is there without anybody asking for it.
pub const DEFAULT_NETWORK: &str = "weft";

/// Has Docker make the network, unless it is there. A Docker that is not there is none of our business.
pub(super) async fn ensure(docker: &Docker, subnet: Ipv4Net) {
    let client = match docker.connect().await {
        Ok(client) => client,
        Err(error) => {
            tracing::debug!(%error, "no Docker yet");
            return;
        }
    };
    match client.inspect_network(DEFAULT_NETWORK, None).await {
        Ok(found) => match fault(&found, subnet) {
            None => return,
            Some(fault) if has_users(&found) => {
                tracing::warn!("the network {DEFAULT_NETWORK} in Docker stays as it is: {fault}");
                return;
            }
            Some(_) if found.driver.as_deref() == Some(LOCAL_DRIVER) => {
                // Ours, of an earlier run with another subnet.
                if let Err(error) = client.remove_network(DEFAULT_NETWORK).await {
                    tracing::warn!(%error, "an old network {DEFAULT_NETWORK} stays in Docker");
                    return;
                }
            }
            Some(fault) => {
                tracing::warn!("the network {DEFAULT_NETWORK} in Docker stays as it is: {fault}");
                return;
            }
        },
        Err(error) if is_absent(&error) => {}
        Err(error) => {
            tracing::warn!(%error, "cannot see whether Docker has the network {DEFAULT_NETWORK}");
            return;
        }
    }
    match client.create_network(request(subnet)).await {
        Ok(_) => tracing::info!(%subnet, "Docker has the network {DEFAULT_NETWORK}"),
        Err(error) => {
            tracing::warn!(%error, "Docker does not make the network {DEFAULT_NETWORK}");
        }
    }
}

/// Has Docker remove the network if it is ours; Docker refuses while containers use it.
pub(super) async fn remove(docker: &Docker) {
    let Ok(client) = docker.connect().await else {
        return;
    };
    let found = client.inspect_network(DEFAULT_NETWORK, None).await;
    let is_ours = found.is_ok_and(|found| found.driver.as_deref() == Some(LOCAL_DRIVER));
    if is_ours && let Err(error) = client.remove_network(DEFAULT_NETWORK).await {
        tracing::info!(%error, "the network {DEFAULT_NETWORK} stays in Docker");
    }
}

/// A network of weft's in Docker, and the containers on it by their names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkUsers {
    /// Its name.
    pub network: String,
    /// Theirs.
    pub containers: Vec<String>,
}

/// The networks that Docker has of weft's drivers; none if Docker does not answer.
pub async fn networks_in_use(docker: &Docker) -> Vec<NetworkUsers> {
    let Ok(client) = docker.connect().await else {
        return Vec::new();
    };
    let drivers = DRIVERS.map(|(driver, _)| driver.to_owned()).to_vec();
    let options = ListNetworksOptions {
        filters: Some(HashMap::from([("driver".to_owned(), drivers)])),
    };
    let listed = client.list_networks(Some(options)).await;
    let mut found = Vec::new();
    for name in listed.into_iter().flatten().filter_map(|one| one.name) {
        // The list does not say who is on them.
        let users = client.inspect_network(&name, None).await;
        let users = users.ok().and_then(|network| network.containers);
        let users = users.into_iter().flatten();
        let mut containers: Vec<_> = users.filter_map(|(_, user)| user.name).collect();
        containers.sort();
        found.push(NetworkUsers {
            network: name,
            containers,
        });
    }
    found.sort_by(|one, other| one.network.cmp(&other.network));
    found
}

/// What of a network is not as it would be made.
fn fault(found: &NetworkInspect, subnet: Ipv4Net) -> Option<String> {
    let driver = found.driver.as_deref().unwrap_or_default();
    if driver != LOCAL_DRIVER {
        return Some(format!("its driver is {driver:?}"));
    }
    let pools = found.ipam.as_ref().and_then(|ipam| ipam.config.as_ref());
    let first = pools.and_then(|pools| pools.first());
    let current = first.and_then(|pool| pool.subnet.as_deref());
    (current != Some(&subnet.to_string()))
        .then(|| format!("its subnet is {}", current.unwrap_or("unknown")))
}

fn has_users(found: &NetworkInspect) -> bool {
    let users = found.containers.as_ref();
    users.is_some_and(|users| !users.is_empty())
}

fn request(subnet: Ipv4Net) -> NetworkCreateRequest {
    let pool = IpamConfig {
        subnet: Some(subnet.to_string()),
        ..IpamConfig::default()
    };
    let ipam = Ipam {
        driver: Some(LOCAL_DRIVER.to_owned()),
        config: Some(vec![pool]),
        options: None,
    };
    let multicast = MULTICAST_OPTIONS.map(|option| (option.to_owned(), "true".to_owned()));
    NetworkCreateRequest {
        name: DEFAULT_NETWORK.to_owned(),
        driver: Some(LOCAL_DRIVER.to_owned()),
        ipam: Some(ipam),
        options: Some(HashMap::from_iter(multicast.into_iter().take(1))),
        ..NetworkCreateRequest::default()
    }
}

fn is_absent(error: &BollardError) -> bool {
    matches!(error, BollardError::DockerResponseServerError { status_code, .. } if *status_code == 404)
}
