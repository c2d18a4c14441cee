//! The rules that containers need where Docker filters.
//!
//! ```text
//!  weft ► weft           frames inside our bridge, always
//!  weft ► …, … ► weft    packets that the host passes on, while it is exposed; there is a way to exposed subnets only
//! ```
//!
//! Docker drops what it does not know on the way from interface to interface, and has the kernel show it bridged frames
//! for that, too, those of IPv6 where it filters them. It leaves `DOCKER-USER` to others and looks there first.

use std::io;
use std::process::Stdio;

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

async fn ensure_in(program: &str, bridge: &str) -> io::Result<bool> {
    if change(program, "-C", &bridging(bridge)).await? {
        return Ok(false);
    }
    change(program, "-I", &bridging(bridge)).await
}

/// Has the rules for an exposed host there, or not; true if that was not so. Without Docker's chain there are none.
///
/// # Errors
/// If there is no `iptables`; Docker has none either then.
pub(crate) async fn pass_on(bridge: &str, is_exposed: bool) -> io::Result<bool> {
    let _alone = CHANGING.lock().await;
    let listed = iptables(IPV4, &["-S", CHAIN]).output().await?;
    if !listed.status.success() {
        return Ok(false);
    }
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut is_changed = false;
    for way in ["-i", "-o"] {
        let is_there = listed.lines().any(|line| is_exposing(line, way, bridge));
        is_changed |= match (is_exposed, is_there) {
            (true, false) => change(IPV4, "-I", &exposing(way, bridge)).await?,
            (false, true) => take_out(IPV4, &exposing(way, bridge)).await?,
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
    let six = take_out(IPV6, &bridging(bridge)).await;
    let mut was_there = take_out(IPV4, &bridging(bridge)).await? || six.unwrap_or(false);
    for way in ["-i", "-o"] {
        was_there |= take_out(IPV4, &exposing(way, bridge)).await?;
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
