//! Whether the DNS server can have its port, and whom it could ask.

use std::net::IpAddr;

use weft_control::driver::dns::resolv_conf::name_servers;
use weft_control::driver::dns::{ADDRESS_DEFAULT, RESOLV_CONF_DEFAULT};

use crate::doctor::Check;
use crate::doctor::host::read;

/// Port 53 as `/proc/net` writes it.
const PORT: &str = ":0035";

/// Judges the server's surroundings.
pub(super) fn check() -> Check {
    let taken = ["udp", "tcp", "udp6", "tcp6"]
        .iter()
        .any(|table| takes_all(&read(&format!("/proc/net/{table}"))));
    let own: [IpAddr; 1] = [ADDRESS_DEFAULT.into()];
    let upstreams = name_servers(&read(RESOLV_CONF_DEFAULT), &own).len();
    judge(taken, upstreams)
}

/// Whether a socket of the table has the port on every address.
fn takes_all(table: &str) -> bool {
    let locals = table
        .lines()
        .skip(1)
        .filter_map(|line| line.split_whitespace().nth(1));
    locals
        .filter_map(|local| local.strip_suffix(PORT))
        .any(|address| address.bytes().all(|byte| byte == b'0'))
}

fn judge(taken: bool, upstreams: usize) -> Check {
    match (taken, upstreams) {
        (true, _) => Check::warn(
            "dns",
            "another DNS server has port 53 on all addresses: containers cannot ask ours",
            "bind that one to its own addresses (dnsmasq: bind-interfaces), or weft launch --no-dns",
        ),
        (false, 0) => Check::warn(
            "dns",
            format!(
                "no name server in {RESOLV_CONF_DEFAULT}: only names of containers are answered"
            ),
            "weft launch --dns-upstream IP",
        ),
        (false, count) => Check::ok(
            "dns",
            format!("nobody has port 53 on all addresses; name servers for other names: {count}"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    #[test]
    fn only_a_socket_of_all_addresses_is_in_the_way() {
        let head = "  sl  local_address rem_address   st tx_queue rx_queue\n";
        let table = |local: &str| format!("{head}   5: {local} 00000000:0000 07 0:0\n");
        assert!(takes_all(&table("00000000:0035")));
        assert!(takes_all(&table("00000000000000000000000000000000:0035")));
        // systemd-resolved, another port, nothing.
        assert!(!takes_all(&table("3500007F:0035")));
        assert!(!takes_all(&table("00000000:0044")));
        assert!(!takes_all(head));
    }

    #[test]
    fn trouble_is_named_with_its_mending() {
        let verdicts = [(true, 1), (false, 0), (false, 2)].map(|(taken, upstreams)| {
            let check = judge(taken, upstreams);
            (check.verdict, check.mend.is_some())
        });
        let wanted = [
            (Verdict::Warn, true),
            (Verdict::Warn, true),
            (Verdict::Ok, false),
        ];
        assert_eq!(verdicts, wanted);
    }
}
