//! The description of a container with its address on our network in place of Docker's, for `--rewrite-inspect`.
//!
//! ```text
//!  GET /containers/X/json ─► {"Id", …, "NetworkSettings": {"MacAddress", "IPAddress", "IPPrefixLen", …}}
//! ```

use super::object::Object;
use crate::api::Attachment;

/// What Docker says of a container.
#[derive(Debug, Clone)]
pub struct Inspection {
    id: String,
    described: Object,
}

impl Inspection {
    /// Reads it; `None` if it is not what Docker documents, and is left alone.
    #[must_use]
    pub fn parse(body: &[u8]) -> Option<Self> {
        let described = Object::parse(std::str::from_utf8(body).ok()?).ok()?;
        let id = described.read("Id").ok()??;
        Some(Self { id, described })
    }

    /// The container's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The same with the first of these addresses; `None` if there is none, or nothing to change.
    #[must_use]
    pub fn with(mut self, own: &Attachment) -> Option<Vec<u8>> {
        let address = own.addresses.first()?;
        let mut settings = self.described.object("NetworkSettings").ok()?;
        settings.set("IPAddress", &address.addr()).ok()?;
        settings.set("IPPrefixLen", &address.prefix_len()).ok()?;
        settings.set("MacAddress", &own.mac).ok()?;
        self.described.set_object("NetworkSettings", &settings);
        let mut text = self.described.to_json();
        // As Docker ends it.
        text.push('\n');
        Some(text.into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_shows_the_address_here_and_is_else_as_it_was() {
        let own = Attachment {
            id: "0123456789ab".to_owned(),
            mac: "02:00:00:00:00:01".to_owned(),
            addresses: vec!["10.32.0.1/12".parse().unwrap()],
        };
        let body = br#"{"Id":"0123456789abcdef","New":1.50,"NetworkSettings":{"IPAddress":"172.17.0.2","IPPrefixLen":16,"MacAddress":"02:42:ac:11:00:02","Networks":{}}}"#;
        let described = Inspection::parse(body).unwrap();
        assert_eq!(described.id(), "0123456789abcdef");
        let changed = String::from_utf8(described.with(&own).unwrap()).unwrap();
        assert_eq!(
            changed,
            concat!(
                r#"{"Id":"0123456789abcdef","New":1.50,"NetworkSettings":{"IPAddress":"10.32.0.1","IPPrefixLen":12,"#,
                r#""MacAddress":"02:00:00:00:00:01","Networks":{}}}"#,
                "\n"
            )
        );
        let none = Attachment {
            addresses: Vec::new(),
            ..own
        };
        assert!(Inspection::parse(body).unwrap().with(&none).is_none());
        for other in [&b"[]"[..], b"{}", b"{\"Id\":1}", b"\xff"] {
            assert!(Inspection::parse(other).is_none());
        }
    }
}
