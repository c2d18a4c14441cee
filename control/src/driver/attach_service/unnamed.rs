//! What is said of a container that does not get a name in DNS.

use super::Shared;
use crate::api::AttachRequest;
use crate::dns::name::NameError;
use crate::driver::container::Container;
use crate::driver::dns::desk;

impl Shared {
    /// Says why a container does not get the names that were asked for.
    pub(super) fn why_unnamed(&self, request: &AttachRequest) -> Vec<String> {
        let names = request.names.join(", ");
        if names.is_empty() {
            Vec::new()
        } else if self.guest.is_none() {
            vec![format!("not named {names}: {}", desk::is_off().error)]
        } else if request.without_dns {
            vec![format!("not named {names}: --without-dns gives no names")]
        } else {
            Vec::new()
        }
    }

    /// Says why a container does not get its own name, where it was given no other.
    pub(super) fn why_without_own_name(
        &self,
        container: &Container,
        request: &AttachRequest,
    ) -> Vec<String> {
        let guest = self.guest.as_ref().filter(|_| !request.without_dns);
        let guest = guest.filter(|_| request.names.is_empty());
        let error = guest.and_then(|guest| guest.refusal_of_own_name(container));
        Vec::from_iter(error.and_then(|error| own_name_note(container, &error)))
    }
}

/// Says in the log that a container's own name is not answered for; what is for the user, too, comes back.
fn own_name_note(container: &Container, error: &NameError) -> Option<String> {
    let container = container.shown();
    match error {
        NameError::OutsideDomain { .. } => {
            tracing::info!(container, %error, "a name of another domain: ignored");
            None
        }
        NameError::Malformed(_) | NameError::Localhost(_) => {
            tracing::warn!(container, %error, "a name that DNS does not answer for");
            Some(error.to_string())
        }
    }
}
