//! The arguments of the verbs about names, and of `launch` for the DNS server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

/// Names for containers, answered on every host.
#[derive(Debug, Args)]
#[command(next_help_heading = "DNS")]
pub(crate) struct DnsLaunchArgs {
    /// No DNS server, and no names of this host's containers.
    #[arg(long, env = "WEFT_NO_DNS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) no_dns: bool,
    /// Domain of the containers' names; wanted the same on every host, since names of another one are not answered.
    #[arg(
        long,
        env = "WEFT_DNS_DOMAIN",
        value_name = "DOMAIN",
        default_value = "weave.local."
    )]
    pub(crate) dns_domain: String,
    /// Seconds for which an answer holds.
    #[arg(
        long,
        env = "WEFT_DNS_TTL",
        value_name = "SECONDS",
        default_value_t = 1
    )]
    pub(crate) dns_ttl: u32,
    /// Address of the server on our bridge: link-local, and routed to by every container.
    #[arg(
        long,
        env = "WEFT_DNS_ADDRESS",
        value_name = "IP",
        default_value = "169.254.53.1"
    )]
    pub(crate) dns_address: Ipv4Addr,
    /// Whom to ask for all other names, IP or IP:PORT [default: those in --resolv-conf]
    #[arg(
        long,
        env = "WEFT_DNS_UPSTREAM",
        value_name = "SERVER",
        value_delimiter = ',',
        value_parser = server
    )]
    pub(crate) dns_upstream: Vec<SocketAddr>,
    /// Where the host's own name servers are written; read again when it changes.
    #[arg(
        long,
        env = "WEFT_RESOLV_CONF",
        value_name = "FILE",
        default_value = "/etc/resolv.conf"
    )]
    pub(crate) resolv_conf: PathBuf,
    /// Forwarded questions a second of one client, and 50 times as many for our own names; 0 for no limit.
    #[arg(
        long,
        env = "WEFT_DNS_CLIENT_RATE",
        value_name = "N",
        default_value_t = 200
    )]
    pub(crate) dns_client_rate: u32,
    /// Docker's bridge, on which the server listens too.
    #[arg(
        long,
        env = "WEFT_DOCKER_BRIDGE",
        value_name = "NAME",
        default_value = "docker0"
    )]
    pub(crate) docker_bridge: String,
    /// Folder in which `ip netns exec` finds a namespace's resolv.conf.
    #[arg(
        long,
        env = "WEFT_NETNS_FILES",
        value_name = "DIR",
        default_value = "/etc/netns"
    )]
    pub(crate) netns_files: PathBuf,
}

/// An address with or without a port.
fn server(text: &str) -> Result<SocketAddr, String> {
    let address = text.parse().ok();
    let address = address.or_else(|| Some(SocketAddr::new(text.parse().ok()?, 53)));
    address.ok_or_else(|| "accepted are IP, IP:PORT and [IPv6]:PORT".to_owned())
}

#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "Without addresses all that the container has; without -h its own name. Without a container\nthe addresses may be any, inside the network or outside.\n\nExamples:\n  weft dns-add web -h shop.weave.local         # one more name for a container\n  weft dns-add 10.2.1.7 web -h shop\n  weft dns-add 192.0.2.80 -h printer           # something outside the network"
)]
pub(crate) struct DnsAddArgs {
    /// The name: whole, or one label of our domain.
    #[arg(short = 'h', value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Addresses, then the container.
    #[arg(value_name = "IP… [CONTAINER]")]
    pub(crate) words: Vec<String>,
    /// Print help
    #[arg(long, hide = true, action = ArgAction::Help)]
    pub(crate) help: Option<bool>,
}

#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "Mirrors dns-add; without -h all names go that the addresses have.\n\nExamples:\n  weft dns-remove web -h shop\n  weft dns-remove 192.0.2.80"
)]
pub(crate) struct DnsRemoveArgs {
    /// The name: whole, or one label of our domain.
    #[arg(short = 'h', value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Addresses, then the container.
    #[arg(value_name = "IP… [CONTAINER]")]
    pub(crate) words: Vec<String>,
    /// Print help
    #[arg(long, hide = true, action = ArgAction::Help)]
    pub(crate) help: Option<bool>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Prints a line for each IPv4 address; the IPv6 ones only of a name that has no others, or with --all.\n\nExample:\n  ping $(weft dns-lookup web)"
)]
pub(crate) struct DnsLookupArgs {
    /// IPv6 addresses beside those of IPv4.
    #[arg(long, env = "WEFT_ALL", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) all: bool,
    /// The name: whole, or one label of our domain.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_may_have_a_port() {
        assert_eq!(server("192.0.2.1").unwrap().port(), 53);
        assert_eq!(server("192.0.2.1:5353").unwrap().port(), 5353);
        assert_eq!(server("2001:db8::1").unwrap().port(), 53);
        assert_eq!(server("[2001:db8::1]:54").unwrap().port(), 54);
        assert!(server("example.org").is_err());
    }
}
