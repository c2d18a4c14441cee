//! A container's place on one of Docker's networks: made, joined, removed.

use std::path::Path;

use ipnet::IpNet;
use serde_json::{Value, json};

use super::places::Routes;
use super::{GIVEN_MAX, Shared};
use crate::api::AttachReply;
use crate::driver::attach::{AttachError, Endpoint, mac_text};
use crate::driver::attach_service::endpoints::{Removed, docker_holder};
use crate::driver::complaint::in_one_line;
use crate::driver::container::shown_id;
use crate::driver::request::Request;
use crate::plugin::{CallError, endpoint_answer, join_answer};

impl Shared {
    pub(super) async fn create_endpoint(
        &self,
        id: String,
        address: Option<IpNet>,
        mac: Option<[u8; 6]>,
    ) -> Result<Value, CallError> {
        let known = address.and_then(|address| {
            let holder = self.given().get(&address.addr()).cloned()?;
            Some((address.addr(), holder))
        });
        let known = match known {
            Some((address, holder)) if self.has(&holder, address).await => Some(holder),
            Some(_) | None => None,
        };
        // Of somebody else's addresses, or of an earlier run of ours: seen on the interface, they are noted.
        let holder = known.unwrap_or_else(|| docker_holder(id.get(..16).unwrap_or(&id)));
        self.places.made(&id, address);
        let address = address.map(|address| address.addr());
        let endpoint = Endpoint {
            id,
            holder,
            address,
            mac,
        };
        let made = self.attacher.make_endpoint(&endpoint).await;
        let made = made.map_err(|error| {
            self.places.gone(&endpoint.id);
            CallError::Refused(in_one_line(&error).error)
        })?;
        Ok(endpoint_answer(mac, &mac_text(made)))
    }

    pub(super) async fn join(
        &self,
        network: &str,
        endpoint: &str,
        sandbox: &str,
    ) -> Result<Value, CallError> {
        let refused = |error: AttachError| CallError::Refused(in_one_line(&error).error);
        let attached = self.attacher.attached_in(Path::new(sandbox)).await;
        let server = self.attacher.dns_server();
        let wanted = Routes {
            multicast: self.networks.has_multicast(network),
            dns: server.is_some(),
        };
        let joined = self
            .places
            .join(endpoint, sandbox, &attached.map_err(refused)?, wanted);
        let routes = joined.map_err(|error| CallError::Refused(error.to_string()))?;
        let leading = self
            .attacher
            .lead_endpoint(endpoint, Path::new(sandbox))
            .await;
        let interface = leading.map_err(refused)?;
        let server = server.filter(|_| routes.dns);
        Ok(join_answer(&interface, routes.multicast, server))
    }

    pub(super) async fn delete_endpoint(&self, id: &str) -> Result<Value, CallError> {
        self.places.gone(id);
        let removed = self.attacher.remove_endpoint(id).await;
        let removed = removed.map_err(|error| CallError::Refused(in_one_line(&error).error))?;
        let Some(Removed { holder, container }) = removed else {
            return Ok(json!({}));
        };
        let addresses = self.attacher.addresses_of(&holder).await;
        // So that the release that follows finds what was given in an earlier run.
        for address in &addresses {
            let mut given = self.given();
            if given.len() < GIVEN_MAX {
                given
                    .entry(address.addr())
                    .or_insert_with(|| holder.clone());
            }
        }
        // The container may be started again before anybody has seen that it was away.
        if let Some(container) = container {
            let left = AttachReply {
                id: shown_id(&container).to_owned(),
                addresses: addresses.iter().map(IpNet::addr).collect(),
                ..AttachReply::default()
            };
            let _ = self.requests.send(Request::Disowned(left)).await;
        }
        Ok(json!({}))
    }
}
