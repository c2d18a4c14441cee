//! The command line: every verb, its arguments and the help that teaches them.

mod containers;
mod dns;
mod docker;
mod launch;
mod plugin;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

pub(crate) use containers::{AttachArgs, DetachArgs};
pub(crate) use dns::{DnsAddArgs, DnsLaunchArgs, DnsLookupArgs, DnsRemoveArgs};
pub(crate) use docker::{DockerArgs, EnvArgs};
pub(crate) use launch::{Cipher, Io, LaunchArgs};
pub(crate) use plugin::StandInArgs;

use crate::output::Format;

/// The daemon's socket in the run directory.
pub(crate) const CONTROL_SOCKET: &str = "weft.sock";

const EXAMPLES: &str = "\
Examples:
  weft demo                                  see it work on this machine, in a minute
  weft launch                                start the first host
  weft launch --password-file key HOST1      start another one and join HOST1
  weft attach 10.2.1.1/24 netns:blue         give a network namespace an address
  weft status connections                    who is linked, how, and how well
  weft doctor                                can this host run weft well

Every flag has an environment variable of its name: --log-level, WEFT_LOG_LEVEL.
Those of `launch` and the places above are keys of the configuration file, too:
`log-level = \"debug\"`. A flag beats the environment beats the file.
`weft VERB --help` says more of each verb, with examples.
Exit codes: 0 done, 1 failed, 2 usage, 3 the daemon is not running.";

/// Joins containers and hosts on many machines into one encrypted virtual Ethernet.
#[derive(Debug, Parser)]
#[command(name = "weft", version, after_help = EXAMPLES, max_term_width = 110)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) places: Places,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Where things are; every path can be moved so that several hosts fit on one machine.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Places and output")]
pub(crate) struct Places {
    /// Directory of the running daemon: control socket, pid file, log.
    #[arg(
        long,
        global = true,
        env = "WEFT_RUN_DIR",
        value_name = "DIR",
        default_value = "/run/weft"
    )]
    pub(crate) run_dir: PathBuf,
    /// Directory of what survives a restart: identity key and store.
    #[arg(
        long,
        global = true,
        env = "WEFT_DATA_DIR",
        value_name = "DIR",
        default_value = "/var/lib/weft"
    )]
    pub(crate) data_dir: PathBuf,
    /// Configuration file (TOML, the flags' names as keys) [default: /etc/weft/weft.toml if present]
    #[arg(long, global = true, env = "WEFT_CONFIG", value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Bridge that the containers are attached to.
    #[arg(
        long,
        global = true,
        env = "WEFT_BRIDGE",
        value_name = "NAME",
        default_value = "weft"
    )]
    pub(crate) bridge: String,
    /// Print text for people or JSON for programs.
    #[arg(
        short,
        long,
        global = true,
        env = "WEFT_OUTPUT",
        value_name = "FORMAT",
        value_enum,
        default_value_t
    )]
    pub(crate) output: Format,
}

