//! What the host's packet filter does to what is forwarded: through the bridge, and by the host itself.

use std::process::Command;

use crate::doctor::Check;
use crate::doctor::host::read;

/// Where Docker leaves room for others' rules: the daemon puts its own there.
const DOCKER: &str = "DOCKER-USER";

/// What the chains say that see forwarded packets.
#[derive(Debug, Default, PartialEq, Eq)]
struct Forwarding {
    rejects: bool,
    /// A chain that drops by default, as (table, chain), without a rule that accepts the bridge.
    drops: Option<(String, String)>,
    has_docker: bool,
}

/// Judges whether a firewall rejects or drops what is forwarded.
pub(super) fn check(bridge: &str) -> Check {
    let filtered = read("/proc/sys/net/bridge/bridge-nf-call-iptables").trim() == "1";
    if let Some(ruleset) = listing("nft", &["list", "ruleset"]) {
        return judge(&read_nft(&ruleset, bridge), filtered, bridge);
    }
    match listing("iptables", &["-S", "FORWARD"]) {
        Some(rules) => judge(&read_iptables(&rules, bridge), filtered, bridge),
        None => Check::ok(
            "forwarding",
            "not examined: neither `nft` nor `iptables` can be run here",
        ),
    }
}

fn listing(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

fn read_nft(ruleset: &str, bridge: &str) -> Forwarding {
    let mut found = Forwarding {
        has_docker: ruleset.contains(DOCKER),
        ..Forwarding::default()
    };
    let quoted = format!("\"{bridge}\"");
    let (mut table, mut chain, mut forward) = (String::new(), String::new(), false);
    for line in ruleset.lines().map(str::trim) {
        let opened = line.strip_suffix('{').map(str::trim).unwrap_or_default();
        if let Some(name) = opened.strip_prefix("table ") {
            name.clone_into(&mut table);
        } else if let Some(name) = opened.strip_prefix("chain ") {
            // iptables' own chain has its hook in the next line, as any other.
            (chain, forward) = (name.to_owned(), false);
        }
        if line.contains("hook forward") {
            forward = true;
            if line.contains("policy drop") {
                found.drops = Some((table.clone(), chain.clone()));
            }
        } else if forward && line.contains("reject") {
            found.rejects = true;
        } else if forward && line.contains(&quoted) && line.contains("accept") {
            found.drops = None;
        }
    }
    found
}

fn read_iptables(rules: &str, bridge: &str) -> Forwarding {
    let of_chain = || rules.lines().filter(|rule| rule.starts_with("-A FORWARD"));
    let accepts = |rule: &str| {
        let mut words = rule.split_whitespace();
        words.any(|word| word == bridge) && rule.ends_with("-j ACCEPT")
    };
    let drops = rules.lines().any(|rule| rule.trim() == "-P FORWARD DROP");
    Forwarding {
        rejects: of_chain().any(|rule| rule.contains("-j REJECT")),
        drops: (drops && !of_chain().any(accepts))
            .then(|| ("ip filter".to_owned(), "FORWARD".to_owned())),
        has_docker: rules.contains(DOCKER),
    }
}

fn judge(found: &Forwarding, filtered: bool, bridge: &str) -> Check {
    let inside = format!("iptables -I FORWARD -i {bridge} -o {bridge} -j ACCEPT");
    let (what, mend) = match found {
        Forwarding { rejects: true, .. } => (
            "a rule of the FORWARD chain rejects packets: names and services of containers may be cut off",
            inside,
        ),
        Forwarding { drops: None, .. } => {
            return Check::ok("forwarding", "no rule rejects what is forwarded");
        }
        // The daemon sees to Docker's.
        Forwarding {
            has_docker: true, ..
        } => {
            return Check::ok(
                "forwarding",
                "Docker's filter drops by default, and launch lets weft's bridge and exposed subnets pass",
            );
        }
        Forwarding { drops: Some(_), .. } if filtered => (
            "the FORWARD chain drops by default and sees bridged frames: containers may be cut off",
            inside,
        ),
        Forwarding {
            drops: Some((table, chain)),
            ..
        } => (
            "the FORWARD chain drops by default: what the host passes on between containers and other networks (expose) is cut off",
            ["iifname", "oifname"]
                .map(|way| accepting(table, chain, way, bridge))
                .join("; "),
        ),
    };
    Check::warn("forwarding", what, format!("accept the bridge: {mend}"))
}

/// The rule that lets the bridge's packets through a chain, in the words of who made it.
fn accepting(table: &str, chain: &str, way: &str, bridge: &str) -> String {
    if (table, chain) == ("ip filter", "FORWARD") {
        let way = if way == "iifname" { "-i" } else { "-o" };
        format!("iptables -I FORWARD {way} {bridge} -j ACCEPT")
    } else {
        format!("nft insert rule {table} {chain} {way} {bridge} accept")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Verdict;

    fn of_iptables(rules: &str, filtered: bool) -> Check {
        judge(&read_iptables(rules, "weft"), filtered, "weft")
    }

    fn of_nft(ruleset: &str) -> Check {
        judge(&read_nft(ruleset, "weft"), false, "weft")
    }

    #[test]
    fn a_rejecting_forward_chain_is_found_in_both_listings() {
        let iptables =
            "-P FORWARD ACCEPT\n-A FORWARD -j REJECT --reject-with icmp-host-prohibited\n";
        assert_eq!(of_iptables(iptables, false).verdict, Verdict::Warn);

        let nft = "table inet filter {\n\tchain input {\n\t\ttype filter hook input priority filter; policy accept;\n\
                   \t\treject\n\t}\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\
                   \t\treject with icmp type host-prohibited\n\t}\n}\n";
        assert_eq!(of_nft(nft).verdict, Verdict::Warn);
        let only_input = nft.replace("with icmp type host-prohibited", "").replace(
            "policy accept;\n\t\treject \n\t}\n}",
            "policy accept;\n\t}\n}",
        );
        assert_eq!(of_nft(&only_input).verdict, Verdict::Ok, "{only_input}");
    }

    #[test]
    fn what_launch_does_itself_is_asked_of_nobody() {
        let docker = "-P FORWARD DROP\n-A FORWARD -j DOCKER-USER\n";
        for filtered in [false, true] {
            assert_eq!(of_iptables(docker, filtered).verdict, Verdict::Ok);
        }
        let other = of_iptables("-P FORWARD DROP\n", true);
        let rule = "iptables -I FORWARD -i weft -o weft -j ACCEPT";
        assert!(other.mend.unwrap().ends_with(rule));
    }

    #[test]
    fn a_dropping_policy_without_docker_is_told_with_the_rules_that_mend_it() {
        let iptables = "-P FORWARD DROP\n";
        let mend = of_iptables(iptables, false).mend.unwrap();
        let rules = "iptables -I FORWARD -i weft -j ACCEPT; iptables -I FORWARD -o weft -j ACCEPT";
        assert!(mend.ends_with(rules), "{mend}");
        let mended =
            "-P FORWARD DROP\n-A FORWARD -i weft -j ACCEPT\n-A FORWARD -o weft -j ACCEPT\n";
        assert_eq!(of_iptables(mended, false).verdict, Verdict::Ok);
        let other = "-P FORWARD DROP\n-A FORWARD -i weft2 -j ACCEPT\n";
        assert_eq!(of_iptables(other, false).verdict, Verdict::Warn);

        let nft = "table inet firewall {\n\tchain pass {\n\t\ttype filter hook forward priority filter; policy drop;\n\
                   \t\tct state established accept\n\t}\n}\n";
        let mend = of_nft(nft).mend.unwrap();
        assert!(
            mend.ends_with("nft insert rule inet firewall pass iifname weft accept; nft insert rule inet firewall pass oifname weft accept"),
            "{mend}"
        );
        let mended = nft.replace(
            "ct state",
            "iifname \"weft\" accept\n\t\toifname \"weft\" accept\n\t\tct state",
        );
        assert_eq!(of_nft(&mended).verdict, Verdict::Ok);
        // As the program lists what iptables has made.
        let made = "table ip filter {\n\tchain FORWARD {\n\t\ttype filter hook forward priority filter; policy drop;\n\t}\n}\n";
        assert!(of_nft(made).mend.unwrap().ends_with(rules));
    }
}
