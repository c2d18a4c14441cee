//! The arguments of `weft launch`.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::args::plugin::PluginArgs;
use crate::args::{DnsLaunchArgs, DockerArgs};
use crate::settings::Secret;

const EXAMPLES: &str = "\
Examples:
  weft launch                                   the first host, open to anybody who can reach it
  (umask 077; weft token > /etc/weft/token)     a secret; copy it to all hosts, then on each:
  weft launch --password-file /etc/weft/token host1 host2
  weft launch --foreground --log-level debug    stay here and talk (what a service manager wants)

A peer is host[:port], [IPv6]:port or a DNS name, looked up again at every attempt.";

/// Which system calls carry the frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Io {
    /// The better one that works here.
    #[default]
    Auto,
    /// io_uring or nothing.
    Uring,
    /// epoll with batched calls.
    Epoll,
}

/// Which data cipher to offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum, Serialize, Deserialize)]
pub(crate) enum Cipher {
    /// The fastest that both ends have.
    #[default]
    Auto,
    /// ChaCha20-Poly1305, RFC 8439.
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
    /// AES-256-GCM; both ends need AES in hardware.
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
}

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct LaunchArgs {
    /// Peers to join; any one that is alive is enough. They replace those of the last run, which are taken if none is given.
    #[arg(value_name = "PEER", env = "WEFT_PEERS", value_delimiter = ' ')]
    pub(crate) peers: Vec<String>,
    /// Stay in the foreground and log to stderr.
    #[arg(long, env = "WEFT_FOREGROUND", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) foreground: bool,
    #[command(flatten)]
    pub(crate) peer: PeerArgs,
    #[command(flatten)]
    pub(crate) addresses: AddressArgs,
    #[command(flatten)]
    pub(crate) engine: EngineArgs,
    #[command(flatten)]
    pub(crate) dns: DnsLaunchArgs,
    #[command(flatten)]
    pub(crate) docker: DockerArgs,
    /// What to log: error, warning, info, debug, trace, or a filter such as `info,weft_control=debug`.
    #[arg(
        long,
        env = "WEFT_LOG_LEVEL",
        value_name = "LEVEL",
        default_value = "info"
    )]
    pub(crate) log_level: String,
    #[command(flatten)]
    pub(crate) plugin: PluginArgs,
    /// Take everything from stdin: set when weft starts itself.
    #[arg(long, hide = true)]
    pub(crate) handover: bool,
}

/// Who we are and whom we trust.
#[derive(Debug, Args)]
#[command(next_help_heading = "Peer")]
pub(crate) struct PeerArgs {
    /// Name of this peer, six bytes as a MAC [default: from the identity key]
    #[arg(long, env = "WEFT_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Name for people [default: the host's name]
    #[arg(long, env = "WEFT_NICKNAME", value_name = "NAME")]
    pub(crate) nickname: Option<String>,
    /// Local address to listen on and to dial from [default: all]
    #[arg(long, env = "WEFT_HOST", value_name = "IP")]
    pub(crate) host: Option<IpAddr>,
    /// TCP and UDP port.
    #[arg(long, env = "WEFT_PORT", value_name = "PORT", default_value_t = 6783, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
    /// Password or token that makes a member; visible to other users while weft starts: prefer the file.
    #[arg(
        long,
        env = "WEFT_PASSWORD",
        value_name = "SECRET",
        hide_env_values = true
    )]
    pub(crate) password: Vec<Secret>,
    /// File with a password or token on each line; the first is ours, all are accepted. Read again on SIGHUP.
    #[arg(long, env = "WEFT_PASSWORD_FILE", value_name = "FILE")]
    pub(crate) password_file: Option<PathBuf>,
    /// Name of the network; peers of another one are refused.
    #[arg(
        long,
        env = "WEFT_NETWORK",
        value_name = "NAME",
        default_value = "weft"
    )]
    pub(crate) network: String,
    /// Keep to the peers that are given: link to no others, and reach all others through them.
    #[arg(long, env = "WEFT_NO_DISCOVERY", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) no_discovery: bool,
    /// Pass on nothing for others.
    #[arg(long, env = "WEFT_NO_RELAY", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) no_relay: bool,
    /// Take the peers of the last run, those added by `connect` among them; refused beside PEER, also of the file.
    #[arg(long, env = "WEFT_RESUME", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) resume: bool,
    /// Milliseconds between rekeys, for tests.
    #[arg(long, env = "WEFT_REKEY_INTERVAL_MS", hide = true, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) rekey_interval_ms: Option<u64>,
}

/// How addresses are given.
#[derive(Debug, Args)]
#[command(next_help_heading = "Addresses")]
pub(crate) struct AddressArgs {
    /// Range that addresses come from, the same on every host; empty: none are given [default: 10.32.0.0/12]
    #[arg(
        long,
        env = "WEFT_IPALLOC_RANGE",
        value_name = "CIDR",
        alias = "iprange"
    )]
    pub(crate) ipalloc_range: Option<String>,
    /// Subnet that `net:default` means [default: the range]
    #[arg(long, env = "WEFT_IPALLOC_DEFAULT_SUBNET", value_name = "CIDR")]
    pub(crate) ipalloc_default_subnet: Option<String>,
    /// IPv6 prefix for a second address beside each of the default subnet; a hash decides it [default: none]
    #[arg(long, env = "WEFT_IPALLOC_RANGE6", value_name = "CIDR")]
    pub(crate) ipalloc_range6: Option<String>,
    /// How the hosts come to share the range: consensus, consensus=N, seed=NAME,NAME… or observer [default: consensus]
    #[arg(long, env = "WEFT_IPALLOC_INIT", value_name = "HOW")]
    pub(crate) ipalloc_init: Option<String>,
}

/// How frames are moved.
#[derive(Debug, Args)]
#[command(next_help_heading = "Engine")]
pub(crate) struct EngineArgs {
    /// MTU of the containers, the same on every host of the network; `weft doctor` recommends one.
    #[arg(long, env = "WEFT_MTU", value_name = "BYTES", default_value_t = 1376, value_parser = clap::value_parser!(u16).range(576..=8924))]
    pub(crate) mtu: u16,
    /// Threads that move frames [default: one for each core]
    #[arg(long, env = "WEFT_WORKERS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub(crate) workers: Option<u16>,
    /// System calls that carry the frames.
    #[arg(
        long,
        env = "WEFT_IO",
        value_name = "BACKEND",
        value_enum,
        default_value_t
    )]
    pub(crate) io: Io,
    /// Data cipher to offer.
    #[arg(
        long,
        env = "WEFT_CIPHER",
        value_name = "CIPHER",
        value_enum,
        default_value_t
    )]
    pub(crate) cipher: Cipher,
}
