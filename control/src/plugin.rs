//! Docker's network plugin protocol: what Docker asks, read into one [`Call`], and what is answered.
//!
//! ```text
//!  dockerd ── POST /NetworkDriver.Join {…} ──► read ──► Call ──► driver ──► Answer ──► JSON
//! ```
//!
//! The protocol is libnetwork's: remote network driver and remote IPAM driver on one socket. Bytes in, a value out; no
//! socket, no clock. Bounds: the shell's on the length of a body.

mod body;
mod pool;

use std::net::{IpAddr, Ipv4Addr};

use ipnet::IpNet;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use self::body::{AddressBody, EndpointBody, NetworkBody, NetworkPoolBody, PoolBody};
pub use self::pool::{Pool, PoolError};

/// Drivers by their sockets' names: the first is for networks of a Docker cluster, the second for those of one host.
pub const DRIVERS: [(&str, Scope); 2] = [("weft", Scope::Global), ("weftmesh", Scope::Local)];
/// The driver that gives addresses too.
pub const LOCAL_DRIVER: &str = "weftmesh";
/// What Docker puts an interface's number behind.
pub const INTERFACE_PREFIX: &str = "ethwe";
/// Says that a network's containers get a route for multicast; the second is Weave's spelling.
pub const MULTICAST_OPTIONS: [&str; 2] = ["weft.multicast", "works.weave.multicast"];
/// Under this key Docker has what the user gave as `--opt`.
const USER_OPTIONS: &str = "com.docker.network.generic";
const INTERNAL: &str = "com.docker.network.internal";
const ADDRESS_TYPE: &str = "RequestAddressType";
const GATEWAY: &str = "com.docker.network.gateway";
/// Where our addresses come from, for Docker: it says so of a network whose addresses we give.
const ADDRESS_SPACES: [&str; 2] = ["weftlocal", "weftglobal"];
/// Longest id that is taken: Docker's have 64 characters.
const ID_LEN_MAX: usize = 128;

/// How far the networks of a driver reach for Docker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One host.
    Local,
    /// A cluster of Docker's own.
    Global,
}

/// Why a request is not served.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Docker takes it for something that this driver does not do.
    #[error("no method {0}")]
    UnknownMethod(String),
    /// It is not what the protocol says.
    #[error("{method}: {why}")]
    Malformed {
        /// What was called.
        method: String,
        /// What is wrong with the body.
        why: String,
    },
    /// It is understood, and cannot be done.
    #[error("{0}")]
    Refused(String),
}

impl CallError {
    /// The HTTP status: Docker takes 404 for "not implemented", and shows the text of the others.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::UnknownMethod(_) => 404,
            Self::Malformed { .. } => 400,
            Self::Refused(_) => 500,
        }
    }

    /// The body: network and IPAM driver have another key for the text.
    #[must_use]
    pub fn body(&self) -> Value {
        let text = self.to_string();
        json!({ "Err": text, "Error": text })
    }
}

/// What Docker asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// Answered without a look at anything: the protocol's own questions, and events that weft has no use for.
    Fixed(Value),
    /// A network is made.
    CreateNetwork {
        /// Docker's id.
        network: String,
        /// Its containers get a route for multicast.
        multicast: bool,
        /// `--opt`s that mean nothing here.
        unknown: Vec<String>,
    },
    /// A network is removed.
    DeleteNetwork {
        /// Docker's id.
        network: String,
    },
    /// A container will join a network.
    CreateEndpoint {
        /// Docker's id of this container's place in this network.
        endpoint: String,
        /// Its IPv4 address.
        address: Option<IpNet>,
        /// Its MAC, if the user chose one.
        mac: Option<[u8; 6]>,
    },
    /// It left.
    DeleteEndpoint {
        /// As above.
        endpoint: String,
    },
    /// Its interface is wanted.
    Join {
        /// Docker's id of the network.
        network: String,
        /// As above.
        endpoint: String,
        /// Where its network namespace is, or will be.
        sandbox: String,
    },
    /// A range of addresses is chosen for a network; none: the default subnet.
    RequestPool {
        /// What the user chose.
        chosen: Option<Pool>,
    },
    /// An address is wanted.
    RequestAddress {
        /// Of this pool.
        pool: Pool,
        /// This one.
        address: Option<Ipv4Addr>,
    },
    /// The network's gateway is wanted: there is none, so anything may be said.
    RequestGateway {
        /// Of this pool.
        pool: Pool,
    },
    /// An address is no longer used. The gateway of a network that goes is none: see [`Pool::no_gateway`].
    ReleaseAddress {
        /// Of this pool.
        pool: Pool,
        /// This one.
        address: Ipv4Addr,
    },
}