impl Places {
    /// Returns the path of the control socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.run_dir.join(CONTROL_SOCKET)
    }

    /// Returns the path of the pid file, which is also the lock of the run directory.
    pub(crate) fn pid_file(&self) -> PathBuf {
        self.run_dir.join("weft.pid")
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start the daemon; returns when it is ready and prints the peer's name.
    Launch(Box<LaunchArgs>),
    /// End the daemon; containers keep their interface and talk on within the host.
    #[command(
        after_help = "Example:\n  weft stop && weft launch --resume    # a new version; containers stay attached"
    )]
    Stop,
    /// Answer Docker where a daemon has ended: started by that daemon itself.
    #[command(hide = true)]
    StandIn(StandInArgs),
    /// Give the addresses to a peer, end the daemon, and remove what it made: bridge, TAP, identity, store.
    Reset(ResetArgs),
    /// Add peers to the targets and dial them at once.
    Connect(ConnectArgs),
    /// Remove peers from the targets, spelt as they were given.
    Forget(ForgetArgs),
    /// Give a container an interface in the network; prints its addresses.
    Attach(AttachArgs),
    /// Take addresses of a container away; with the last one goes its interface.
    Detach(DetachArgs),
    /// Give the host itself addresses in the network; prints them.
    Expose(ExposeArgs),
    /// Take addresses of the host away; prints them.
    Hide(HideArgs),
    /// Wait until the hosts share the range of addresses.
    #[command(
        after_help = "Example:\n  weft launch host2 host3 && weft prime      # then launch more hosts"
    )]
    Prime,
    /// Look after the addresses that weft gives.
    #[command(after_help = "Example:\n  weft ipam check && echo all is as it should be")]
    Ipam(IpamArgs),
    /// Take over the addresses of peers that are dead for good.
    #[command(name = "rmpeer")]
    RemovePeer(RemovePeerArgs),
    /// Show the state of the daemon, its links and its engine.
    Status(StatusArgs),
    /// Show the way that frames take to a peer, every hop of it, and why.
    Path(PathArgs),
    /// Measure round trips to a peer, inside the session and on the way that frames take.
    Ping(PingArgs),
    /// Show all peers and their links as a graph: `-o dot` for Graphviz, or `-o json`.
    #[command(after_help = "Example:\n  weft topology -o dot | dot -Tsvg > network.svg")]
    Topology,
    /// Print everything that the daemon knows about itself, as JSON or as a template picks it.
    Report(ReportArgs),
    /// List the attached containers: id, MAC, addresses.
    Ps(PsArgs),
    /// Give addresses a name in DNS.
    DnsAdd(DnsAddArgs),
    /// Take names of addresses out of DNS.
    DnsRemove(DnsRemoveArgs),
    /// Print the addresses of a name; nothing if there are none.
    DnsLookup(DnsLookupArgs),
    /// Print the arguments that make `docker run` use our DNS server.
    #[command(after_help = DNS_ARGS)]
    DnsArgs,
    /// Print what makes a shell's `docker` use the proxy: `eval $(weft env)`.
    Env(EnvArgs),
    /// Print the argument that makes one `docker` command use the proxy.
    #[command(after_help = "Example:\n  docker $(weft config) run -ti app")]
    Config,
    /// Print the version.
    #[command(after_help = "Example:\n  weft version -o json")]
    Version,
    /// Print a new token: a 256-bit secret that goes wherever a password goes.
    #[command(
        after_help = "Needs no stretching, unlike a password, and cannot be guessed.\n\nExample:\n  (umask 077; weft token > /etc/weft/token)    # copy it to all hosts, then on each:\n  weft launch --password-file /etc/weft/token host1"
    )]
    Token,
    /// Try weft on this machine: hosts in namespaces, real daemons, measured traffic.
    Demo(DemoArgs),
    /// Measure throughput, packet rate and latency to a peer through the real engine.
    Bench(BenchArgs),
    /// Check whether this host can run weft well, and say what to change.
    Doctor(DoctorArgs),
    /// Print what a machine needs besides the binary, to be put where it belongs.
    Setup(SetupArgs),
    /// Print a completion script for a shell.
    #[command(after_help = "Example:\n  weft completions bash > /etc/bash_completion.d/weft")]
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "The identity goes, too: the next launch is a new peer.\n\nExamples:\n  weft reset\n  weft reset --force    # the daemon was killed and left its bridge"
)]
pub(crate) struct ResetArgs {
    /// Also if no peer takes over the addresses; and remove what a daemon that is not running left behind.
    #[arg(long, env = "WEFT_FORCE", hide_env = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) force: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft connect 192.0.2.7 host3.example.org:7000 [2001:db8::7]:6783\n  weft connect --replace host1 host2    # the targets are these and no others"
)]
pub(crate) struct ConnectArgs {
    /// Empty the target list first.
    #[arg(long, env = "WEFT_REPLACE", hide_env = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) replace: bool,
    // Not a doc comment: rustdoc would take the brackets for links.
    #[arg(
        help = "host[:port], [IPv6]:port or a DNS name; looked up again at every attempt",
        value_name = "PEER",
        required_unless_present = "replace"
    )]
    pub(crate) peers: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A link that stands goes on; it is not dialled again once it breaks.\n\nExample:\n  weft forget host2 192.0.2.7:6783    # as `weft status targets` shows them"
)]
pub(crate) struct ForgetArgs {
    /// The peers, spelt as they were given.
    #[arg(value_name = "PEER", required = true)]
    pub(crate) peers: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    after_help = "The host then reaches every container of the subnet, wherever it runs; hosts without weft do over a route\nvia this one.\n\nExamples:\n  weft expose\n  weft expose net:default net:10.2.2.0/24\n  weft expose --without-masquerade 10.2.1.101/24\n  weft expose -h db                            # containers find the host as db.weave.local"
)]
pub(crate) struct ExposeArgs {
    /// Do not translate addresses: hosts outside need a route back.
    #[arg(long, env = "WEFT_WITHOUT_MASQUERADE", hide_env = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) without_masquerade: bool,
    /// A name for the host's addresses in DNS: whole, or one label of our domain; may be repeated.
    #[arg(short = 'h', value_name = "NAME")]
    pub(crate) names: Vec<String>,
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(help = "[ip:]CIDR, net:CIDR or net:default", value_name = "ADDRESS")]
    pub(crate) addresses: Vec<String>,
    /// Print help
    #[arg(long, hide = true, action = clap::ArgAction::Help)]
    pub(crate) help: Option<bool>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Mirrors expose; the names of these addresses go with them.\n\nExample:\n  weft hide net:10.2.2.0/24"
)]
pub(crate) struct HideArgs {
    // Not a doc comment: rustdoc would take the brackets for a link.
    #[arg(help = "[ip:]CIDR, net:CIDR or net:default", value_name = "ADDRESS")]
    pub(crate) addresses: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Most of the hosts that vote must be within reach; with --force none has to, and two hosts that force at\nonce, or a removed host that lives, can give one address twice until they meet.\n\nExamples:\n  weft rmpeer --dry-run host3\n  weft rmpeer host3 host4"
)]
pub(crate) struct RemovePeerArgs {
    /// Do without a majority, and remove a peer that is within reach.
    #[arg(long, env = "WEFT_FORCE", hide_env = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) force: bool,
    /// Only print what would be taken over.
    #[arg(long, env = "WEFT_DRY_RUN", hide_env = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) dry_run: bool,
    /// Names, nicknames or ids.
    #[arg(value_name = "PEER", required = true)]
    pub(crate) peers: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A link's line: direction, address, state, then encryption, cipher, way, round trip, MTU, peer.\nA Note is something that is not at its best, with what to do about it.\n\nExamples:\n  weft status\n  weft status connections\n  weft status connections -o json | jq '.[] | select(.state != \"established\")'"
)]
pub(crate) struct StatusArgs {
    /// One part of it alone.
    #[arg(value_enum, value_name = "PART")]
    pub(crate) part: Option<StatusPart>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StatusPart {
    /// The peers that somebody named, one a line.
    Targets,
    /// The links and attempts, one a line.
    Connections,
    /// Who owns which share of the addresses, one peer a line.
    Ipam,
    /// All peers of the network, each with its links.
    Peers,
    /// The names of all hosts, one a line: name, address, container, host.
    Dns,
}

const PEER: &str = "Name or nickname as `weft status peers` shows them, PeerId as its `-o json` does, address of \
                    the host or of a container on it";

#[derive(Debug, Args)]
#[command(
    after_help = "Each hop's line: peer, address, round trip, MTU, loss.\n\nExamples:\n  weft path host3\n  weft path ba:68:91:22:28:2b -o json"
)]
pub(crate) struct PathArgs {
    #[arg(help = PEER, value_name = "PEER")]
    pub(crate) peer: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  weft ping host3 --count 10")]
pub(crate) struct PingArgs {
    /// Round trips to measure, one a second.
    #[arg(short, long, env = "WEFT_COUNT", hide_env = true, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) count: u32,
    #[arg(help = PEER, value_name = "PEER")]
    pub(crate) peer: String,
}

const PS: &str = "\
The id is Docker's, cut to 12 digits, or the name, path or number by which a
namespace was attached; weave:expose is the host itself. endpoint:… is a container
on one of weft's networks in Docker that is not known itself: for a moment at its
start, or while Docker does not answer. What follows is the beginning of its
EndpointID in `docker network inspect NETWORK`.

Examples:
  weft ps
  weft ps web netns:blue -o json";

const DNS_ARGS: &str = "\
The server listens at two addresses. On a host with Docker this prints the one of
Docker's own bridge, 172.17.0.1 unless Docker was told otherwise, which a container
reaches before it is attached; on one without, 169.254.53.1 on weft's bridge
(launch --dns-address), which every container on the network reaches, on every host.

Example:
  docker run $(weft dns-args) -ti app";

const TEMPLATES: &str = "\
A template is text with actions in it, a part of Go's template language:
  {{.Router.NickName}}  {{.nickname}}  {{.engine.backend}}      a field; {{.}} is the value at hand, {{$}} the whole
  {{range .Router.Targets}}…{{else}}…{{end}}                    once for each; . is the element then
  {{if .attachments}}…{{else}}…{{end}}                          unless it is false, zero, empty or missing
  {{len .Router.Peers}}  {{json .connections}}  {{index .Router.Targets 0}}  {{.Router | json}}  {{(index .X 0).Y}}
  {{- … -}} takes the white space around with it, {{/* … */}} is a comment
Fields are those of `weft report`, and Weave's: Ready, Version, Router (Name, NickName, Port, Encryption, PeerDiscovery,
Peers, Connections, Targets, TrustedSubnets). A field that is not there ends the program with exit code 1.

