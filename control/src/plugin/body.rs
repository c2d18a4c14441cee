//! The bodies of Docker's requests, as its plugin protocol has them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use super::ADDRESS_SPACES;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkBody {
    #[serde(rename = "NetworkID")]
    pub(super) network: String,
    #[serde(default)]
    pub(super) options: Option<BTreeMap<String, Value>>,
    #[serde(rename = "IPv4Data", default)]
    pub(super) pools: Option<Vec<NetworkPoolBody>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkPoolBody {
    #[serde(default)]
    pub(super) address_space: String,
    #[serde(default)]
    pub(super) aux_addresses: Option<BTreeMap<String, Value>>,
}

impl NetworkPoolBody {
    /// True if addresses of ours are to be set aside.
    pub(super) fn sets_ours_aside(&self) -> bool {
        let is_ours = ADDRESS_SPACES.contains(&self.address_space.as_str());
        is_ours
            && self
                .aux_addresses
                .as_ref()
                .is_some_and(|set| !set.is_empty())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EndpointBody {
    #[serde(rename = "NetworkID")]
    pub(super) network: String,
    #[serde(rename = "EndpointID")]
    pub(super) endpoint: String,
    #[serde(default)]
    pub(super) sandbox_key: String,
    #[serde(default)]
    pub(super) interface: Option<InterfaceBody>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct InterfaceBody {
    pub(super) address: String,
    pub(super) mac_address: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PoolBody {
    #[serde(default)]
    pub(super) pool: String,
    #[serde(default)]
    pub(super) sub_pool: String,
    #[serde(default)]
    pub(super) v6: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AddressBody {
    #[serde(rename = "PoolID")]
    pub(super) pool: String,
    #[serde(default)]
    pub(super) address: String,
    #[serde(default)]
    pub(super) options: Option<BTreeMap<String, String>>,
}
