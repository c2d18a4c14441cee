//! How addresses are to be given: `--ipalloc-range`, `--ipalloc-range6`, `--ipalloc-init`.

use anyhow::{Context, bail};
use ipnet::{Ipv4Net, Ipv6Net};
use weft_control::driver::start::AddressConfig;
use weft_control::ipam::{IpamInit, six};
use weft_control::peer::PeerName;

use super::Settings;

/// Where addresses come from unless given: Weave's.
const RANGE_DEFAULT: &str = "10.32.0.0/12";
/// More voters than this no network has.
const ELECTORS_MAX: usize = 1024;

/// What no interface beside `lo` takes for its own, or the DNS server's address is of (RFC 6890).
const RESERVED: [(&str, &str); 4] = [
    ("0.0.0.0/8", "which means this host"),
    ("127.0.0.0/8", "the loopback addresses"),
    ("169.254.0.0/16", "the link-local addresses"),
    ("224.0.0.0/4", "the groups of multicast"),
];

impl Settings {
    /// Returns how addresses are given; `None` if they are not.
    ///
    /// # Errors
    ///
    /// One line for a range, subnet or way that is none, or that does not go with the others.
    pub(crate) fn addresses(&self) -> anyhow::Result<Option<AddressConfig>> {
        let given = self.ipalloc_range.as_deref();
        // As with the range, an empty one is none.
        let six = self.ipalloc_range6.as_deref();
        let six = six.filter(|text| !text.is_empty());
        if given == Some("") {
            if self.ipalloc_default_subnet.is_some() || self.ipalloc_init.is_some() || six.is_some()
            {
                bail!(
                    "--ipalloc-range '' gives no addresses: leave out --ipalloc-default-subnet, --ipalloc-range6 and --ipalloc-init"
                );
            }
            return Ok(None);
        }
        let range = network("--ipalloc-range", given.unwrap_or(RANGE_DEFAULT))?;
        let default_subnet = match self.ipalloc_default_subnet.as_deref() {
            Some(text) => network("--ipalloc-default-subnet", text)?,
            None => range,
        };
        if !range.contains(&default_subnet) && !default_subnet.contains(&range) {
            bail!("--ipalloc-default-subnet {default_subnet} does not overlap the range {range}");
        }
        let init = init(self.ipalloc_init.as_deref().unwrap_or("consensus"))?;
        let range6 = six.map(network_six).transpose()?;
        Ok(Some(AddressConfig {
            range,
            default_subnet,
            range6,
            init,
        }))
    }

    /// Whether the user chose the range.
    pub(crate) fn range_is_given(&self) -> bool {
        self.ipalloc_range.is_some()
    }
}

fn network(flag: &str, text: &str) -> anyhow::Result<Ipv4Net> {
    let Ok(network) = text.parse::<Ipv4Net>() else {
        bail!(
            "{flag} `{text}`: accepted is an IPv4 network with a prefix length up to /30, such as {RANGE_DEFAULT}"
        );
    };
    if network.trunc() != network {
        bail!(
            "{flag} {network} has host bits set: the network is {}",
            network.trunc()
        );
    }
    if network.prefix_len() > 30 {
        bail!("{flag} {network} is too small: at least 4 addresses are needed");
    }
    for (reserved, purpose) in RESERVED {
        let reserved = reserved.parse::<Ipv4Net>()?;
        if reserved.contains(&network) || network.contains(&reserved) {
            bail!(
                "{flag} {network} overlaps {reserved}, {purpose}: no container can have its addresses"
            );
        }
    }
    Ok(network)
}

fn network_six(text: &str) -> anyhow::Result<Ipv6Net> {
    let Ok(network) = text.parse::<Ipv6Net>() else {
        bail!("--ipalloc-range6 `{text}`: accepted is an IPv6 prefix such as fd57:6566:7400::/64");
    };
    if network.trunc() != network {
        bail!(
            "--ipalloc-range6 {network} has host bits set: the prefix is {}",
            network.trunc()
        );
    }
    six::check_prefix(network).context("--ipalloc-range6")
}

fn init(text: &str) -> anyhow::Result<IpamInit> {
    let accepted = "accepted are consensus, consensus=N, seed=NAME,NAME and observer";
    match text.split_once('=') {
        None if text == "consensus" => Ok(IpamInit::Consensus { electors: None }),
        None if text == "observer" => Ok(IpamInit::Observer),
        Some(("consensus", count)) => match count.parse() {
            Ok(count) if (1..=ELECTORS_MAX).contains(&count) => Ok(IpamInit::Consensus {
                electors: Some(count),
            }),
            Ok(_) | Err(_) => {
                bail!(
                    "--ipalloc-init `{text}`: N is the number of hosts that vote, 1 to {ELECTORS_MAX}"
                )
            }
        },
        Some(("seed", names)) => {
            let names = names.split(',').map(|name| {
                name.parse::<PeerName>()
                    .with_context(|| format!("--ipalloc-init: `{name}`"))
            });
            Ok(IpamInit::Seed(names.collect::<Result<_, _>>()?))
        }
        None | Some(_) => bail!("--ipalloc-init `{text}`: {accepted}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_to_the_first_ring_are_read_or_refused_in_words() {
        assert_eq!(
            init("consensus").unwrap(),
            IpamInit::Consensus { electors: None }
        );
        assert_eq!(
            init("consensus=3").unwrap(),
            IpamInit::Consensus { electors: Some(3) }
        );
        assert_eq!(init("observer").unwrap(), IpamInit::Observer);
        let names = ["::1".parse().unwrap(), "::2".parse().unwrap()];
        assert_eq!(
            init("seed=::1,::2").unwrap(),
            IpamInit::Seed(names.to_vec())
        );
        for bad in ["consensus=0", "consensus=x", "seed=", "paxos", "observer=1"] {
            assert!(
                init(bad)
                    .unwrap_err()
                    .to_string()
                    .starts_with("--ipalloc-init"),
                "{bad}"
            );
        }
    }

    #[test]
    fn a_range_is_a_network_of_four_addresses_or_more() {
        assert!(network("--ipalloc-range", "10.2.0.0/16").is_ok());
        for bad in ["10.2.0.1/16", "10.2.0.0/31", "10.2.0.0", "fd00::/64"] {
            let line = network("--ipalloc-range", bad).unwrap_err().to_string();
            assert!(line.starts_with("--ipalloc-range"), "{line}");
        }
        // What the library says of it is about addresses, which this one has.
        let error = network("--ipalloc-range", "10.0.0.0/33").unwrap_err();
        let line = "--ipalloc-range `10.0.0.0/33`: accepted is an IPv4 network with a prefix length up to /30, such as 10.32.0.0/12";
        assert_eq!(format!("{error:#}"), line);
        for bad in [
            "0.0.0.0/0",
            "127.1.0.0/16",
            "169.254.53.0/24",
            "224.0.0.0/3",
        ] {
            let line = network("--ipalloc-range", bad).unwrap_err().to_string();
            assert!(line.contains("no container can have"), "{line}");
        }
        assert!(network_six("fd57:6566:7400::/64").is_ok());
        let line = network_six("fd57:6566:7400::1/64").unwrap_err().to_string();
        assert!(
            line.ends_with("the prefix is fd57:6566:7400::/64"),
            "{line}"
        );
    }
}
