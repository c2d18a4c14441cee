//! The arguments of `weft launch` about Docker's network plugin.

use std::path::PathBuf;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};

/// The arguments of the process that answers Docker once the daemon has ended.
#[derive(Debug, Args)]
pub(crate) struct StandInArgs {
    /// Folder of the sockets.
    #[arg(value_name = "DIR")]
    pub(crate) plugin_dir: PathBuf,
}

/// Docker's own way to networks.
#[derive(Debug, Args)]
#[command(next_help_heading = "Docker's networks")]
pub(crate) struct PluginArgs {
    /// Be a network plugin of Docker's, with the network `weft`: `docker run --net=weft`; names need `--dns 169.254.53.1` there.
    #[arg(long, env = "WEFT_PLUGIN", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "true", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) plugin: bool,
    /// The same as --plugin=false.
    #[arg(long, env = "WEFT_NO_PLUGIN", value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", default_value = "false", hide_default_value = true, hide_possible_values = true, action = ArgAction::Set, value_parser = BoolishValueParser::new())]
    pub(crate) no_plugin: bool,
    /// Folder in which Docker looks for the sockets of plugins.
    #[arg(
        long,
        env = "WEFT_PLUGIN_DIR",
        value_name = "DIR",
        default_value = "/run/docker/plugins"
    )]
    pub(crate) plugin_dir: PathBuf,
}
