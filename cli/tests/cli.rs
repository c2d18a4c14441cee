//! Runs the binary the way a user or a script does, without a daemon: exit codes and single lines.

use std::process::{Command, Output};

use tempfile::TempDir;

/// Runs `weft` with places of its own and nothing of the caller's environment.
fn weft(dir: &TempDir, args: &[&str]) -> Output {
    weft_with(dir, args, &[])
}

fn weft_with(dir: &TempDir, args: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_weft"))
        .env_clear()
        .env("WEFT_RUN_DIR", dir.path().join("run"))
        .env("WEFT_DATA_DIR", dir.path().join("data"))
        .envs(variables.iter().copied())
        .args(args)
        .output()
        .expect("the binary was built with this test")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("stdout is text")
}

/// Returns what was said on stderr after checking that it is one line.
fn one_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).expect("stderr is text");
    assert_eq!(text.lines().count(), 1, "not one line: {text}");
    text.trim().to_owned()
}

#[test]
fn without_a_daemon_every_asking_verb_exits_3_and_says_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let verbs: [&[&str]; 12] = [
        &["status"],
        &["status", "targets"],
        &["status", "connections", "-o", "json"],
        &["report"],
        &["ps"],
        &["connect", "192.0.2.1"],
        &["forget", "192.0.2.1"],
        &["attach", "10.2.1.1/24", "netns:blue"],
        &["detach", "10.2.1.1/24", "netns:blue"],
        &["bench", "host2"],
        &["env"],
        &["config"],
    ];
    for verb in verbs {
        let output = weft(&dir, verb);

        assert_eq!(output.status.code(), Some(3), "{verb:?}");
        assert!(one_line(&output).contains("weft launch"), "{verb:?}");
        assert_eq!(stdout(&output), "", "{verb:?}");
    }
}

#[test]
fn stopping_what_does_not_run_is_said_and_done() {
    let dir = tempfile::tempdir().unwrap();

    let output = weft(&dir, &["stop"]);

    assert_eq!(output.status.code(), Some(0));
    assert!(one_line(&output).contains("not running"));
}

