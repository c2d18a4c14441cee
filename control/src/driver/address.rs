//! Reads address arguments: `[ip:]CIDR`, `net:CIDR`, `net:default`.
//!
//! Bytes from a command line come in here and leave as addresses that an interface can have.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;

/// Most address arguments in one request: an interface with more is a mistake, and each costs a netlink request.
const ARGUMENTS_MAX: usize = 64;

/// The forms that are read.
const FORMS: &str =
    "accepted are ADDR/LEN such as 10.2.1.1/24, ip:ADDR/LEN, net:CIDR and net:default";

/// Why an address argument was refused: names it, and what is accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not of the form at all.
    #[error("{0:?} is no address: {FORMS}")]
    Unreadable(String),
    /// The word that leaves a container alone, which is not alone itself.
    #[error("\"none\" is no address, and stands alone in WEAVE_CIDR: {FORMS}")]
    NoneAmongOthers,
    /// Of the form `a.b.c.d`.
    #[error("{0} lacks its prefix length: {FORMS}")]
    NoPrefix(String),
    /// The prefix leaves no subnet around the address.
    #[error("{0} leaves no room for a network: use a prefix length from 1 to {max}", max = longest_prefix(.0))]
    BadPrefix(IpNet),
    /// The address that stands for its subnet.
    #[error("{0} is the address of the network itself: give one inside it, such as {example}", example = first_host(.0))]
    NetworkAddress(IpNet),
    /// The address that means everybody in its subnet.
    #[error("{0} is the broadcast address of its network: give one inside it, such as {example}", example = first_host(.0))]
    BroadcastAddress(IpNet),
    /// No interface on a network can have it.
    #[error("{0} is {1}, which no container can have: give an address such as 10.2.1.1/24")]
    NotForHosts(IpNet, &'static str),
    /// The same address twice.
    #[error("{0} is given twice")]
    Twice(IpAddr),
    /// A subnet argument with host bits.
    #[error("net:{0} has host bits set: the network is net:{network}", network = .0.trunc())]
    HostBits(IpNet),
    /// A subnet argument with fewer than four addresses.
    #[error("net:{0} is too small: a subnet needs at least 4 addresses")]
    TooSmall(IpNet),
    /// Too many arguments.
    #[error("{0} addresses are too many: at most {ARGUMENTS_MAX} in one request")]
    TooMany(usize),
}

/// An interface has the address with another prefix length than asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{} has the prefix length /{} here, not /{}: give {current}, or take that off first",
    asked.addr(), current.prefix_len(), asked.prefix_len()
)]
pub struct OtherPrefix {
    /// As asked.
    pub asked: IpNet,
    /// As it is.
    pub current: IpNet,
}

/// Refuses an address that an interface with these has only with another prefix length.
pub(super) fn check_prefix(asked: IpNet, present: &[IpNet]) -> Result<(), OtherPrefix> {
    let mut same = present.iter().filter(|other| other.addr() == asked.addr());
    match same.next() {
        Some(&current) if !present.contains(&asked) => Err(OtherPrefix { asked, current }),
        Some(_) | None => Ok(()),
    }
}

/// One address argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressArgument {
    /// This very address.
    Explicit(IpNet),
    /// Any address of this subnet.
    Subnet(IpNet),
    /// Any address of the default subnet.
    DefaultSubnet,
}

impl std::str::FromStr for AddressArgument {
    type Err = AddressError;

    fn from_str(argument: &str) -> Result<Self, AddressError> {
        if argument == "net:default" {
            return Ok(Self::DefaultSubnet);
        }
        if let Some(subnet) = argument.strip_prefix("net:") {
            return read_cidr(subnet).and_then(subnet_argument);
        }
        read_cidr(argument.strip_prefix("ip:").unwrap_or(argument)).and_then(Self::explicit)
    }
}

impl AddressArgument {
    /// This very address, unless no interface may have it.
    pub fn explicit(address: IpNet) -> Result<Self, AddressError> {
        check_host_address(address)?;
        Ok(Self::Explicit(address))
    }
}

/// Reads the arguments of one request, in order. None at all means `net:default`.
pub fn read_arguments(arguments: &[String]) -> Result<Vec<AddressArgument>, AddressError> {
    if arguments.is_empty() {
        return Ok(vec![AddressArgument::DefaultSubnet]);
    }
    if arguments.len() > ARGUMENTS_MAX {
        return Err(AddressError::TooMany(arguments.len()));
    }
    let mut read: Vec<AddressArgument> = Vec::with_capacity(arguments.len());
    for argument in arguments {
        let argument = argument.parse()?;
        if let AddressArgument::Explicit(address) = argument
            && read.iter().any(|other| {
                matches!(other, AddressArgument::Explicit(other) if other.addr() == address.addr())
            })
        {
            return Err(AddressError::Twice(address.addr()));
        }
        read.push(argument);
    }
    Ok(read)
}

