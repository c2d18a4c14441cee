//! weft: the daemon, its client and its helpers in one binary.
//!
//! ```text
//!  argv ─► layers (flag > environment > file > default) ─► args ─► one file for each verb
//!                                                                   │
//!          status ps report connect forget attach detach bench ─► client ── unix socket ─► daemon
//!          launch ─► launch/background ── starts itself ─► launch/foreground ─► daemon
//!          demo, doctor, token, version, setup, completions need no daemon
//! ```

mod addresses;
mod args;
mod bench;
mod check;
mod client;
mod container;
mod daemon;
mod demo;
mod dns;
mod docker;
mod doctor;
mod failure;
mod launch;
mod layers;
mod leftovers;
mod logging;
mod mesh;
mod output;
mod report;
mod settings;
mod setup;
mod stand_in;
mod status;
mod stop;
mod template;
mod token;
// A program of its own, which `build.rs` compiles: here only its tests are run.
#[cfg(test)]
#[expect(dead_code, reason = "nothing here waits")]
#[path = "../wait/program.rs"]
mod wait_program;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::CommandFactory;
use serde_json::{Value, json};
use weft_control::api::{BenchRequest, ConnectRequest, ForgetRequest, Status};

use crate::args::{Cli, ConnectArgs, IpamArgs, IpamVerb, StatusPart, Verb};
use crate::client::Client;
use crate::output::Format;

fn main() -> ExitCode {
    let argv: Vec<OsString> = std::env::args_os().collect();
    match layers::parse(&argv, &|name| std::env::var(name).ok()).and_then(run) {
        Ok(code) => code,
        Err(error) => {
            output::talk(&format!("weft: {}", failure::one_line(&error)));
            failure::exit_code(&error)
        }
    }
}

/// Carries out one verb.
fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { places, verb } = cli;
    let client = Client::new(places.socket());
    let format = places.output;
    match verb {
        Verb::Launch(args) => return launch::run(&places, &args),
        Verb::Stop => stop::stop(&places)?,
        Verb::StandIn(args) => stand_in::run(&places, &args)?,
        Verb::Reset(args) => stop::reset(&places, args.force)?,
        Verb::Connect(args) => connect(&client, args)?,
        Verb::Forget(args) => {
            let _empty: Value = client.post("/forget", &ForgetRequest { peers: args.peers })?;
        }
        Verb::Attach(args) => container::attach(&client, args, format)?,
        Verb::Detach(args) => container::detach(&client, &args.words, format)?,
        Verb::DnsAdd(args) => dns::change(&client, "/dns/add", &args.words, args.name, format)?,
        Verb::DnsRemove(args) => {
            dns::change(&client, "/dns/remove", &args.words, args.name, format)?;
        }
        Verb::DnsLookup(args) => dns::lookup(&client, args, format)?,
        Verb::Env(args) => docker::environment(&client, args.restore, format)?,
        Verb::Config => docker::argument(&client, format)?,
        Verb::DnsArgs => dns::docker_arguments(&client, format)?,
        Verb::Expose(args) => addresses::expose(&client, args, format)?,
        Verb::Hide(args) => addresses::hide(&client, args.addresses, format)?,
        Verb::Prime => addresses::prime(&client)?,
        Verb::Ipam(IpamArgs {
            verb: IpamVerb::Check,
        }) => return check::run(&places),
        Verb::RemovePeer(args) => addresses::remove(&client, &args, format)?,
        Verb::Status(args) => show_status(&client, args.part, format)?,
        Verb::Path(args) => mesh::path(&client, &args.peer, format)?,
        Verb::Ping(args) => mesh::ping(&client, &args.peer, args.count, format)?,
        Verb::Topology => mesh::topology(&client, format)?,
        Verb::Report(args) => report::run(&client, args.format.as_deref())?,
        Verb::Ps(args) => container::list(&client, &args.containers, format)?,
        Verb::Version => version(format)?,
        Verb::Token => match format {
            Format::Text => output::line(&token::generate())?,
            Format::Json => output::json(&json!({ "token": *token::generate() }))?,
        },
        Verb::Bench(args) => bench::run(
            &client,
            &BenchRequest {
                peer: args.peer,
                seconds: args.seconds,
            },
            format,
        )?,
        Verb::Completions(args) => complete(args.shell)?,
        Verb::Setup(args) => setup::run(args.part)?,
        Verb::Doctor(args) => return doctor::run(&places, &args),
        Verb::Demo(args) => return demo::run(&places, &args),
    }
    Ok(ExitCode::SUCCESS)
}

fn show_status(client: &Client, part: Option<StatusPart>, format: Format) -> anyhow::Result<()> {
    match part {
        Some(StatusPart::Peers) => return mesh::show_peers(client, format),
        Some(StatusPart::Dns) => return dns::entries(client, format),
        Some(StatusPart::Targets | StatusPart::Connections | StatusPart::Ipam) | None => {}
    }
    let status: Status = client.get("/status")?;
    match (part, format) {
        (None | Some(StatusPart::Peers | StatusPart::Dns), Format::Text) => {
            output::data(&status::overview(&status))
        }
        (None | Some(StatusPart::Peers | StatusPart::Dns), Format::Json) => output::json(&status),
        (Some(StatusPart::Targets), Format::Text) => {
            output::data(&status::targets(&status.targets))
        }
        (Some(StatusPart::Targets), Format::Json) => output::json(&status.targets),
        (Some(StatusPart::Connections), Format::Text) => {
            output::data(&status::connections(&status))
        }
        (Some(StatusPart::Connections), Format::Json) => output::json(&status.connections),
        (Some(StatusPart::Ipam), Format::Text) => {
            if let Some(state) = addresses::why_not_ready(status.ipam.as_ref()) {
                output::talk(&format!("weft: {state}"));
            }
            output::data(&addresses::owners(status.ipam.as_ref(), &status.peer_id))
        }
        (Some(StatusPart::Ipam), Format::Json) => output::json(&status.ipam),
    }
}

fn connect(client: &Client, args: ConnectArgs) -> anyhow::Result<()> {
    let request = ConnectRequest {
        peers: args.peers,
        replace: args.replace,
    };
    let _empty: Value = client.post("/connect", &request)?;
    Ok(())
}

fn version(format: Format) -> anyhow::Result<()> {
    match format {
        Format::Text => output::line(concat!("weft ", env!("CARGO_PKG_VERSION"))),
        Format::Json => output::json(&json!({ "version": env!("CARGO_PKG_VERSION") })),
    }
}

fn complete(shell: clap_complete::Shell) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "weft", &mut script);
    output::data(&String::from_utf8(script)?)
}
