//! The `/etc/hosts` of a Docker container: Docker's own text, with the network's addresses for the container's name.
//!
//! ```text
//!  127.0.0.1 localhost …            Docker's lines, `--add-host` and links among them
//!  172.17.0.2 a2.weave.local a2     Docker's line for the container itself: left out
//!  # weft begin
//!  10.32.0.1 a2.weave.local a2      one line for each address
//!  # weft end
//! ```

use std::net::IpAddr;

/// Before our lines.
const BEGIN: &str = "# weft begin";
/// After our lines.
const END: &str = "# weft end";

/// The text with these addresses for the name; without addresses our part is left out. `domain` may be empty.
#[must_use]
pub fn with_addresses(before: &str, name: &str, domain: &str, addresses: &[IpAddr]) -> String {
    let mut text = String::new();
    let mut is_ours = false;
    for line in before.lines() {
        match line {
            BEGIN => is_ours = true,
            END => is_ours = false,
            _ if is_ours || (!addresses.is_empty() && is_about(line, name, domain)) => {}
            _ => {
                text.push_str(line);
                text.push('\n');
            }
        }
    }
    if addresses.is_empty() || name.is_empty() {
        return text;
    }
    text.push_str(&format!("{BEGIN}\n"));
    for address in addresses {
        if domain.is_empty() {
            text.push_str(&format!("{address} {name}\n"));
        } else {
            text.push_str(&format!("{address} {name}.{domain} {name}\n"));
        }
    }
    text.push_str(&format!("{END}\n"));
    text
}

/// The addresses of our part.
#[must_use]
pub fn addresses_in(text: &str) -> Vec<IpAddr> {
    let ours = text.lines().skip_while(|line| *line != BEGIN).skip(1);
    let ours = ours.take_while(|line| *line != END);
    ours.filter_map(|line| line.split(' ').next()?.parse().ok())
        .collect()
}

/// Whether a line is Docker's for the container itself: its name is the last word, or that as far as its first dot is
/// and the whole name comes before.
fn is_about(line: &str, name: &str, domain: &str) -> bool {
    let mut words = line.split_whitespace();
    let is_entry = words
        .next()
        .is_some_and(|word| word.parse::<IpAddr>().is_ok());
    let is_whole = |word: &str| {
        word.strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('.'))
            == Some(domain)
    };
    is_entry && (words.clone().next_back() == Some(name) || words.next().is_some_and(is_whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKERS: &str = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n192.0.2.80\tprinter\n172.17.0.2\ta2.weave.local a2\n";

    fn ips(texts: &[&str]) -> Vec<IpAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_containers_name_means_its_addresses_in_the_network() {
        let two = ips(&["10.32.0.1", "fd00::1"]);
        let text = with_addresses(DOCKERS, "a2", "weave.local", &two);
        assert_eq!(
            text,
            "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost\n192.0.2.80\tprinter\n# weft begin\n10.32.0.1 a2.weave.local a2\nfd00::1 a2.weave.local a2\n# weft end\n"
        );
        assert_eq!(addresses_in(&text), two);
        let one = with_addresses(&text, "a2", "weave.local", &two[..1]);
        assert_eq!(addresses_in(&one), two[..1]);
        assert!(!with_addresses(&one, "a2", "weave.local", &[]).contains("a2"));
        assert_eq!(with_addresses(DOCKERS, "a2", "", &[]), DOCKERS);
        let dotted = "172.17.0.2\tx_y.z-1.weave.local x_y\n";
        assert_eq!(
            with_addresses(dotted, "x_y.z-1", "weave.local", &two[..1]),
            "# weft begin\n10.32.0.1 x_y.z-1.weave.local x_y.z-1\n# weft end\n"
        );
        assert!(with_addresses("", "0123", "", &two).contains("\n10.32.0.1 0123\n"));
    }
}