/// What arguments mean of the addresses on an interface that were all given by hand: an explicit one means itself,
/// `net:CIDR` those of that subnet, `net:default` all.
pub(super) fn meant_of(present: &[IpNet], arguments: &[AddressArgument]) -> Vec<IpNet> {
    let mut meant = Vec::new();
    for argument in arguments {
        match argument {
            AddressArgument::Explicit(address) => meant.push(*address),
            AddressArgument::Subnet(subnet) => {
                let within = present.iter().filter(|have| have.trunc() == *subnet);
                meant.extend(within.copied());
            }
            AddressArgument::DefaultSubnet => meant.extend(present),
        }
    }
    let mut seen = BTreeSet::new();
    meant.retain(|address| seen.insert(*address));
    meant
}

fn read_cidr(text: &str) -> Result<IpNet, AddressError> {
    if text.parse::<IpAddr>().is_ok() {
        return Err(AddressError::NoPrefix(text.to_owned()));
    }
    text.parse().map_err(|_| match text {
        "none" => AddressError::NoneAmongOthers,
        other => AddressError::Unreadable(other.to_owned()),
    })
}

fn subnet_argument(subnet: IpNet) -> Result<AddressArgument, AddressError> {
    if subnet.trunc() != subnet {
        return Err(AddressError::HostBits(subnet));
    }
    if subnet.prefix_len() + 2 > subnet.max_prefix_len() {
        return Err(AddressError::TooSmall(subnet));
    }
    if subnet.prefix_len() == 0 {
        return Err(AddressError::BadPrefix(subnet));
    }
    Ok(AddressArgument::Subnet(subnet))
}

fn check_host_address(address: IpNet) -> Result<(), AddressError> {
    if let Some(kind) = special_kind(address.addr()) {
        return Err(AddressError::NotForHosts(address, kind));
    }
    // A single address has no subnet that it could stand for; it works with routes of the user's own.
    if address.prefix_len() == address.max_prefix_len() {
        return Ok(());
    }
    if address.prefix_len() == 0 || address.prefix_len() > longest_prefix(&address) {
        return Err(AddressError::BadPrefix(address));
    }
    if address.addr() == address.network() {
        return Err(AddressError::NetworkAddress(address));
    }
    // IPv6 has no broadcast address.
    if address.addr().is_ipv4() && address.addr() == address.broadcast() {
        return Err(AddressError::BroadcastAddress(address));
    }
    Ok(())
}

