//! The host's own place on the network: `expose` and `hide`.

use ipnet::IpNet;

use super::{EXPOSED, Shared, off_the_wire};
use crate::api::{ApiError, AttachReply, ExposeRequest};
use crate::driver::address::read_arguments;
use crate::driver::client::Client;
use crate::driver::complaint::in_one_line;
use crate::driver::dns::desk;
use crate::driver::host_routes::overlaps;
use crate::driver::request::{Changed, Effect};

impl Shared {
    pub(super) async fn expose(
        &self,
        request: &ExposeRequest,
        client: Client,
    ) -> Result<Changed, ApiError> {
        let arguments = read_arguments(&request.addresses).map_err(|error| in_one_line(&error))?;
        let names = match &self.guest {
            Some(guest) => guest.whole(&request.names)?,
            None if request.names.is_empty() => Vec::new(),
            None => return Err(desk::is_off()),
        };
        self.survey().await?;
        let turn = self.turn_of(EXPOSED, &client).await?.with(client, None);
        let obtained = self.allocator.obtain(&turn, &arguments).await;
        let obtained = obtained.map_err(|error| self.refusal(error))?;
        if let Err(error) = self
            .exposure
            .add(&obtained.addresses, request.masquerade)
            .await
        {
            let _ = self.exposure.remove(obtained.fresh()).await;
            self.allocator.give_back(EXPOSED, &obtained).await;
            return Err(in_one_line(&error));
        }
        let mut changed = self.exposed(&obtained.addresses, names).await?;
        changed.reply.warnings = overlaps(&arguments, self.host.bridge(), EXPOSED);
        Ok(changed)
    }

    pub(super) async fn hide(&self, request: &ExposeRequest) -> Result<Changed, ApiError> {
        let arguments = read_arguments(&request.addresses).map_err(|error| in_one_line(&error))?;
        let _turn = self.turns.take_off(EXPOSED).await;
        let found = self
            .allocator
            .find(EXPOSED, &arguments, self.default_subnet);
        let addresses = found.await.map_err(|error| in_one_line(&error))?;
        let left = self.exposure.remove(&addresses).await;
        let left = left.map_err(|error| in_one_line(&error))?;
        let off = off_the_wire(&addresses, left.iter());
        let unwritten = self.allocator.release(EXPOSED, &off).await;
        let mut changed = self.exposed(&addresses, Vec::new()).await?;
        changed.reply.warnings.extend(unwritten);
        Ok(changed)
    }

    async fn exposed(&self, addresses: &[IpNet], names: Vec<String>) -> Result<Changed, ApiError> {
        let own = self.own_line().await.map_err(|error| in_one_line(&error))?;
        Ok(Changed {
            reply: AttachReply {
                addresses: addresses.iter().map(IpNet::addr).collect(),
                id: EXPOSED.to_owned(),
                names,
                ..AttachReply::default()
            },
            effect: own.map_or(Effect::Nothing, Effect::On),
        })
    }
}
