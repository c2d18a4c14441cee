//! Whether a container is to be on the network, and with which addresses: its network mode and `WEAVE_CIDR`.

/// The variable.
const VARIABLE: &str = "WEAVE_CIDR";
/// The word that leaves a container alone.
const NONE: &str = "none";
/// Modes in which a container has a network namespace of its own that nobody else looks after.
const MODES: [&str; 4] = ["", "default", "bridge", "none"];

/// What a container is to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// Nothing, and why.
    Alone(&'static str),
    /// Addresses, as typed; none means one of the default subnet.
    Attached(Vec<String>),
}

/// Whether a container of this network mode can be ours.
#[must_use]
pub fn is_ours(network_mode: &str) -> bool {
    MODES.contains(&network_mode)
}

impl Wish {
    /// Reads the environment; `default_ipalloc` says whether a container gets an address unasked.
    pub fn of<'a>(
        network_mode: &str,
        environment: impl DoubleEndedIterator<Item = &'a str>,
        default_ipalloc: bool,
    ) -> Self {
        if !is_ours(network_mode) {
            return Self::Alone("its network mode");
        }
        // Docker lets the last of several win.
        let mut variables = environment.rev().filter_map(|line| line.split_once('='));
        match variables.find(|(name, _)| *name == VARIABLE) {
            None if default_ipalloc => Self::Attached(Vec::new()),
            None => Self::Alone("--no-default-ipalloc"),
            Some((_, value)) => {
                let words: Vec<String> = value.split_whitespace().map(str::to_owned).collect();
                if words == [NONE] {
                    return Self::Alone("WEAVE_CIDR=none");
                }
                Self::Attached(words)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(mode: &str, environment: &[&str], default_ipalloc: bool) -> Wish {
        Wish::of(mode, environment.iter().copied(), default_ipalloc)
    }

    fn attached(words: &[&str]) -> Wish {
        Wish::Attached(words.iter().map(|&word| word.to_owned()).collect())
    }

    #[test]
    fn a_container_is_attached_unless_its_mode_or_a_word_says_otherwise() {
        for mode in ["", "default", "bridge", "none"] {
            assert_eq!(wish(mode, &["A=b"], true), attached(&[]), "{mode}");
        }
        for mode in ["host", "container:x", "mynet"] {
            assert_eq!(
                wish(mode, &["WEAVE_CIDR="], true),
                Wish::Alone("its network mode")
            );
        }
        assert_eq!(wish("", &[], false), Wish::Alone("--no-default-ipalloc"));
        assert_eq!(wish("", &["WEAVE_CIDR="], false), attached(&[]));
        assert_eq!(wish("", &["WEAVE_CIDR"], true), attached(&[]));
        let asked = ["WEAVE_CIDR= net:default  10.2.1.1/24"];
        assert_eq!(
            wish("", &asked, false),
            attached(&["net:default", "10.2.1.1/24"])
        );
        assert_eq!(
            wish("", &["WEAVE_CIDR=none"], true),
            Wish::Alone("WEAVE_CIDR=none")
        );
        let twice = ["WEAVE_CIDR=none", "WEAVE_CIDR=net:default"];
        assert_eq!(wish("", &twice, true), attached(&["net:default"]));
    }
}
