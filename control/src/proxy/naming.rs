//! What a container is called and whom it asks for names, as far as the request for it left that open.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use regex::Regex;

use super::object::{Object, ObjectError};

/// The kernel's limit for a host name, which with some versions of Docker holds the domain, too.
const HOST_NAME_MAX: usize = 64;

/// How containers are named.
#[derive(Debug, Clone)]
pub struct Naming {
    /// Our domain, without its last dot.
    pub domain: String,
    /// Our DNS server.
    pub server: Ipv4Addr,
    /// A label whose value is the host name in place of the container's.
    pub label: Option<String>,
    /// What is replaced in it, and by what.
    pub replacement: Option<(Regex, String)>,
}

impl Naming {
    /// Fills in names and DNS; `name` is the container's, empty if Docker is to choose one.
    ///
    /// # Errors
    /// [`ObjectError`] for members of another type than Docker's.
    pub fn apply(
        &self,
        name: &str,
        config: &mut Object,
        host_config: &mut Object,
    ) -> Result<(), ObjectError> {
        let given: String = config.read("Hostname")?.unwrap_or_default();
        let given_domain: String = config.read("Domainname")?.unwrap_or_default();
        let uts: String = host_config.read("UTSMode")?.unwrap_or_default();
        let mut search = self.domain.clone();
        if given.is_empty() && uts.is_empty() {
            if let Some(host_name) = self.host_name(name, config)? {
                config.set("Hostname", &host_name)?;
                config.set("Domainname", &self.domain)?;
            }
        } else if let Some(own) = self.domain_of(&given, &given_domain) {
            search = own;
        }
        let mut servers: Vec<String> = host_config.read("Dns")?.unwrap_or_default();
        let server = self.server.to_string();
        if !servers.contains(&server) {
            servers.push(server);
            host_config.set("Dns", &servers)?;
        }
        let searched: Vec<String> = host_config.read("DnsSearch")?.unwrap_or_default();
        if searched.is_empty() {
            host_config.set("DnsSearch", &[search])?;
        }
        Ok(())
    }

    /// The host name; none if there is no name to make it of, or it would be too long.
    fn host_name(&self, name: &str, config: &Object) -> Result<Option<String>, ObjectError> {
        let mut host_name = name.trim_start_matches('/').to_owned();
        if let Some(label) = &self.label {
            let labels: BTreeMap<String, String> = config.read("Labels")?.unwrap_or_default();
            let value = labels.get(label).filter(|value| !value.is_empty());
            host_name = value.cloned().unwrap_or(host_name);
        }
        if let Some((pattern, by)) = &self.replacement {
            host_name = pattern.replace_all(&host_name, by).into_owned();
        }
        if host_name.is_empty() {
            return Ok(None);
        }
        if host_name.len() + 1 + self.domain.len() > HOST_NAME_MAX {
            tracing::warn!(
                name = host_name,
                "the container gets no name of ours: with the domain it is over {HOST_NAME_MAX} characters"
            );
            return Ok(None);
        }
        Ok(Some(host_name))
    }

    /// The domain in which a container with a name of its own looks for short names, if it is part of ours.
    fn domain_of(&self, host_name: &str, domain: &str) -> Option<String> {
        let whole = format!("{host_name}.{domain}");
        let (_, own) = whole.trim_end_matches('.').split_once('.')?;
        let is_ours = own == self.domain || own.ends_with(&format!(".{}", self.domain));
        is_ours.then(|| own.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn naming() -> Naming {
        Naming {
            domain: "weave.local".to_owned(),
            server: Ipv4Addr::new(169, 254, 53, 1),
            label: None,
            replacement: None,
        }
    }

    fn applied(naming: &Naming, name: &str, config: &str, host_config: &str) -> (String, String) {
        let mut config = Object::parse(config).unwrap();
        let mut host_config = Object::parse(host_config).unwrap();
        naming.apply(name, &mut config, &mut host_config).unwrap();
        (config.to_json(), host_config.to_json())
    }

    const DNS: &str = r#"{"Dns":["169.254.53.1"],"DnsSearch":["weave.local"]}"#;

    #[test]
    fn a_container_is_called_by_its_name_in_our_domain() {
        let (config, host_config) = applied(&naming(), "/a2", "{}", "{}");
        assert_eq!(config, r#"{"Hostname":"a2","Domainname":"weave.local"}"#);
        assert_eq!(host_config, DNS);
        assert_eq!(
            applied(&naming(), "", r#"{"Hostname":""}"#, "{}").0,
            r#"{"Hostname":""}"#
        );
        let long = "a".repeat(53);
        assert_eq!(applied(&naming(), &long, "{}", "{}").0, "{}");
        assert_ne!(applied(&naming(), &long[1..], "{}", "{}").0, "{}");
        let host_names = r#"{"UTSMode":"host"}"#;
        assert_eq!(applied(&naming(), "a", "{}", host_names).0, "{}");
    }

    #[test]
    fn what_the_request_says_is_kept() {
        let given = r#"{"Hostname":"x"}"#;
        let theirs = r#"{"Dns":["192.0.2.1"],"DnsSearch":["."]}"#;
        let (config, host_config) = applied(&naming(), "a2", given, theirs);
        assert_eq!(config, given);
        assert_eq!(
            host_config,
            r#"{"Dns":["192.0.2.1","169.254.53.1"],"DnsSearch":["."]}"#
        );
        for given in [
            r#"{"Hostname":"foo.sub1.weave.local"}"#,
            r#"{"Hostname":"foo","Domainname":"sub1.weave.local"}"#,
        ] {
            let (_, host_config) = applied(&naming(), "a2", given, "{}");
            assert!(
                host_config.ends_with(r#""DnsSearch":["sub1.weave.local"]}"#),
                "{host_config}"
            );
        }
        let elsewhere = r#"{"Hostname":"foo.example.org"}"#;
        assert_eq!(applied(&naming(), "a2", elsewhere, "{}").1, DNS);
    }

    #[test]
    fn a_label_and_a_replacement_make_the_name() {
        let labelled = Naming {
            label: Some("hostname".to_owned()),
            ..naming()
        };
        let config = r#"{"Labels":{"hostname":"web"}}"#;
        assert!(
            applied(&labelled, "a2", config, "{}")
                .0
                .contains(r#""Hostname":"web""#)
        );
        let empty = r#"{"Labels":{"hostname":""}}"#;
        assert!(
            applied(&labelled, "a2", empty, "{}")
                .0
                .contains(r#""Hostname":"a2""#)
        );
        let pattern = Regex::new("^aws-[0-9]+-(?P<app>.*)$").unwrap();
        let replaced = Naming {
            replacement: Some((pattern, "my-app-$app".to_owned())),
            ..naming()
        };
        let named = |name| applied(&replaced, name, "{}", "{}").0;
        assert!(named("aws-12798186823-foo").contains(r#""my-app-foo""#));
        assert!(named("foo").contains(r#""Hostname":"foo""#));
    }
}
