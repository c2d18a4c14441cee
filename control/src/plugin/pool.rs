//! The range of addresses of one of Docker's networks, and the id by which Docker knows it.
//!
//! The id says everything, so nothing has to be remembered: `weft_10.32.0.0/12_10.32.1.0/24`.

use std::fmt;
use std::str::FromStr;

use ipnet::Ipv4Net;

const MARK: &str = "weft";
/// The first address and the last are nobody's.
const PREFIX_LEN_MAX: u8 = 30;

/// Why there is no such range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PoolError {
    /// Not of the form of ours.
    #[error("{0:?} is no pool of weft's")]
    NotOurs(String),
    /// Not a subnet.
    #[error("{0:?} is no IPv4 subnet")]
    NoSubnet(String),
    /// An address in place of a subnet.
    #[error("{0} has host bits set: the subnet is {subnet}", subnet = .0.trunc())]
    HostBits(Ipv4Net),
    /// Nobody could have an address.
    #[error("{0} is too small: a subnet needs at least 4 addresses")]
    TooSmall(Ipv4Net),
    /// A part that lies elsewhere.
    #[error("--ip-range {range} is not in --subnet {subnet}")]
    Outside {
        /// The part.
        range: Ipv4Net,
        /// The whole.
        subnet: Ipv4Net,
    },
}

/// A network's subnet, and the part of it that containers get addresses from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    subnet: Ipv4Net,
    range: Ipv4Net,
}

impl Pool {
    /// The whole of a subnet.
    #[must_use]
    pub fn of(subnet: Ipv4Net) -> Self {
        let subnet = subnet.trunc();
        Self {
            subnet,
            range: subnet,
        }
    }

    /// A subnet and a part of it, as typed.
    ///
    /// # Errors
    /// [`PoolError`] if either is no subnet, or the part lies elsewhere.
    pub fn chosen(subnet: &str, range: Option<&str>) -> Result<Self, PoolError> {
        let read = |text: &str| match text.parse::<Ipv4Net>() {
            Ok(given) if given != given.trunc() => Err(PoolError::HostBits(given)),
            Ok(given) if given.prefix_len() > PREFIX_LEN_MAX => Err(PoolError::TooSmall(given)),
            Ok(subnet) => Ok(subnet),
            Err(_) => Err(PoolError::NoSubnet(text.to_owned())),
        };
        let subnet = read(subnet)?;
        let range = range.map(read).transpose()?.unwrap_or(subnet);
        if !subnet.contains(&range) {
            return Err(PoolError::Outside { range, subnet });
        }
        Ok(Self { subnet, range })
    }

    /// The network's subnet.
    #[must_use]
    pub fn subnet(&self) -> Ipv4Net {
        self.subnet
    }

    /// Where containers get addresses from.
    #[must_use]
    pub fn range(&self) -> Ipv4Net {
        self.range
    }

    /// What is said where a gateway is asked for: the address of the network itself, which nobody has.
    #[must_use]
    pub fn no_gateway(&self) -> Ipv4Net {
        self.subnet
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{MARK}_{}_{}", self.subnet, self.range)
    }
}

impl FromStr for Pool {
    type Err = PoolError;

    fn from_str(text: &str) -> Result<Self, PoolError> {
        let mut parts = text.split('_');
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(MARK), Some(subnet), Some(range), None) => Self::chosen(subnet, Some(range)),
            _ => Err(PoolError::NotOurs(text.to_owned())),
        }
    }
}
