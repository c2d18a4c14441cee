//! A shell on a host of the lab, into which a test types what a user types.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

use crate::host::Host;
use crate::sandbox::LAB_BINARIES;

/// Begins the line that the shell says after each command, with the command's exit code.
const MARK: &str = "weft-lab-said";
const SAY_SO: &str = "printf '\\n%s %s\\n' weft-lab-said $?";
/// A command that takes longer hangs.
const COMMAND_LIMIT: Duration = Duration::from_secs(60);

/// A shell that keeps its variables from command to command; dropped, it ends.
#[derive(Debug)]
pub struct Terminal {
    /// What stands before a command: `host1$`, or `a2#` inside a container.
    prompts: Vec<String>,
    /// Names of the lab that stand for what a user's machine has.
    places: Vec<(String, String)>,
    shell: Child,
    keys: ChildStdin,
    lines: Receiver<String>,
}

impl Terminal {
    /// A shell with `weft` and `docker` in its path, their files where the lab has them, and these variables.
    #[must_use]
    pub(crate) fn open(host: &Host, folder: &str, variables: &[(&str, &str)]) -> Self {
        let mut command = host.command("bash");
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy();
            if ["DOCKER_", "WEFT_", "WEAVE_"]
                .iter()
                .any(|own| name.starts_with(own))
            {
                command.env_remove(&*name);
            }
        }
        let paths = std::env::var("PATH").unwrap_or_default();
        let (run_dir, data_dir) = (format!("{folder}/run"), format!("{folder}/data"));
        command
            .args(["--noprofile", "--norc"])
            .env("PATH", format!("{LAB_BINARIES}:{paths}:/usr/sbin:/sbin"))
            .env("DOCKER_CONFIG", format!("{folder}/docker-client"))
            .envs([("WEFT_RUN_DIR", &run_dir), ("WEFT_DATA_DIR", &data_dir)])
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut shell = command.spawn().expect("bash is installed");
        let keys = shell.stdin.take().expect("it is piped");
        let said = BufReader::new(shell.stdout.take().expect("it is piped"));
        let (heard, lines) = channel();
        thread::spawn(move || {
            for line in said.split(b'\n').map_while(Result::ok) {
                let line = String::from_utf8_lossy(&line).replace('\r', "");
                if heard.send(line).is_err() {
                    break;
                }
            }
        });
        let places = [(run_dir, "/run/weft"), (data_dir, "/var/lib/weft")];
        let mut terminal = Self {
            prompts: vec![format!("{}$", host.name())],
            places: places.map(|(own, usual)| (own, usual.to_owned())).into(),
            shell,
            keys,
            lines,
        };
        terminal.quietly("exec 2>&1");
        terminal
    }

    /// What stands before the next command.
    #[must_use]
    pub fn prompt(&self) -> &str {
        self.prompts.last().expect("the host's own stays")
    }

    /// Enters a command and waits for its end; returns its exit code and all that it said.
    ///
    /// # Panics
    ///
    /// If it hangs.
    pub fn enter(&mut self, line: &str) -> (i32, String) {
        self.key(line);
        self.key(SAY_SO);
        self.listen(line)
    }

    /// What comes before the next mark.
    fn listen(&mut self, line: &str) -> (i32, String) {
        let mut said: Vec<String> = Vec::new();
        loop {
            let heard = self.lines.recv_timeout(COMMAND_LIMIT);
            let heard = heard.unwrap_or_else(|error| {
                let place = self.prompt();
                panic!("{place} {line}: {error}: {}", said.join("\n"))
            });
            if let Some(code) = heard.strip_prefix(MARK) {
                let code = code.trim().parse().expect("an exit code is a number");
                let text = said.join("\n").trim_end().to_owned();
                return (code, self.as_usual(text));
            }
            said.push(heard);
        }
    }

    /// As [`Terminal::enter`] of what must succeed.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn quietly(&mut self, line: &str) -> String {
        let (code, said) = self.enter(line);
        assert_eq!(code, 0, "{} {line}: {said}", self.prompt());
        said
    }

    /// Enters a command that ends in a shell of its own on a terminal, as `docker run -ti`; what follows goes there.
    pub(crate) fn go_into(&mut self, name: &str, line: &str) {
        self.key(&format!("script -qefc '{line}' /dev/null; {SAY_SO}"));
        self.prompts.push(format!("{name}#"));
        // Of the echo and the prompts of a terminal nothing is wanted.
        self.enter("stty -echo; PS1=");
    }

    /// Leaves that shell.
    pub(crate) fn leave(&mut self) {
        // Nothing more yet: `script` would read it.
        self.key("exit");
        self.listen("exit");
        self.prompts.pop();
    }

    fn key(&mut self, line: &str) {
        let typed = writeln!(self.keys, "{line}").and_then(|()| self.keys.flush());
        typed.expect("the shell runs");
    }

    /// With the names that a user's machine has.
    fn as_usual(&self, text: String) -> String {
        self.places
            .iter()
            .fold(text, |text, (own, usual)| text.replace(own, usual))
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}
