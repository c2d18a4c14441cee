//! The arguments of `launch` for Docker, and of `env`.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

/// Containers that Docker runs.
#[derive(Debug, Args)]
#[command(next_help_heading = "Docker")]
pub(crate) struct DockerArgs {
    /// Docker's API socket; empty: no Docker [default: DOCKER_HOST, else unix:///var/run/docker.sock]
    #[arg(long, env = "WEFT_DOCKER_HOST", value_name = "ADDRESS")]
    pub(crate) docker_host: Option<String>,
    /// Serve Docker's API on `<run-dir>/docker.sock`: containers that are started through it are on the network.
    #[arg(long, env = "WEFT_PROXY", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) proxy: bool,
    /// The same as `--proxy=false`.
    #[arg(long, env = "WEFT_NO_PROXY", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) no_proxy: bool,
    /// Where the proxy listens in place of `<run-dir>/docker.sock`: unix:///path or tcp://IP:port; may be repeated.
    #[arg(
        short = 'H',
        long,
        env = "WEFT_PROXY_HOST",
        value_name = "ADDRESS",
        value_delimiter = ' '
    )]
    pub(crate) proxy_host: Vec<String>,
    /// Let clients over TCP in by their certificates; without it no port is opened.
    #[arg(long, env = "WEFT_TLSVERIFY", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) tlsverify: bool,
    /// Who signs the certificates of clients [default: ca.pem in DOCKER_CERT_PATH, else in ~/.docker]
    #[arg(long, env = "WEFT_TLSCACERT", value_name = "FILE")]
    pub(crate) tlscacert: Option<PathBuf>,
    /// Certificate of the proxy [default: cert.pem beside it]
    #[arg(long, env = "WEFT_TLSCERT", value_name = "FILE")]
    pub(crate) tlscert: Option<PathBuf>,
    /// Its key [default: key.pem beside it]
    #[arg(long, env = "WEFT_TLSKEY", value_name = "FILE")]
    pub(crate) tlskey: Option<PathBuf>,
    /// `docker inspect` through the proxy shows a container's address and MAC here in place of Docker's.
    #[arg(long, env = "WEFT_REWRITE_INSPECT", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) rewrite_inspect: bool,
    /// Containers without WEAVE_CIDR stay off the network.
    #[arg(long, env = "WEFT_NO_DEFAULT_IPALLOC", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) no_default_ipalloc: bool,
    /// Label whose value is a container's host name in place of its name.
    #[arg(long, env = "WEFT_HOSTNAME_FROM_LABEL", value_name = "LABEL")]
    pub(crate) hostname_from_label: Option<String>,
    /// What is replaced in a container's host name [default: nothing]
    #[arg(
        long,
        env = "WEFT_HOSTNAME_MATCH",
        value_name = "REGEX",
        default_value = "(.*)",
        hide_default_value = true
    )]
    pub(crate) hostname_match: String,
    /// What it is replaced by; $1 and $name are groups of the match.
    #[arg(
        long,
        env = "WEFT_HOSTNAME_REPLACEMENT",
        value_name = "TEXT",
        default_value = "$1",
        hide_default_value = true
    )]
    pub(crate) hostname_replacement: String,
    /// Containers keep Docker's names and DNS.
    #[arg(long, env = "WEFT_WITHOUT_DNS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) without_dns: bool,
    /// Containers keep Docker's /etc/hosts.
    #[arg(long, env = "WEFT_NO_REWRITE_HOSTS", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) no_rewrite_hosts: bool,
    /// Containers get no route for multicast.
    #[arg(long, env = "WEFT_NO_MULTICAST_ROUTE", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) no_multicast_route: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Prints nothing where weft runs without the proxy. The old DOCKER_HOST is kept in ORIG_DOCKER_HOST.\n\nExamples:\n  eval $(weft env)              # docker run is on the network now\n  eval $(weft env --restore)"
)]
pub(crate) struct EnvArgs {
    /// Print what takes the setting back.
    #[arg(long, env = "WEFT_RESTORE", hide_env = true, value_parser = BoolishValueParser::new())]
    pub(crate) restore: bool,
}
