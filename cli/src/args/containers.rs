//! The arguments of `attach` and `detach`.

use clap::Args;

const CONTAINERS: &str = "\
A container is: the NAME or ID of a running Docker container; netns:NAME or netns:/path/to/ns;
pid:N. An address is: [ip:]CIDR, such as 10.2.1.1/24; net:CIDR, any of that subnet; net:default, which none at all means, too.";

#[derive(Debug, Args)]
#[command(after_help = format!("{CONTAINERS}\n\nExamples:\n  weft attach web\n  weft attach 10.2.1.1/24 net:10.2.2.0/24 web\n  weft attach 10.2.1.2/24 10.2.2.2/24 netns:blue\n  weft attach --name shop 10.2.1.3/24 netns:green    # ping shop\n  weft attach --dns-search sub.weave.local --add-host printer:192.0.2.80 netns:green"))]
pub(crate) struct AttachArgs {
    /// Do not route 224.0.0.0/4 to the interface.
    #[arg(long, env = "WEFT_NO_MULTICAST_ROUTE", hide_env = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) no_multicast_route: bool,
    /// Name in DNS, once or more: whole, or one label of our domain [default: the container's own]
    #[arg(
        long,
        visible_alias = "name",
        env = "WEFT_DNS_NAME",
        hide_env = true,
        value_name = "NAME"
    )]
    pub(crate) dns_name: Vec<String>,
    /// No name, no resolv.conf, no route to the DNS server.
    #[arg(long, env = "WEFT_WITHOUT_DNS", hide_env = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) without_dns: bool,
    /// Addresses, then the container.
    #[arg(value_name = "ADDRESS… CONTAINER", required = true)]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) files: FileArgs,
}

/// What goes into the files that `ip netns exec` lays over `/etc`; what was there before is put back at detach.
#[derive(Debug, Args)]
#[command(next_help_heading = "Files for a namespace")]
pub(crate) struct FileArgs {
    /// Where short names are looked for, once or more; `.` is nowhere [default: our domain, after the name's own part of it]
    #[arg(
        long,
        env = "WEFT_DNS_SEARCH",
        hide_env = true,
        value_name = "DOMAIN",
        conflicts_with = "without_dns"
    )]
    pub(crate) dns_search: Vec<String>,
    /// Entry of the container's hosts file, once or more.
    #[arg(long, env = "WEFT_ADD_HOST", hide_env = true, value_name = "NAME:IP")]
    pub(crate) add_host: Vec<String>,
    /// The container's own names go into its hosts file, also in place of one that is there [default: unless it is there]
    #[arg(long, env = "WEFT_REWRITE_HOSTS", hide_env = true, conflicts_with = "no_rewrite_hosts", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) rewrite_hosts: bool,
    /// They do not.
    #[arg(long, env = "WEFT_NO_REWRITE_HOSTS", hide_env = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) no_rewrite_hosts: bool,
}

#[derive(Debug, Args)]
#[command(after_help = format!("{CONTAINERS}\nWhere none are allocated (--ipalloc-range ''), net:default is all that the container has.\n\nExample:\n  weft detach 10.2.1.1/24 web"))]
pub(crate) struct DetachArgs {
    /// Addresses, then the container.
    #[arg(value_name = "ADDRESS… CONTAINER", required = true)]
    pub(crate) words: Vec<String>,
}
