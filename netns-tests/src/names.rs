//! Clients and servers of DNS as containers have them: dig, the C library's resolver, and dnsmasq as somebody else's.

use std::process::{Child, Stdio};

use crate::host::Host;
use crate::lab::Lab;
use crate::weft::Weft;

/// weft's server, as dig takes it.
const SERVER: &str = "@169.254.53.1";

/// Launches a closed network of one password, with these flags besides.
pub fn launch_with(weft: &Weft, flags: &[&str]) {
    weft.ok(&[&["launch", "--password", "secret"], flags].concat());
}

/// A new container of this name, attached with these words.
pub fn attached(lab: &Lab, weft: &Weft, name: &str, words: &[&str]) -> Host {
    let container = lab.host(name);
    weft.ok(&[&["attach"], words, &[container.as_container().as_str()]].concat());
    container
}

/// What dig says of weft's server, comments included.
#[must_use]
pub fn dig(from: &Host, words: &[&str]) -> String {
    let output = from.output(&[&["dig", "+tries=1", "+time=5", SERVER], words].concat());
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The answers alone, sorted.
#[must_use]
pub fn answers(from: &Host, words: &[&str]) -> Vec<String> {
    let said = dig(from, &[words, &["+short"]].concat());
    let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
    lines.sort();
    lines
}

/// How many IPv4 addresses weft's server answers with, and whether it says that there are more.
#[must_use]
pub fn addresses_in_answer(from: &Host, words: &[&str]) -> (usize, bool) {
    let said = dig(from, words);
    let count = said.lines().filter(|line| line.contains("IN\tA\t")).count();
    let flags = said.lines().find(|line| line.starts_with(";; flags:"));
    (count, flags.is_some_and(|flags| flags.contains(" tc")))
}

/// The first IPv4 address that the C library finds with the host's own files; empty if none.
#[must_use]
pub fn resolved(from: &Host, name: &str) -> String {
    let output = from.output(&["getent", "ahostsv4", name]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    said.split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// dnsmasq as a name server of somebody else's; it ends with this.
#[derive(Debug)]
pub struct NameServer(Child);

impl NameServer {
    /// Answers on an address of the host, and says what its flags say.
    ///
    /// # Panics
    ///
    /// If dnsmasq is not installed.
    #[must_use]
    pub fn start(on: &Host, address: &str, flags: &[&str]) -> Self {
        let mut command = on.command("dnsmasq");
        command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts"]);
        command.args(["--bind-interfaces", "--conf-file=/dev/null"]);
        command.args(["--user=root", "--pid-file="]);
        command
            .arg(format!("--listen-address={address}"))
            .args(flags);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self(child.expect("dnsmasq is installed"))
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
