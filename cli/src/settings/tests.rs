//! Tests of what `launch` accepts and fills in.

use std::ffi::OsString;

use super::*;
use crate::args::{Cli, Verb};
use crate::layers;

fn settings(line: &str) -> anyhow::Result<Settings> {
    let argv: Vec<OsString> = line.split_whitespace().map(OsString::from).collect();
    let Cli { places, verb } = layers::parse(&argv, &|_| None)?;
    let Verb::Launch(args) = verb else {
        panic!("the line is not a launch: {line}");
    };
    Settings::new(&places, &args)
}

#[test]
fn defaults_are_those_of_the_interface() {
    let settings = settings("weft --config /dev/null launch").unwrap();

    assert_eq!(settings.run_dir, Path::new("/run/weft"));
    assert_eq!(settings.data_dir, Path::new("/var/lib/weft"));
    assert_eq!((settings.port, settings.mtu), (6783, 1376));
    assert_eq!(
        (settings.bridge.as_str(), settings.network.as_str()),
        ("weft", "weft")
    );
    assert!(settings.discovery && settings.open_membership() && !settings.nickname.is_empty());
}

#[test]
fn the_plugin_can_be_left_out_in_either_way() {
    let dir = |flags: &str| {
        let line = format!("weft --config /dev/null launch {flags}");
        settings(&line).unwrap().plugin_dir
    };

    assert_eq!(dir(""), Some(PathBuf::from("/run/docker/plugins")));
    assert_eq!(dir("--plugin"), Some(PathBuf::from("/run/docker/plugins")));
    assert_eq!(dir("--plugin-dir /p"), Some(PathBuf::from("/p")));
    assert_eq!(dir("--plugin=false"), None);
    assert_eq!(dir("--no-plugin"), None);
}

#[test]
fn an_empty_address_of_docker_leaves_it_alone() {
    let settings = |flags: &str| {
        let line = format!("weft --config /dev/null launch {flags}");
        settings(&line).unwrap()
    };
    let off = settings("--docker-host= --plugin --proxy");
    assert!(off.docker.is_off() && !off.docker.proxy);
    assert_eq!(off.plugin_dir, None);
    assert!(!settings("--docker-host=unix:///d.sock").docker.is_off());
    assert!(!settings("--no-plugin --no-proxy").docker.is_off());
}

#[test]
fn relative_places_become_absolute() {
    let settings = settings("weft --config /dev/null --run-dir r --data-dir ./d launch").unwrap();

    assert!(settings.run_dir.is_absolute() && settings.run_dir.ends_with("r"));
    assert!(settings.data_dir.is_absolute() && settings.data_dir.ends_with("d"));
}

#[test]
fn resume_and_peers_exclude_each_other() {
    let error = settings("weft --config /dev/null launch --resume host1").unwrap_err();

    assert!(error.to_string().contains("`host1`"), "{error}");
}

#[test]
fn an_interface_name_that_is_too_long_is_named() {
    let error = settings("weft --config /dev/null --bridge sixteen-letters- launch").unwrap_err();

    assert!(
        format!("{error:#}").contains("sixteen-letters-"),
        "{error:#}"
    );
    assert!(settings("weft --config /dev/null --bridge fifteen-letters launch").is_ok());
    assert!(settings("weft --config /dev/null --bridge a/b launch").is_err());
}

#[test]
fn an_open_network_is_warned_about_with_the_flag_that_closes_it() {
    let open = settings("weft --config /dev/null launch --port 7000").unwrap();
    let closed = settings("weft --config /dev/null launch --password secret").unwrap();

    let warning = open.open_warning().unwrap();
    assert!(
        warning.contains("7000") && warning.contains("--password-file"),
        "{warning}"
    );
    assert_eq!(closed.open_warning(), None);
}

#[test]
fn a_password_file_that_others_can_read_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    fs::write(&file, "secret").unwrap();
    let line = format!(
        "weft --config /dev/null launch --password-file {}",
        file.display()
    );
    for (mode, warned) in [(0o600, false), (0o640, true), (0o604, true)] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        let warnings = settings(&line).unwrap().warnings();
        let told = warnings.iter().any(|warning| warning.contains("chmod 600"));
        assert_eq!(told, warned, "{mode:o}: {warnings:?}");
    }
}

#[test]
fn a_password_file_gives_a_secret_for_each_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    fs::write(&file, "new secret\n\nold secret\r\n").unwrap();

    let line = format!(
        "weft --config /dev/null launch --password first --password-file {}",
        file.display()
    );
    let settings = settings(&line).unwrap();

    let revealed: Vec<String> = settings
        .all_secrets()
        .unwrap()
        .iter()
        .map(|s| s.reveal().to_owned())
        .collect();
    assert_eq!(revealed, ["first", "new secret", "old secret"]);
}

#[test]
fn an_empty_or_missing_password_file_never_opens_the_network() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("key");
    let line = format!(
        "weft --config /dev/null launch --password-file {}",
        file.display()
    );

    assert!(settings(&line).is_err());
    fs::write(&file, "\n\n").unwrap();
    let error = settings(&line).unwrap_err();
    assert!(error.to_string().contains("holds no secret"), "{error}");
}

#[test]
fn secrets_are_never_shown() {
    let settings = settings("weft --config /dev/null launch --password hunter2").unwrap();

    assert!(!format!("{settings:?}").contains("hunter2"));
}

#[test]
fn what_no_daemon_could_use_is_named_before_one_is_started() {
    for (line, culprit) in [
        ("launch 192.0.2.1:99999", "192.0.2.1:99999"),
        ("launch host1 -a-", "-a-"),
        ("launch --name not-a-name", "not-a-name"),
        ("launch --name 00:00:00:00:00:00", "reserved"),
        ("launch --password weft-token-123", "token is damaged"),
        ("launch --docker-host tcp", "--docker-host"),
        (
            "launch --password a --password b --password c --password d --password e",
            "at most 4",
        ),
    ] {
        let line = line
            .replacen("launch", "weft --config /dev/null launch", 1)
            .replace(" -a-", " -- -a-");
        let error = settings(&line).unwrap_err();
        assert!(
            crate::failure::one_line(&error).contains(culprit),
            "{line}: {error:#}"
        );
    }
}

#[test]
fn names_are_taken_in_weaves_short_form() {
    let settings = settings("weft --config /dev/null launch --name ::1 --nickname host-1").unwrap();

    assert_eq!(
        settings.peer_name().unwrap().unwrap().to_string(),
        "00:00:00:00:00:01"
    );
}
