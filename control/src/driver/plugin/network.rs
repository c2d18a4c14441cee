//! The network `weft` in Docker: made at launch, removed at the end.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{Ipam, IpamConfig, NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::ListNetworksOptions;
use ipnet::Ipv4Net;

use crate::driver::docker::Docker;
use crate::plugin::{DRIVERS, LOCAL_DRIVER, MULTICAST_OPTIONS};

/// The network that is there without anybody asking for it.
pub const DEFAULT_NETWORK: &str = "weft";

/// Has Docker make the network, unless it is there; says why Docker does not make it, if it is asked to. A Docker that is
/// not there is none of our business.
pub(super) async fn ensure(docker: &Docker, subnet: Ipv4Net) -> Option<String> {
    let client = match docker.connect().await {
        Ok(client) => client,
        Err(error) => {
            tracing::debug!(%error, "no Docker yet");
            return None;
        }
    };
    let found = match docker.network(DEFAULT_NETWORK).await {
        Ok(found) => found,
        Err(error) => {
            tracing::warn!(%error, "cannot see whether Docker has the network {DEFAULT_NETWORK}");
            return None;
        }
    };
    match judge(found.as_ref(), subnet) {
        Verdict::Good => return None,
        Verdict::Absent => {}
        Verdict::Outdated => {
            if let Err(error) = client.remove_network(DEFAULT_NETWORK).await {
                tracing::warn!(%error, "an old network {DEFAULT_NETWORK} stays in Docker");
                return None;
            }
        }
        verdict @ (Verdict::OfOther(_) | Verdict::InUse { .. }) => {
            let fault = verdict.fault().unwrap_or_default();
            tracing::warn!("no network {DEFAULT_NETWORK} is made beside one {fault}");
            return None;
        }
    }
    match client.create_network(request(subnet)).await {
        Ok(_) => {
            tracing::info!(%subnet, "Docker has the network {DEFAULT_NETWORK}");
            None
        }
        Err(error) => Some(error.to_string()),
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

fn of_our_drivers() -> ListNetworksOptions {
    let drivers = DRIVERS.map(|(driver, _)| driver.to_owned()).to_vec();
    ListNetworksOptions {
        filters: Some(HashMap::from([("driver".to_owned(), drivers)])),
    }
}

/// The ids of the networks that Docker has of weft's drivers; `None` if it does not say.
pub(super) async fn ids(docker: &Docker) -> Option<BTreeSet<String>> {
    let client = docker.connect().await.ok()?;
    let listed = client.list_networks(Some(of_our_drivers())).await.ok()?;
    Some(listed.into_iter().filter_map(|one| one.id).collect())
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
    let listed = client.list_networks(Some(of_our_drivers())).await;
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

/// How the network is found in Docker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::driver) enum Verdict {
    /// As it would be made.
    Good,
    /// Not at all.
    Absent,
    /// Somebody else's, of this driver.
    OfOther(String),
    /// Ours with another subnet, of an earlier run; nobody is on it.
    Outdated,
    /// The same, and somebody is on it.
    InUse {
        /// The subnet that it has.
        has: String,
        /// That which it should have.
        wanted: Ipv4Net,
    },
}

impl Verdict {
    /// What is to be said of the network, behind its name.
    pub(in crate::driver) fn fault(&self) -> Option<String> {
        match self {
            // In a moment it is another.
            Self::Good | Self::Outdated => None,
            Self::Absent => {
                Some("which Docker does not have: `weft stop`, then launch makes it".to_owned())
            }
            Self::OfOther(driver) => Some(format!(
                "which in Docker is of the driver {driver}: remove that one"
            )),
            Self::InUse { has, wanted } => Some(format!(
                "which in Docker has the subnet {has}, not {wanted}: no container starts on it until those that run on it are removed"
            )),
        }
    }
}

/// Judges what Docker has, if anything.
pub(in crate::driver) fn judge(found: Option<&NetworkInspect>, subnet: Ipv4Net) -> Verdict {
    let Some(found) = found else {
        return Verdict::Absent;
    };
    let driver = found.driver.as_deref().unwrap_or_default();
    if driver != LOCAL_DRIVER {
        return Verdict::OfOther(driver.to_owned());
    }
    let pools = found.ipam.as_ref().and_then(|ipam| ipam.config.as_ref());
    let first = pools.and_then(|pools| pools.first());
    let has = first.and_then(|pool| pool.subnet.as_deref());
    if has == Some(&subnet.to_string()) {
        return Verdict::Good;
    }
    let users = found.containers.as_ref();
    match users.is_some_and(|users| !users.is_empty()) {
        true => Verdict::InUse {
            has: has.unwrap_or("unknown").to_owned(),
            wanted: subnet,
        },
        false => Verdict::Outdated,
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_that_is_not_as_it_should_be_is_told_and_made_anew_when_it_is_free() {
        let subnet: Ipv4Net = "10.32.0.0/12".parse().unwrap();
        let found = |driver: &str, subnet: &str, users: usize| {
            let pool = IpamConfig {
                subnet: Some(subnet.to_owned()),
                ..IpamConfig::default()
            };
            let users = (0..users).map(|number| (number.to_string(), Default::default()));
            NetworkInspect {
                driver: Some(driver.to_owned()),
                ipam: Some(Ipam {
                    config: Some(vec![pool]),
                    ..Ipam::default()
                }),
                containers: Some(users.collect()),
                ..NetworkInspect::default()
            }
        };
        let of = |found: NetworkInspect| judge(Some(&found), subnet);
        assert_eq!(of(found("weftmesh", "10.32.0.0/12", 2)), Verdict::Good);
        assert_eq!(of(found("weftmesh", "10.64.0.0/16", 0)), Verdict::Outdated);
        assert_eq!(judge(None, subnet), Verdict::Absent);
        let told = |verdict: Verdict| verdict.fault().unwrap();
        assert!(told(Verdict::Absent).contains("does not have"));
        assert!(told(of(found("bridge", "10.32.0.0/12", 0))).contains("the driver bridge"));
        let in_use = told(of(found("weftmesh", "10.64.0.0/16", 1)));
        assert!(
            in_use.contains("10.64.0.0/16, not 10.32.0.0/12"),
            "{in_use}"
        );
    }
}
