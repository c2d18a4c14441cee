//! Where an answer is put, in the form of the wire, for the transport to send.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use hickory_server::net::NetError;
use hickory_server::proto::rr::Record;
use hickory_server::proto::serialize::binary::BinEncoder;
use hickory_server::server::{ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponse;

/// Largest answer to who does not say otherwise (RFC 1035 §4.2.1).
pub(super) const LEN_DEFAULT: u16 = 512;

/// One answer; clones share it.
#[derive(Clone)]
pub(super) struct WireAnswer {
    len_max: u16,
    bytes: Arc<Mutex<Option<Vec<u8>>>>,
}

impl WireAnswer {
    /// For an answer of at most so many bytes; what does not fit is left out and said to be.
    pub(super) fn new(len_max: u16) -> Self {
        Self {
            len_max,
            bytes: Arc::default(),
        }
    }

    /// The answer, if there was one.
    pub(super) fn take(&self) -> Option<Vec<u8>> {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        bytes.take()
    }
}

#[async_trait]
impl ResponseHandler for WireAnswer {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
            impl Iterator<Item = &'a Record> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut bytes = Vec::with_capacity(usize::from(LEN_DEFAULT));
        let mut encoder = BinEncoder::new(&mut bytes);
        encoder.set_max_size(self.len_max);
        let info = response.destructive_emit(&mut encoder)?;
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
        Ok(info)
    }
}