/// Reads one request: the method is what follows the path's slash.
///
/// # Errors
/// [`CallError`] says what Docker is to be answered instead.
pub fn read(scope: Scope, method: &str, body: &[u8]) -> Result<Call, CallError> {
    let call = Reader { method, body };
    match method {
        "Plugin.Activate" => Ok(Call::Fixed(activation(scope))),
        "NetworkDriver.GetCapabilities" => Ok(Call::Fixed(network_capabilities(scope))),
        "NetworkDriver.GwAllocCheck" => {
            Ok(Call::Fixed(json!({ "SkipIPv4": true, "SkipIPv6": true })))
        }
        "NetworkDriver.AllocateNetwork" => Ok(Call::Fixed(json!({ "Options": {} }))),
        "NetworkDriver.EndpointOperInfo" => Ok(Call::Fixed(json!({ "Value": {} }))),
        "NetworkDriver.FreeNetwork"
        | "NetworkDriver.Leave"
        | "NetworkDriver.DiscoverNew"
        | "NetworkDriver.DiscoverDelete"
        | "NetworkDriver.ProgramExternalConnectivity"
        | "NetworkDriver.RevokeExternalConnectivity" => Ok(Call::Fixed(json!({}))),
        "NetworkDriver.CreateNetwork" => call.create_network(),
        "NetworkDriver.DeleteNetwork" => Ok(Call::DeleteNetwork {
            network: call.id(call.parsed::<NetworkBody>()?.network)?,
        }),
        "NetworkDriver.CreateEndpoint" => call.create_endpoint(),
        "NetworkDriver.DeleteEndpoint" => Ok(Call::DeleteEndpoint {
            endpoint: call.id(call.parsed::<EndpointBody>()?.endpoint)?,
        }),
        "NetworkDriver.Join" => call.join(),
        _ if scope == Scope::Local => call.of_addresses(),
        _ => Err(call.unknown()),
    }
}

struct Reader<'a> {
    method: &'a str,
    body: &'a [u8],
}

