//! The rules that containers need where Docker filters.
//!
//! ```text
//!  weft ► weft           frames inside our bridge, always
//!  weft ► …, … ► weft    packets that the host passes on, while it is exposed; there is a way to exposed subnets only
//! ```
//!
//! Docker drops what it does not know on the way from interface to interface, and has the kernel show it bridged frames
//! for that, too, those of IPv6 where it filters them. It leaves `DOCKER-USER` to others and looks there first.
//!
//! The kernel has two places for such rules, of nftables and of the old iptables. Docker's `iptables` knows one, and
//! ours, from an image for example, may know the other.

use std::fs;
use std::io;
use std::process::{Output, Stdio};

use tokio::process::Command;
use tokio::sync::Mutex;

/// Whose rules are about IPv4.
const IPV4: &str = "iptables";
/// The same for IPv6.
const IPV6: &str = "ip6tables";
/// What Docker leaves to others.
const CHAIN: &str = "DOCKER-USER";
/// In the rules for an exposed host.
const COMMENT: &str = "weft: exposed";
/// Seconds to wait for whoever changes rules now.
const LOCK_TIMEOUT_S: &str = "5";
/// How often the rule is taken out at most: others may have put it in too, but whoever does so without end is not
/// fought.
const COPIES_MAX: usize = 64;
/// Iptables puts in a rule that is there: nobody may look while another is about to.
static CHANGING: Mutex<()> = Mutex::const_new(());

/// Puts the rule for frames inside our bridge in if Docker has its chain and the rule is not there; true if it was put in.
///
/// # Errors
/// If there is no `iptables`; Docker has none either then.
pub(crate) async fn ensure(bridge: &str) -> io::Result<bool> {
    let _alone = CHANGING.lock().await;
    // A Docker that does not filter IPv6 has no chain there, and many a host no such program.
    let six = ensure_in(IPV6, bridge).await.unwrap_or(false);
    Ok(ensure_in(IPV4, bridge).await? || six)
}

async fn ensure_in(base: &str, bridge: &str) -> io::Result<bool> {
    let rule = bridging(bridge);
    if change(base, "-C", &rule).await? {
        return Ok(false);
    }
    match chain_of(base).await? {
        Some((program, _)) if !change(&program, "-C", &rule).await? => {
            change(&program, "-I", &rule).await
        }
        Some(_) | None => Ok(false),
    }
}

/// The program that finds Docker's chain, and what is in it.
async fn chain_of(base: &str) -> io::Result<Option<(String, String)>> {
    let listed = list(base).await?;
    if listed.status.success() {
        return Ok(Some((base.to_owned(), text(&listed))));
    }
    for program in others(base) {
        if let Ok(listed) = list(&program).await
            && listed.status.success()
        {
            return Ok(Some((program, text(&listed))));
        }
    }
    Ok(None)
}

async fn list(program: &str) -> io::Result<Output> {
    let mut command = iptables(program, &["-S", CHAIN]);
    command.stdout(Stdio::piped()).output().await
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The programs for each of the places; to look into the old one makes it, so that is left alone where it is not used.
fn others(base: &str) -> Vec<String> {
    let tables = match base {
        IPV6 => "/proc/self/net/ip6_tables_names",
        _ => "/proc/self/net/ip_tables_names",
    };
    let is_old_used = fs::read_to_string(tables).is_ok_and(|names| !names.is_empty());
    let places = ["nft", "legacy"].into_iter();
    let used = places.filter(|&place| place != "legacy" || is_old_used);
    used.map(|place| format!("{base}-{place}")).collect()
}

/// Has the rules for an exposed host there, or not; true if that was not so. Without Docker's chain there are none.
///
/// # Errors
/// If there is no `iptables`; Docker has none either then.
pub(crate) async fn pass_on(bridge: &str, is_exposed: bool) -> io::Result<bool> {
    let _alone = CHANGING.lock().await;
    let Some((program, listed)) = chain_of(IPV4).await? else {
        return Ok(false);
    };
    let mut is_changed = false;
    for way in ["-i", "-o"] {
        let is_there = listed.lines().any(|line| is_exposing(line, way, bridge));
        is_changed |= match (is_exposed, is_there) {
            (true, false) => change(&program, "-I", &exposing(way, bridge)).await?,
            (false, true) => take_out(&program, &exposing(way, bridge)).await?,
            (true, true) | (false, false) => false,
        };
    }
    Ok(is_changed)
}

/// Takes all rules out, however often they are there; true if any was.
///
/// # Errors
/// If there is no `iptables`; there is no rule then.
pub async fn remove(bridge: &str) -> io::Result<bool> {
    let _alone = CHANGING.lock().await;
    let mut was_there = remove_by(IPV4, bridge).await?;
    let others = [&others(IPV4)[..], &[IPV6.to_owned()], &others(IPV6)].concat();
    for program in others {
        // Not every machine has them all.
        was_there |= remove_by(&program, bridge).await.unwrap_or(false);
    }
    Ok(was_there)
}

async fn remove_by(program: &str, bridge: &str) -> io::Result<bool> {
    let mut was_there = take_out(program, &bridging(bridge)).await?;
    for way in ["-i", "-o"] {
        was_there |= take_out(program, &exposing(way, bridge)).await?;
    }
    Ok(was_there)
}

fn bridging(bridge: &str) -> [&str; 4] {
    ["-i", bridge, "-o", bridge]
}

/// `way` is `-i` or `-o`. The comment is what tells it from a rule of the user's own.
fn exposing<'a>(way: &'a str, bridge: &'a str) -> [&'a str; 6] {
    [way, bridge, "-m", "comment", "--comment", COMMENT]
}

/// Whether a line of a listing is the rule [`exposing`].
fn is_exposing(line: &str, way: &str, bridge: &str) -> bool {
    line.starts_with(&format!("-A {CHAIN} {way} {bridge} ")) && line.contains(COMMENT)
}

async fn take_out(program: &str, rule: &[&str]) -> io::Result<bool> {
    for copies in 0..COPIES_MAX {
        if !change(program, "-D", rule).await? {
            return Ok(copies > 0);
        }
    }
    Ok(true)
}

/// Does something with a rule that accepts; false if that is refused: no such chain, no such rule.
async fn change(program: &str, action: &str, rule: &[&str]) -> io::Result<bool> {
    let words = [&[action, CHAIN], rule, &["-j", "ACCEPT"]].concat();
    Ok(iptables(program, &words).status().await?.success())
}

fn iptables(program: &str, words: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-w", LOCK_TIMEOUT_S])
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_of_ours_is_known_by_its_comment() {
        let listed = "-A DOCKER-USER -o weft -m comment --comment \"weft: exposed\" -j ACCEPT";
        assert!(is_exposing(listed, "-o", "weft"));
        assert!(!is_exposing(listed, "-i", "weft"));
        assert!(!is_exposing(listed, "-o", "weft2"));
        let users = "-A DOCKER-USER -o weft -j ACCEPT";
        assert!(!is_exposing(users, "-o", "weft"));
    }
}
