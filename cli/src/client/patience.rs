//! How long an answer is waited for: as long as the daemon works on it, and not on one that is stopped or stuck.
//!
//! The kernel takes connections for a daemon that does not run, so a connection says nothing of its health.

use std::fs;
use std::time::Duration;

use anyhow::bail;
use hyper::Method;

/// How often a daemon that has not answered is looked at; it answers most questions within a millisecond.
const LOOK_PERIOD: Duration = Duration::from_secs(1);
/// The longest wait for what a daemon has at hand; a ping takes five seconds at most.
const AT_HAND_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one request may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    period: Duration,
    /// None for what waits for others, such as Docker.
    limit: Option<Duration>,
}

/// Returns how long a request may take.
pub(super) fn patience_for(method: &Method, path: &str) -> Patience {
    let is_at_hand =
        method == Method::GET || ["/connect", "/forget", "/path", "/ping"].contains(&path);
    Patience {
        period: LOOK_PERIOD,
        limit: is_at_hand.then_some(AT_HAND_TIMEOUT),
    }
}

/// Waits for an answer of the daemon with this process id.
///
/// # Errors
///
/// When the daemon is stopped by a signal, or the limit has passed.
pub(super) async fn answered<T>(
    answer: impl Future<Output = T>,
    daemon: Option<i32>,
    Patience { period, limit }: Patience,
) -> anyhow::Result<T> {
    tokio::pin!(answer);
    let mut waited = Duration::ZERO;
    loop {
        if let Ok(answer) = tokio::time::timeout(period, &mut answer).await {
            return Ok(answer);
        }
        waited += period;
        if let Some(pid) = daemon.filter(|pid| is_stopped(*pid)) {
            bail!(
                "the daemon (pid {pid}) is stopped by a signal and answers nothing: `kill -CONT {pid}` lets it go on"
            );
        }
        if limit.is_some_and(|limit| waited >= limit) {
            let who = daemon.map_or_else(String::new, |pid| format!(" (pid {pid})"));
            bail!(
                "the daemon{who} has not answered for {} s: see its log",
                waited.as_secs()
            );
        }
    }
}

/// Tells whether a process is stopped, by job control or by a debugger.
fn is_stopped(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    state_of(&stat).is_some_and(|state| ['T', 't'].contains(&state))
}

/// The state in a line of `/proc/PID/stat`: after the program's name, which may hold anything.
fn state_of(stat: &str) -> Option<char> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_stands_after_a_name_with_whatever_in_it() {
        assert_eq!(state_of("7 (weft) S 1 7"), Some('S'));
        assert_eq!(state_of("7 (a) R (b) T 1 7"), Some('T'));
        assert_eq!(state_of("7 (weft"), None);
        assert!(!is_stopped(i32::try_from(std::process::id()).unwrap()));
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_is_given_up_and_a_slow_one_taken() {
        let period = Duration::from_millis(2);
        let limit = Some(5 * period);
        let never = std::future::pending::<()>();
        let said = answered(never, Some(1), Patience { period, limit })
            .await
            .unwrap_err();
        assert!(
            said.to_string().contains("(pid 1) has not answered for"),
            "{said}"
        );

        let slow = async {
            tokio::time::sleep(10 * period).await;
            7
        };
        let limit = None;
        assert_eq!(
            answered(slow, None, Patience { period, limit })
                .await
                .unwrap(),
            7
        );
    }

    #[test]
    fn what_others_may_hold_up_has_no_limit() {
        let is_limited = |method: Method, path| patience_for(&method, path).limit.is_some();
        assert!(is_limited(Method::GET, "/status") && is_limited(Method::POST, "/connect"));
        assert!(!is_limited(Method::POST, "/attach") && !is_limited(Method::POST, "/stop"));
    }
}