Examples:
  weft report | jq .engine.counters
  weft report -f '{{.Router.Name}} {{len .Router.Connections}}{{\"\\n\"}}'
  weft report -f '{{range .Router.Targets}}{{.}} {{end}}'";

#[derive(Debug, Args)]
#[command(after_help = TEMPLATES)]
pub(crate) struct ReportArgs {
    /// Print what this template picks instead of the JSON.
    #[arg(
        short,
        long,
        env = "WEFT_FORMAT",
        hide_env = true,
        value_name = "TEMPLATE"
    )]
    pub(crate) format: Option<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = PS
)]
pub(crate) struct PsArgs {
    /// Only these; an unknown one is skipped.
    #[arg(value_name = "CONTAINER")]
    pub(crate) containers: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft demo\n  weft demo --hosts 4 --seconds 10\n  weft demo --keep     # leave it running and say how to look around"
)]
pub(crate) struct DemoArgs {
    /// Hosts to make.
    #[arg(long, env = "WEFT_HOSTS", hide_env = true, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub(crate) hosts: u8,
    /// Seconds of TCP through the overlay.
    #[arg(long, env = "WEFT_SECONDS", hide_env = true, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..=30))]
    pub(crate) seconds: u8,
    /// Leave the hosts running and say how to look around.
    #[arg(long, env = "WEFT_KEEP", hide_env = true, value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) keep: bool,
    /// Which part of the demo this process is: set by the demo itself.
    #[arg(long, hide = true, value_enum)]
    pub(crate) stage: Option<DemoStage>,
}

