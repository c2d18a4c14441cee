//! Which places on Docker's networks a container has, so that Docker is not led into what the kernel refuses.
//!
//! ```text
//!  CreateEndpoint: its subnet ─► Join: its sandbox, and what else is in there ─┬─► the routes that are missing
//!  DeleteEndpoint: forgotten                                                   └─► refused in words
//! ```
//!
//! A namespace has one route to a destination: what came first has it, and two subnets do not overlap. After a restart of
//! weft the places from before are not known, and Docker speaks for itself. Bound: an entry for each endpoint, of which a
//! bridge takes no more than 1024.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;

/// Why a container cannot be on a network.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlaceError {
    /// It was attached by the proxy or by hand.
    #[error(
        "the container has {there} on ethwe already, which this network's {subnet} overlaps: `weft detach` takes it off"
    )]
    Attached {
        /// What it has.
        there: IpNet,
        /// The network's subnet.
        subnet: IpNet,
    },
    /// It is on another network.
    #[error(
        "the container is on another network of weft's whose subnet {there} overlaps this one's {subnet}: leave that one first"
    )]
    OtherNetwork {
        /// The other's subnet.
        there: IpNet,
        /// The network's subnet.
        subnet: IpNet,
    },
}

/// Routes that lead to an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Routes {
    pub(super) multicast: bool,
    pub(super) dns: bool,
}

#[derive(Debug, Default)]
struct Place {
    subnet: Option<IpNet>,
    sandbox: Option<String>,
    routes: Routes,
}

/// All of them, by Docker's ids of the endpoints.
#[derive(Debug, Default)]
pub(super) struct Places(Mutex<BTreeMap<String, Place>>);

impl Places {
    fn known(&self) -> MutexGuard<'_, BTreeMap<String, Place>> {
        // Nothing in here panics half way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An endpoint is made, with this address.
    pub(super) fn made(&self, endpoint: &str, address: Option<IpNet>) {
        let place = Place {
            subnet: address.map(|address| address.trunc()),
            ..Place::default()
        };
        self.known().insert(endpoint.to_owned(), place);
    }

    /// It is gone.
    pub(super) fn gone(&self, endpoint: &str) {
        self.known().remove(endpoint);
    }

    /// It goes into a sandbox in which `attached` is on weft's own interface; returns which of the routes it gets.
    ///
    /// # Errors
    /// [`PlaceError`].
    pub(super) fn join(
        &self,
        endpoint: &str,
        sandbox: &str,
        attached: &[IpNet],
        wanted: Routes,
    ) -> Result<Routes, PlaceError> {
        let mut known = self.known();
        let own = known.get(endpoint).and_then(|place| place.subnet);
        let beside = || {
            let others = known.iter().filter(|(id, _)| *id != endpoint);
            let others = others.map(|(_, place)| place);
            others.filter(|place| place.sandbox.as_deref() == Some(sandbox))
        };
        if let Some(subnet) = own {
            let overlaps = |there: &IpNet| overlap(*there, subnet);
            if let Some(there) = attached.iter().copied().find(overlaps) {
                return Err(PlaceError::Attached { there, subnet });
            }
            let mut others = beside().filter_map(|place| place.subnet);
            if let Some(there) = others.find(overlaps) {
                return Err(PlaceError::OtherNetwork { there, subnet });
            }
        }
        // The attached interface has them, unless that was not wanted of it.
        let is_free = attached.is_empty();
        let routes = Routes {
            multicast: wanted.multicast && is_free && !beside().any(|it| it.routes.multicast),
            dns: wanted.dns && is_free && !beside().any(|it| it.routes.dns),
        };
        let place = known.entry(endpoint.to_owned()).or_default();
        place.sandbox = Some(sandbox.to_owned());
        place.routes = routes;
        Ok(routes)
    }
}

fn overlap(a: IpNet, b: IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_first_interface_has_the_routes_and_subnets_do_not_overlap() {
        let places = Places::default();
        let all = Routes {
            multicast: true,
            dns: true,
        };
        places.made("a", Some(net("10.40.0.1/16")));
        places.made("b", Some(net("10.41.0.1/16")));
        places.made("c", Some(net("10.32.0.1/12")));
        assert_eq!(places.join("a", "/s", &[], all), Ok(all));
        assert_eq!(places.join("b", "/s", &[], all), Ok(Routes::default()));
        let refused = places.join("c", "/s", &[], all).unwrap_err();
        assert!(
            matches!(refused, PlaceError::OtherNetwork { .. }),
            "{refused}"
        );
        assert_eq!(places.join("c", "/t", &[], all), Ok(all));
        places.gone("a");
        places.gone("b");
        assert_eq!(places.join("c", "/s", &[], all), Ok(all));
        places.gone("c");
        assert!(places.known().is_empty());
    }

    #[test]
    fn beside_an_attached_interface_only_other_subnets_have_a_place() {
        let places = Places::default();
        let all = Routes {
            multicast: false,
            dns: true,
        };
        places.made("a", Some(net("10.40.0.1/16")));
        let attached = [net("10.2.1.1/24"), net("10.32.0.5/12")];
        assert_eq!(
            places.join("a", "/s", &attached, all),
            Err(PlaceError::Attached {
                there: attached[1],
                subnet: net("10.40.0.0/16"),
            })
        );
        let elsewhere = places.join("a", "/s", &attached[..1], all);
        assert_eq!(elsewhere, Ok(Routes::default()));
    }
}
