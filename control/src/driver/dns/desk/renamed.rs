//! What a rename in Docker takes: the name that the container had by being called so.

use super::Desk;
use crate::api::AttachReply;
use crate::dns::name::DnsName;
use crate::dns::registry::Filter;

impl Desk {
    /// A container is called what it says, and no longer what Docker called it before.
    pub(crate) fn no_longer_called(&mut self, now: &AttachReply, before: &str) {
        let Ok(before) = self.dns.config().domain.name_of_container(before) else {
            return;
        };
        let is_kept = |name: &String| DnsName::parse(name).is_ok_and(|name| name == before);
        if now.names.iter().any(is_kept) {
            return;
        }
        let filter = Filter {
            container: Some(now.id.clone()),
            addresses: now.addresses.clone(),
            name: Some(before),
        };
        let changed = !self.registry.remove(&filter).is_empty();
        self.changed(changed, Box::new(|_| {}));
    }
}