/// The demo runs itself again inside namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DemoStage {
    /// First process of the demo's own namespaces.
    Inside,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The frames are made and counted in memory: no container takes part. They fill the\nway to that peer, so what containers send there meanwhile is slower. A session is made first\nwhere there is none.\n\nExamples:\n  weft bench host2 --seconds 10\n  weft bench 192.0.2.7 -o json"
)]
pub(crate) struct BenchArgs {
    #[arg(help = PEER, value_name = "PEER")]
    pub(crate) peer: String,
    /// Seconds for each of the three parts: throughput, packets, latency.
    #[arg(long, env = "WEFT_SECONDS", hide_env = true, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=60))]
    pub(crate) seconds: u32,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Changes nothing. Exit code 1 if something stands in the way; a warning says what would be better.\n\nExamples:\n  weft doctor\n  weft doctor --port 7000 -o json"
)]
pub(crate) struct DoctorArgs {
    /// Port that the daemon will use, TCP and UDP.
    #[arg(long, env = "WEFT_PORT", value_name = "PORT", default_value_t = 6783, value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: u16,
}

#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell to complete in.
    #[arg(value_enum, value_name = "SHELL")]
    pub(crate) shell: Shell,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  weft setup systemd > /etc/systemd/system/weft.service\n  systemctl daemon-reload && systemctl enable --now weft"
)]
pub(crate) struct SetupArgs {
    /// Which part.
    #[arg(value_name = "PART", value_enum)]
    pub(crate) part: SetupPart,
}

/// What `weft setup` can print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SetupPart {
    /// A unit for systemd: ready notification, watchdog, reload, hardening.
    Systemd,
}

#[derive(Debug, Args)]
pub(crate) struct IpamArgs {
    #[command(subcommand)]
    pub(crate) verb: IpamVerb,
}

/// What can be done with `weft ipam`.
#[derive(Debug, Clone, Copy, Subcommand)]
pub(crate) enum IpamVerb {
    /// Compare ring, noted addresses and what containers really have; a line for each discrepancy, exit code 1 if any.
    #[command(
        after_help = "Works without a daemon, too: on what its store says.\n\nExample:\n  weft ipam check || weft status ipam"
    )]
    Check,
}
