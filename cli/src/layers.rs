//! Puts the layers of settings together: flag, environment, configuration file, default.
//!
//! ```text
//!  flag  >  WEFT_…  >  WEAVE_… (five of them)  >  configuration file  >  default
//! ```
//!
//! clap itself knows flags, `WEFT_…` and defaults. The two layers between become defaults of a second
//! parse, so that one parser judges every value wherever it came from.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, CommandFactory, FromArgMatches};

use crate::args::Cli;
use crate::failure::Failure;

/// Where the configuration file is when nobody says otherwise.
const CONFIG_PATH: &str = "/etc/weft/weft.toml";

/// Weave's variables that are still understood, and the flag each one means.
///
/// `WEAVE_HTTP_ADDR` and `WEAVE_STATUS_ADDR` speak of flags that come with their listeners.
const WEAVE_VARIABLES: [(&str, &str); 5] = [
    ("WEAVE_PASSWORD", "password"),
    ("WEAVE_MTU", "mtu"),
    ("WEAVE_PORT", "port"),
    ("WEAVE_HTTP_ADDR", "http-addr"),
    ("WEAVE_STATUS_ADDR", "status-addr"),
];

/// Flags that make no sense in a file.
const NOT_IN_FILE: [&str; 4] = ["config", "help", "version", "handover"];

/// What clap calls an error and is an answer; the last one goes to stderr with exit code 2.
const HELP: [ErrorKind; 3] = [
    ErrorKind::DisplayHelp,
    ErrorKind::DisplayVersion,
    ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand,
];

/// What a lower layer says about one flag.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Setting {
    values: Vec<String>,
    origin: String,
}

/// Settings of the lower layers, by the flag's name.
type Settings = BTreeMap<String, Setting>;

/// Reads the command line with all layers below it.
///
/// # Errors
///
/// [`Failure::Usage`] in one line for whatever does not parse. Help and version are printed and end
/// the process with code 0.
pub(crate) fn parse(
    argv: &[OsString],
    environment: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Cli> {
    let command = command(environment);
    let first = read(&command, argv, environment)?;
    let mut settings = match config_path(first.places.config.as_deref()) {
        Some(path) => read_file(&path, &command)?,
        None => Settings::new(),
    };
    for (variable, flag) in WEAVE_VARIABLES {
        if let Some(value) = environment(variable).filter(|value| !value.is_empty()) {
            let origin = format!("environment variable {variable}");
            settings.insert(
                flag.to_owned(),
                Setting {
                    values: vec![value],
                    origin,
                },
            );
        }
    }
    if settings.is_empty() {
        return Ok(first);
    }
    let layered = with_defaults(command, &settings);
    match layered.try_get_matches_from(argv) {
        Ok(matches) => Ok(Cli::from_arg_matches(&matches)?),
        Err(error) => Err(Failure::Usage(name_origin(&error, &settings)).into()),
    }
}

/// Returns the argument tree in which an empty variable counts as an absent one.
fn command(environment: &dyn Fn(&str) -> Option<String>) -> Command {
    let blank = |arg: &Arg| {
        arg.get_env()
            .and_then(|name| name.to_str())
            .and_then(environment)
            .is_some_and(|value| value.is_empty())
    };
    each_arg(Cli::command(), &|arg| {
        if blank(&arg) {
            arg.env(None::<&str>)
        } else {
            arg
        }
    })
}

/// Applies a change to the arguments of the command and of its verbs.
fn each_arg(command: Command, change: &dyn Fn(Arg) -> Arg) -> Command {
    let verbs: Vec<String> = command
        .get_subcommands()
        .map(|verb| verb.get_name().to_owned())
        .collect();
    let command = command.mut_args(change);
    verbs.iter().fold(command, |command, verb| {
        command.mut_subcommand(verb, |verb| verb.mut_args(change))
    })
}

/// Parses once; what clap wants to say goes out in the way of this program.
fn read(
    command: &Command,
    argv: &[OsString],
    environment: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Cli> {
    match command.clone().try_get_matches_from(argv) {
        Ok(matches) => Ok(Cli::from_arg_matches(&matches)?),
        Err(error) if HELP.contains(&error.kind()) => error.exit(),
        Err(error) => {
            let mut line = one_line(&error);
            if let Some(variable) = variable_of(&error, command, argv, environment) {
                line = format!("{line} (from environment variable {variable})");
            }
            Err(Failure::Usage(line).into())
        }
    }
}

/// The `WEFT_…` variable that a refused value came from, if it did.
fn variable_of(
    error: &clap::Error,
    command: &Command,
    argv: &[OsString],
    environment: &dyn Fn(&str) -> Option<String>,
) -> Option<String> {
    let flag = flag_of(error)?;
    let Some(ContextValue::String(refused)) = error.get(ContextKind::InvalidValue) else {
        return None;
    };
    let typed = format!("--{flag}");
    if argv
        .iter()
        .any(|word| word.to_string_lossy().starts_with(&typed))
    {
        return None;
    }
    let verbs = command.get_subcommands().flat_map(Command::get_arguments);
    let mut args = command.get_arguments().chain(verbs);
    let variable = args.find(|arg| key_of(arg) == flag)?.get_env()?.to_str()?;
    let is_it = environment(variable).is_some_and(|value| value.contains(refused.as_str()));
    is_it.then(|| variable.to_owned())
}

/// The flag that an error is about.
fn flag_of(error: &clap::Error) -> Option<String> {
    let Some(ContextValue::String(culprit)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = culprit
        .trim_start_matches('-')
        .split([' ', '=', '['])
        .next();
    flag.map(str::to_owned)
}

/// Returns clap's words without the usage block, joined into one line.
fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut line = String::new();
    for part in text
        .lines()
        .map(str::trim)
        .take_while(|part| !part.starts_with("Usage:"))
    {
        let part = part.strip_prefix("error: ").unwrap_or(part);
        if part.is_empty() || part.starts_with("For more information") {
            continue;
        }
        if !line.is_empty() {
            line.push_str(if part.starts_with("tip: ") { "; " } else { " " });
        }
        line.push_str(part.strip_prefix("tip: ").unwrap_or(part));
    }
    line
}

/// Says which layer a value came from that the second parse refused.
fn name_origin(error: &clap::Error, settings: &Settings) -> String {
    let line = one_line(error);
    match flag_of(error).and_then(|flag| settings.get(&flag)) {
        Some(setting) => format!("{line} (from {})", setting.origin),
        None => line,
    }
}

/// Returns the file to read: the given one, else the usual one if it is there.
fn config_path(given: Option<&Path>) -> Option<PathBuf> {
    match given {
        Some(path) => Some(path.to_owned()),
        None => Some(PathBuf::from(CONFIG_PATH)).filter(|path| path.exists()),
    }
}

fn read_file(path: &Path, command: &Command) -> anyhow::Result<Settings> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("read configuration file {}", path.display()))?;
    let settings =
        parse_file(&text, &path.display().to_string(), command).map_err(Failure::Usage)?;
    Ok(settings)
}