fn special_kind(ip: IpAddr) -> Option<&'static str> {
    match ip {
        _ if ip.is_unspecified() => Some("the unspecified address"),
        _ if ip.is_loopback() => Some("a loopback address"),
        _ if ip.is_multicast() => Some("a multicast address"),
        IpAddr::V4(ip) if ip.is_broadcast() => Some("the broadcast address"),
        // The DNS server's is one, on every host.
        IpAddr::V4(ip) if ip.is_link_local() => Some("a link-local address"),
        IpAddr::V4(ip) if ip.octets()[0] == 0 => Some("an address of \"this network\""),
        IpAddr::V6(ip) if ip.is_unicast_link_local() => Some("a link-local address"),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => Some("an IPv4 address in IPv6 clothes"),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn longest_prefix(address: &IpNet) -> u8 {
    address.max_prefix_len() - 2
}

fn first_host(address: &IpNet) -> String {
    match address.hosts().next() {
        Some(host) if host != address.network() => format!("{host}/{}", address.prefix_len()),
        // IPv6 counts the network's own address among the hosts.
        _ => address.hosts().nth(1).map_or_else(
            || "another".to_owned(),
            |host| format!("{host}/{}", address.prefix_len()),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        text.parse().unwrap()
    }

    #[test]
    fn the_forms_are_read() {
        let table = [
            ("10.2.1.1/24", AddressArgument::Explicit(net("10.2.1.1/24"))),
            (
                "ip:10.2.1.1/24",
                AddressArgument::Explicit(net("10.2.1.1/24")),
            ),
            ("10.2.1.1/30", AddressArgument::Explicit(net("10.2.1.1/30"))),
            ("10.2.1.1/32", AddressArgument::Explicit(net("10.2.1.1/32"))),
            ("240.0.0.1/8", AddressArgument::Explicit(net("240.0.0.1/8"))),
            ("fd00::1/64", AddressArgument::Explicit(net("fd00::1/64"))),
            (
                "ip:fd00::ffff/112",
                AddressArgument::Explicit(net("fd00::ffff/112")),
            ),
            ("fd00::1/128", AddressArgument::Explicit(net("fd00::1/128"))),
            (
                "net:10.2.1.0/24",
                AddressArgument::Subnet(net("10.2.1.0/24")),
            ),
            (
                "net:10.2.1.0/30",
                AddressArgument::Subnet(net("10.2.1.0/30")),
            ),
            ("net:default", AddressArgument::DefaultSubnet),
        ];
        for (text, expected) in table {
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
    }

    /// What is typed, and the answer.
    const REFUSED: &str = r#"
 => "" is no address: accepted are ADDR/LEN such as 10.2.1.1/24, ip:ADDR/LEN, net:CIDR and net:default
x => "x" is no address: accepted are ADDR/LEN such as 10.2.1.1/24, ip:ADDR/LEN, net:CIDR and net:default
10.2.1.1/33 => "10.2.1.1/33" is no address: accepted are ADDR/LEN such as 10.2.1.1/24, ip:ADDR/LEN, net:CIDR and net:default
10.2.1.256/24 => "10.2.1.256/24" is no address: accepted are ADDR/LEN such as 10.2.1.1/24, ip:ADDR/LEN, net:CIDR and net:default
none => "none" is no address, and stands alone in WEAVE_CIDR: accepted are ADDR/LEN such as 10.2.1.1/24, ip:ADDR/LEN, net:CIDR and net:default
10.2.1.1 => 10.2.1.1 lacks its prefix length: accepted are ADDR/LEN such as 10.2.1.1/24, ip:ADDR/LEN, net:CIDR and net:default
ip:fd00::1 => fd00::1 lacks its prefix length: accepted are ADDR/LEN such as 10.2.1.1/24, ip:ADDR/LEN, net:CIDR and net:default
10.2.1.0/24 => 10.2.1.0/24 is the address of the network itself: give one inside it, such as 10.2.1.1/24
fd00::/64 => fd00::/64 is the address of the network itself: give one inside it, such as fd00::1/64
10.2.1.255/24 => 10.2.1.255/24 is the broadcast address of its network: give one inside it, such as 10.2.1.1/24
10.2.1.1/31 => 10.2.1.1/31 leaves no room for a network: use a prefix length from 1 to 30
10.2.1.1/0 => 10.2.1.1/0 leaves no room for a network: use a prefix length from 1 to 30
fd00::1/127 => fd00::1/127 leaves no room for a network: use a prefix length from 1 to 126
0.0.0.0/8 => 0.0.0.0/8 is the unspecified address, which no container can have: give an address such as 10.2.1.1/24
127.0.0.2/8 => 127.0.0.2/8 is a loopback address, which no container can have: give an address such as 10.2.1.1/24
::1/64 => ::1/64 is a loopback address, which no container can have: give an address such as 10.2.1.1/24
224.0.0.5/24 => 224.0.0.5/24 is a multicast address, which no container can have: give an address such as 10.2.1.1/24
ff02::5/64 => ff02::5/64 is a multicast address, which no container can have: give an address such as 10.2.1.1/24
fe80::5/64 => fe80::5/64 is a link-local address, which no container can have: give an address such as 10.2.1.1/24
169.254.53.1/32 => 169.254.53.1/32 is a link-local address, which no container can have: give an address such as 10.2.1.1/24
net:0.0.0.0/0 => 0.0.0.0/0 leaves no room for a network: use a prefix length from 1 to 30
net:10.2.1.1/24 => net:10.2.1.1/24 has host bits set: the network is net:10.2.1.0/24
net:10.2.3.2/31 => net:10.2.3.2/31 is too small: a subnet needs at least 4 addresses
net:10.2.3.2/32 => net:10.2.3.2/32 is too small: a subnet needs at least 4 addresses
"#;

    #[test]
    fn what_is_no_host_address_is_named_with_what_is_accepted() {
        for line in REFUSED.trim_matches('\n').lines() {
            let (text, expected) = line.split_once(" => ").unwrap();
            let answer = text.parse::<AddressArgument>().unwrap_err();
            assert_eq!(answer.to_string(), expected, "{text}");
        }
    }

    #[test]
    fn a_request_keeps_its_order_and_refuses_repetition() {
        let list = |arguments: &[&str]| {
            read_arguments(&arguments.iter().map(|&a| a.to_owned()).collect::<Vec<_>>())
        };

        assert_eq!(
            list(&["ip:10.2.2.1/24", "10.2.1.1/24"]),
            Ok(["10.2.2.1/24", "10.2.1.1/24"]
                .map(|text| AddressArgument::Explicit(net(text)))
                .to_vec())
        );
        assert_eq!(
            list(&["10.2.1.1/24", "10.2.1.1/16"]),
            Err(AddressError::Twice("10.2.1.1".parse().unwrap()))
        );
        assert_eq!(
            list(&["10.2.1.1/24"; ARGUMENTS_MAX + 1]),
            Err(AddressError::TooMany(ARGUMENTS_MAX + 1))
        );
    }

    #[test]
    fn what_was_given_by_hand_is_meant_by_its_subnet_and_all_of_it_by_none() {
        let present = ["10.2.1.1/24", "10.2.2.1/24", "10.2.1.2/24", "fd00::1/64"].map(net);
        for (typed, wanted) in [
            (&[][..], &present[..]),
            (&["net:default", "10.2.1.1/24"], &present[..]),
            (&["net:10.2.1.0/24"], &[present[0], present[2]][..]),
            (&["net:10.2.0.0/16"], &[]),
            (&["10.9.0.1/24"], &[net("10.9.0.1/24")]),
        ] {
            let typed: Vec<String> = typed.iter().map(|&text| text.to_owned()).collect();
            let arguments = read_arguments(&typed).unwrap();
            assert_eq!(meant_of(&present, &arguments), wanted, "{typed:?}");
        }
    }

    #[test]
    fn no_argument_at_all_means_the_default_subnet() {
        assert_eq!(
            read_arguments(&[]),
            Ok(vec![AddressArgument::DefaultSubnet])
        );
    }
}