#[test]
fn resetting_a_stopped_peer_needs_force() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("data/store");
    std::fs::create_dir(dir.path().join("data")).unwrap();
    std::fs::write(&store, "state").unwrap();

    let refused = weft(&dir, &["reset"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(one_line(&refused).contains("--force"));
    assert!(store.exists());
}

#[test]
fn a_line_that_does_not_parse_exits_2_and_names_the_culprit() {
    let dir = tempfile::tempdir().unwrap();
    let lines: [(&[&str], &str); 16] = [
        (&["--nonsense"], "--nonsense"),
        (&["launch", "-H", "foo"], "-H, --proxy-host `foo`"),
        (&["lanch"], "lanch"),
        (&["launch", "--port", "many"], "many"),
        (&["launch", "--port", "0"], "--port"),
        (&["launch", "--mtu", "12"], "--mtu"),
        (&["launch", "--io", "fast"], "fast"),
        (&["launch", "--host", "nowhere"], "nowhere"),
        (&["launch", "--name", "not-a-name"], "not-a-name"),
        (&["launch", "--log-level", "loud"], "loud"),
        (
            &["launch", "--bridge", "a-name-of-seventeen"],
            "a-name-of-seventeen",
        ),
        (&["launch", "192.0.2.1:99999"], "99999"),
        (&["attach", "10.2.1.1", "netns:blue"], "10.2.1.1/24"),
        (&["status", "weather"], "weather"),
        (&["attach", "10.2.1.1/24"], "no container"),
        (&["forget"], "PEER"),
    ];
    for (line, culprit) in lines {
        let output = weft(&dir, line);

        assert_eq!(output.status.code(), Some(2), "{line:?}");
        let said = one_line(&output);
        assert!(said.contains(culprit), "{line:?} says {said}");
    }
}

#[test]
fn an_argument_that_parses_and_makes_no_sense_exits_1() {
    let dir = tempfile::tempdir().unwrap();
    let lines: [(&[&str], &str); 2] = [
        (&["launch", "--resume", "host1"], "--resume"),
        (
            &["launch", "--password-file", "/nonexistent/key"],
            "/nonexistent/key",
        ),
    ];
    for (line, culprit) in lines {
        let output = weft(&dir, line);

        assert_eq!(output.status.code(), Some(1), "{line:?}");
        let said = one_line(&output);
        assert!(said.contains(culprit), "{line:?} says {said}");
    }
    assert!(!dir.path().join("run/weft.pid").exists());
}

#[test]
fn the_configuration_file_is_read_and_its_faults_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weft.toml");
    std::fs::write(&file, "run-dir = \"/nonexistent/from-file\"\nprot = 1\n").unwrap();
    let file = file.to_str().unwrap();

    let unknown = weft(&dir, &["--config", file, "status"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(one_line(&unknown).contains("`prot`"));

    std::fs::write(file, "run-dir = \"/nonexistent/from-file\"\n").unwrap();
    let from_file = weft_with(
        &dir,
        &["status"],
        &[("WEFT_CONFIG", file), ("WEFT_RUN_DIR", "")],
    );
    assert_eq!(from_file.status.code(), Some(3));
    assert!(one_line(&from_file).contains("/nonexistent/from-file/weft.sock"));

    let missing = weft(&dir, &["--config", "/nonexistent/weft.toml", "status"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(one_line(&missing).contains("/nonexistent/weft.toml"));
}

#[test]
fn the_environment_beats_the_file_and_a_flag_beats_both() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("weft.toml");
    std::fs::write(&file, "run-dir = \"/nonexistent/file\"\n").unwrap();
    let file = file.to_str().unwrap();
    let variables = [("WEFT_CONFIG", file), ("WEFT_RUN_DIR", "/nonexistent/env")];

    assert!(one_line(&weft_with(&dir, &["ps"], &variables)).contains("/nonexistent/env/"));
    let flag = ["ps", "--run-dir", "/nonexistent/flag"];
    assert!(one_line(&weft_with(&dir, &flag, &variables)).contains("/nonexistent/flag/"));
}

#[test]
fn version_token_and_completions_need_no_daemon() {
    let dir = tempfile::tempdir().unwrap();

    let version = weft(&dir, &["version"]);
    assert_eq!(
        stdout(&version),
        format!("weft {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(stdout(&weft(&dir, &["--version"])), stdout(&version));
    let version: serde_json::Value =
        serde_json::from_str(&stdout(&weft(&dir, &["version", "-o", "json"]))).unwrap();
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));

    let token = stdout(&weft(&dir, &["token"]));
    assert!(
        token.starts_with("weft-token-") && token.trim().len() == "weft-token-".len() + 64,
        "{token}"
    );

    for shell in ["bash", "zsh", "fish"] {
        let script = stdout(&weft(&dir, &["completions", shell]));
        assert!(
            script.contains("weft") && script.contains("attach"),
            "{shell}"
        );
    }
}

#[test]
fn called_as_weave_it_behaves_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let weave = dir.path().join("weave");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_weft"), &weave).unwrap();
    let run = |args: &[&str]| {
        Command::new(&weave)
            .env_clear()
            .args(args)
            .output()
            .unwrap()
    };

    assert_eq!(
        run(&["--run-dir", "/nonexistent", "status"]).status.code(),
        Some(3)
    );
    assert_eq!(
        stdout(&run(&["version"])),
        format!("weft {}\n", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(run(&["start"]).status.code(), Some(2));
}

#[test]
fn help_teaches_and_goes_to_stdout() {
    let dir = tempfile::tempdir().unwrap();

    let help = weft(&dir, &["--help"]);

    assert_eq!(help.status.code(), Some(0));
    let text = stdout(&help);
    for taught in ["weft demo", "weft launch", "WEFT_", "Exit codes"] {
        assert!(text.contains(taught), "{taught} is missing");
    }
    let nothing = weft(&dir, &[]);
    assert_eq!(nothing.status.code(), Some(2));
    assert_eq!(stdout(&nothing), "");
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let command = format!(
        "{} completions zsh | true; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_weft")
    );

    let output = Command::new("/bin/bash")
        .args(["-c", &command])
        .current_dir(dir.path())
        .output()
        .unwrap();

    assert_eq!(String::from_utf8(output.stdout).unwrap().trim(), "0");
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn the_handover_shows_nothing_of_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();

    let output = weft(&dir, &["launch", "--handover"]);

    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("weft launch"));
}