/// Reads the file's text; every key is the name of a flag.
fn parse_file(text: &str, name: &str, command: &Command) -> Result<Settings, String> {
    let table: toml::Table = toml::from_str(text).map_err(|error| {
        let line = error
            .span()
            .map_or(1, |span| text[..span.start].lines().count().max(1));
        format!("{name} line {line}: {}", error.message().replace('\n', " "))
    })?;
    let known = file_keys(command);
    let mut settings = Settings::new();
    for (key, value) in table {
        if !known.iter().any(|(known, _)| *known == key) {
            let shown: Vec<&str> = known
                .iter()
                .filter(|(_, hidden)| !hidden)
                .map(|(key, _)| key.as_str())
                .collect();
            return Err(format!(
                "{name}: unknown key `{key}`; known keys: {}",
                shown.join(", ")
            ));
        }
        let values = scalars(&value).ok_or_else(|| {
            format!(
                "{name}: key `{key}` takes a string, a number, true or false, or a list of these"
            )
        })?;
        let origin = format!("key `{key}` of {name}");
        settings.insert(key, Setting { values, origin });
    }
    Ok(settings)
}

/// Returns the keys that a file may have, the flags that go with every verb and those of `launch`; and
/// whether each is hidden from people.
fn file_keys(command: &Command) -> Vec<(String, bool)> {
    let launch = command.find_subcommand("launch");
    let args = command
        .get_arguments()
        .chain(launch.into_iter().flat_map(Command::get_arguments));
    let mut keys: Vec<(String, bool)> = args.map(|arg| (key_of(arg), arg.is_hide_set())).collect();
    keys.retain(|(key, _)| !NOT_IN_FILE.contains(&key.as_str()));
    keys.sort();
    keys
}

/// Returns an argument's key: its long flag, or its own name if it is positional.
fn key_of(arg: &Arg) -> String {
    arg.get_long().unwrap_or(arg.get_id().as_str()).to_owned()
}

fn scalars(value: &toml::Value) -> Option<Vec<String>> {
    match value.as_array() {
        Some(items) => items.iter().map(scalar).collect(),
        None => scalar(value).map(|text| vec![text]),
    }
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Float(number) => Some(number.to_string()),
        toml::Value::Boolean(truth) => Some(truth.to_string()),
        toml::Value::Datetime(_) | toml::Value::Array(_) | toml::Value::Table(_) => None,
    }
}

/// Makes the settings the defaults of the flags with their names, except where the verb has not got them.
fn with_defaults(command: Command, settings: &Settings) -> Command {
    each_arg(command, &|arg| match settings.get(&key_of(&arg)) {
        Some(setting) => arg.default_values(setting.values.clone()),
        None => arg,
    })
}

#[cfg(test)]
mod tests;