impl Reader<'_> {
    fn of_addresses(&self) -> Result<Call, CallError> {
        match self.method {
            "IpamDriver.GetCapabilities" => Ok(Call::Fixed(json!({
                "RequiresMACAddress": false,
                "RequiresRequestReplay": false,
            }))),
            "IpamDriver.GetDefaultAddressSpaces" => Ok(Call::Fixed(json!({
                "LocalDefaultAddressSpace": ADDRESS_SPACES[0],
                "GlobalDefaultAddressSpace": ADDRESS_SPACES[1],
            }))),
            "IpamDriver.ReleasePool" => Ok(Call::Fixed(json!({}))),
            "IpamDriver.RequestPool" => self.request_pool(),
            "IpamDriver.RequestAddress" => self.request_address(),
            "IpamDriver.ReleaseAddress" => {
                let body: AddressBody = self.parsed()?;
                let pool = self.pool(&body.pool)?;
                let address = self.ip(&body.address)?;
                let address = address.ok_or_else(|| self.malformed("no Address"))?;
                Ok(Call::ReleaseAddress { pool, address })
            }
            _ => Err(self.unknown()),
        }
    }

    fn create_network(&self) -> Result<Call, CallError> {
        let body: NetworkBody = self.parsed()?;
        let mut pools = body.pools.iter().flatten();
        if pools.any(NetworkPoolBody::sets_ours_aside) {
            let why = "weft sets no addresses aside: leave --aux-address out, and reserve part of \
                       the subnet with --ip-range";
            return Err(CallError::Refused(why.to_owned()));
        }
        let mut options = body.options.unwrap_or_default();
        let (mut multicast, mut unknown) = (false, Vec::new());
        options.remove(INTERNAL);
        if let Some(Value::Object(given)) = options.remove(USER_OPTIONS) {
            for (name, value) in given {
                if MULTICAST_OPTIONS.contains(&name.as_str()) {
                    multicast = switch(&name, value.as_str().unwrap_or_default())?;
                } else {
                    unknown.push(name);
                }
            }
        }
        Ok(Call::CreateNetwork {
            network: self.id(body.network)?,
            multicast,
            unknown,
        })
    }

    fn create_endpoint(&self) -> Result<Call, CallError> {
        let body: EndpointBody = self.parsed()?;
        let interface = body.interface.unwrap_or_default();
        let address = given(&interface.address).map(|text| {
            text.parse()
                .map_err(|_| self.malformed(format!("no address with prefix length: {text:?}")))
        });
        let mac = given(&interface.mac_address)
            .map(|text| mac_of(text).ok_or_else(|| self.malformed(format!("no MAC: {text:?}"))));
        Ok(Call::CreateEndpoint {
            endpoint: self.id(body.endpoint)?,
            address: address.transpose()?,
            mac: mac.transpose()?,
        })
    }

    fn join(&self) -> Result<Call, CallError> {
        let body: EndpointBody = self.parsed()?;
        if !body.sandbox_key.starts_with('/') || body.sandbox_key.contains([' ', '\0']) {
            return Err(self.malformed(format!("no path in SandboxKey: {:?}", body.sandbox_key)));
        }
        Ok(Call::Join {
            network: self.id(body.network)?,
            endpoint: self.id(body.endpoint)?,
            sandbox: body.sandbox_key,
        })
    }

    fn request_pool(&self) -> Result<Call, CallError> {
        let body: PoolBody = self.parsed()?;
        if body.v6 {
            let why = "weft gives Docker's networks IPv4 addresses only: leave --ipv6 out";
            return Err(CallError::Refused(why.to_owned()));
        }
        let chosen = match (given(&body.pool), given(&body.sub_pool)) {
            (None, None) => None,
            (None, Some(_)) => {
                let why = "an --ip-range needs its --subnet".to_owned();
                return Err(CallError::Refused(why));
            }
            (Some(subnet), range) => Some(
                Pool::chosen(subnet, range)
                    .map_err(|error| CallError::Refused(error.to_string()))?,
            ),
        };
        Ok(Call::RequestPool { chosen })
    }

    fn request_address(&self) -> Result<Call, CallError> {
        let body: AddressBody = self.parsed()?;
        let pool = self.pool(&body.pool)?;
        let address = self.ip(&body.address)?;
        if let Some(address) = address
            && !pool.subnet().contains(&address)
        {
            let why = format!("{address} is not in {}", pool.subnet());
            return Err(CallError::Refused(why));
        }
        let kind = body.options.unwrap_or_default().remove(ADDRESS_TYPE);
        if kind.as_deref() != Some(GATEWAY) {
            return Ok(Call::RequestAddress { pool, address });
        }
        if address.is_some_and(|address| address != pool.no_gateway().addr()) {
            let why = "weft's networks have no gateway: leave --gateway out";
            return Err(CallError::Refused(why.to_owned()));
        }
        Ok(Call::RequestGateway { pool })
    }

    fn pool(&self, id: &str) -> Result<Pool, CallError> {
        id.parse()
            .map_err(|error: PoolError| self.malformed(error.to_string()))
    }

    /// An IPv4 address; Docker gives some with a prefix length.
    fn ip(&self, text: &str) -> Result<Option<Ipv4Addr>, CallError> {
        let Some(text) = given(text) else {
            return Ok(None);
        };
        let address = text.split('/').next().unwrap_or_default();
        match address.parse() {
            Ok(IpAddr::V4(address)) => Ok(Some(address)),
            Ok(IpAddr::V6(_)) | Err(_) => Err(self.malformed(format!("no IPv4 address: {text:?}"))),
        }
    }

    /// Ids become names of interfaces and lines of logs.
    fn id(&self, id: String) -> Result<String, CallError> {
        let is_id = (1..=ID_LEN_MAX).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if is_id {
            Ok(id)
        } else {
            Err(self.malformed("no id"))
        }
    }

    fn parsed<T: DeserializeOwned>(&self) -> Result<T, CallError> {
        serde_json::from_slice(self.body).map_err(|error| self.malformed(error.to_string()))
    }

    fn malformed(&self, why: impl Into<String>) -> CallError {
        CallError::Malformed {
            method: self.method.to_owned(),
            why: why.into(),
        }
    }

    fn unknown(&self) -> CallError {
        CallError::UnknownMethod(self.method.to_owned())
    }
}

