//! Tests of the layers: which one wins, and what is said about a bad one.

use super::*;
use crate::args::{LaunchArgs, Verb};

/// Parses a line under a made-up environment and configuration file.
fn parse_with(line: &str, variables: &[(&str, &str)], file: &str) -> anyhow::Result<Cli> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("weft.toml");
    std::fs::write(&path, file).unwrap();
    let mut argv: Vec<OsString> = vec!["weft".into(), "--config".into(), path.into()];
    argv.extend(line.split_whitespace().map(OsString::from));
    let lookup = |name: &str| {
        variables
            .iter()
            .find(|(variable, _)| *variable == name)
            .map(|(_, value)| (*value).to_owned())
    };
    parse(&argv, &lookup)
}

fn launch_with(line: &str, variables: &[(&str, &str)], file: &str) -> LaunchArgs {
    let Verb::Launch(args) = parse_with(line, variables, file).unwrap().verb else {
        panic!("not a launch: {line}");
    };
    *args
}

fn failure_of(line: &str, variables: &[(&str, &str)], file: &str) -> String {
    let error = parse_with(line, variables, file).unwrap_err();
    assert!(
        matches!(error.downcast_ref(), Some(Failure::Usage(_))),
        "{error:#}"
    );
    error.to_string()
}

#[test]
fn the_file_beats_the_default() {
    let args = launch_with(
        "launch",
        &[],
        "port = 7000\npeers = [\"a\", \"b:1\"]\nio = \"epoll\"\nno-discovery = true",
    );

    assert_eq!(args.peer.port, 7000);
    assert_eq!(args.peers, ["a", "b:1"]);
    assert_eq!(args.engine.io, crate::args::Io::Epoll);
    assert!(args.peer.no_discovery);
}

#[test]
fn weaves_variables_beat_the_file() {
    let variables = [
        ("WEAVE_PORT", "7001"),
        ("WEAVE_MTU", "1300"),
        ("WEAVE_PASSWORD", "secret"),
    ];
    let args = launch_with("launch", &variables, "port = 7000\nmtu = 1200");

    assert_eq!((args.peer.port, args.engine.mtu), (7001, 1300));
    assert_eq!(args.peer.password.len(), 1);
    assert_eq!(args.peer.password[0].reveal(), "secret");
}

#[test]
fn a_flag_beats_all() {
    let args = launch_with(
        "launch --port 7002 --no-discovery=false z",
        &[("WEAVE_PORT", "7001")],
        "port = 7000\npeers = [\"a\"]\nno-discovery = true",
    );

    assert_eq!(args.peer.port, 7002);
    assert_eq!(args.peers, ["z"]);
    assert!(!args.peer.no_discovery);
}

#[test]
fn an_empty_weave_variable_counts_as_absent() {
    assert_eq!(
        launch_with("launch", &[("WEAVE_PORT", "")], "").peer.port,
        6783
    );
}

#[test]
fn the_listeners_of_later_verbs_do_not_disturb() {
    let variables = [
        ("WEAVE_HTTP_ADDR", "127.0.0.1:6784"),
        ("WEAVE_STATUS_ADDR", "127.0.0.1:6782"),
    ];

    assert_eq!(launch_with("launch", &variables, "").peer.port, 6783);
}

#[test]
fn places_come_from_the_file_for_every_verb() {
    let cli = parse_with(
        "status connections -o json",
        &[],
        "run-dir = \"/tmp/r\"\nbridge = \"br0\"",
    )
    .unwrap();

    assert_eq!(cli.places.run_dir, Path::new("/tmp/r"));
    assert_eq!(cli.places.bridge, "br0");
    assert_eq!(cli.places.output, crate::output::Format::Json);
}

#[test]
fn an_unknown_key_is_named() {
    let line = failure_of("status", &[], "prot = 7000");

    assert!(
        line.contains("unknown key `prot`") && line.contains("port"),
        "{line}"
    );
    assert!(
        !line.contains("rekey-interval-ms") && !line.contains('\n'),
        "{line}"
    );
}

#[test]
fn a_file_that_is_no_toml_is_named_with_its_line() {
    let line = failure_of("status", &[], "port = 7000\nmtu =\n");

    assert!(line.contains("weft.toml line 2"), "{line}");
}

#[test]
fn a_table_is_no_value() {
    assert!(failure_of("status", &[], "[port]\nx = 1").contains("key `port`"));
}

#[test]
fn a_bad_value_names_the_layer_it_came_from() {
    let from_file = failure_of("launch", &[], "port = 99999");
    assert!(
        from_file.contains("99999") && from_file.contains("key `port`"),
        "{from_file}"
    );

    let from_weave = failure_of("launch", &[("WEAVE_MTU", "big")], "");
    assert!(
        from_weave.contains("'big'") && from_weave.contains("WEAVE_MTU"),
        "{from_weave}"
    );
}

#[test]
fn a_bad_flag_is_one_line_that_says_what_is_accepted() {
    let line = failure_of("launch --io fast", &[], "");

    assert_eq!(
        line,
        "invalid value 'fast' for '--io <BACKEND>' [possible values: auto, uring, epoll]"
    );
}

#[test]
fn every_flag_has_a_variable_of_its_name() {
    let command = Cli::command();
    let verbs = command.get_subcommands().flat_map(Command::get_arguments);
    for arg in command.get_arguments().chain(verbs) {
        let Some(long) = arg.get_long() else { continue };
        if arg.is_hide_set() && arg.get_env().is_none() {
            continue; // how weft starts itself
        }
        let expected = format!("WEFT_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(
            arg.get_env().and_then(|name| name.to_str()),
            Some(expected.as_str()),
            "--{long}"
        );
    }
}

#[test]
fn every_verb_teaches_by_an_example() {
    let verbs = Cli::command();
    for verb in verbs.get_subcommands().filter(|verb| !verb.is_hide_set()) {
        let help = verb.get_after_help().map(ToString::to_string);
        assert!(
            help.is_some_and(|help| help.contains("Example")),
            "{} --help",
            verb.get_name()
        );
    }
}

#[test]
fn the_argument_tree_is_sound() {
    Cli::command().debug_assert();
}