/// What is answered when a range was chosen: the range, and that nobody need look for a gateway.
#[must_use]
pub fn pool_answer(pool: Pool) -> Value {
    let (subnet, gateway) = (pool.subnet().to_string(), pool.no_gateway().to_string());
    json!({ "PoolID": pool.to_string(), "Pool": subnet, "Data": { GATEWAY: gateway } })
}

/// What is answered when an address was given.
#[must_use]
pub fn address_answer(address: IpNet) -> Value {
    json!({ "Address": address.to_string(), "Data": {} })
}

/// What is answered when a container's place was made. Docker takes back its own MAC for a mistake.
#[must_use]
pub fn endpoint_answer(chosen: Option<[u8; 6]>, mac: &str) -> Value {
    match chosen {
        Some(_) => json!({ "Interface": {} }),
        None => json!({ "Interface": { "MacAddress": mac } }),
    }
}

/// What is answered when a container joins: its interface, the routes through it, and nothing of a gateway, so that
/// Docker gives it one of its own to the world.
#[must_use]
pub fn join_answer(interface: &str, multicast: bool, dns: Option<Ipv4Addr>) -> Value {
    let multicast = multicast.then(|| "224.0.0.0/4".to_owned());
    let dns = dns.map(|server| format!("{server}/32"));
    let routes: Vec<Value> = multicast
        .into_iter()
        .chain(dns)
        .map(|to| json!({ "Destination": to, "RouteType": 1, "NextHop": "" }))
        .collect();
    json!({
        "InterfaceName": { "SrcName": interface, "DstPrefix": INTERFACE_PREFIX },
        "StaticRoutes": routes,
    })
}

fn activation(scope: Scope) -> Value {
    match scope {
        Scope::Local => json!({ "Implements": ["NetworkDriver", "IpamDriver"] }),
        Scope::Global => json!({ "Implements": ["NetworkDriver"] }),
    }
}

fn network_capabilities(scope: Scope) -> Value {
    let scope = match scope {
        Scope::Local => "local",
        Scope::Global => "global",
    };
    json!({ "Scope": scope, "ConnectivityScope": "global", "GwAllocChecker": true })
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

/// A switch as Docker's own drivers read one; without a value it is on.
fn switch(name: &str, value: &str) -> Result<bool, CallError> {
    match value {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => {
            let why = format!("--opt {name}={other:?} is neither true nor false");
            Err(CallError::Refused(why))
        }
    }
}

fn mac_of(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *byte = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests;
