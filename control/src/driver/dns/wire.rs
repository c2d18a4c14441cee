//! Where an answer is put, in the form of the wire, for the transport to send.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use hickory_server::net::NetError;
use hickory_server::proto::rr::Record;
use hickory_server::proto::serialize::binary::BinEncoder;
use hickory_server::server::{Request, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponse;

use crate::dns::plain::{LEN_DEFAULT, OPT_LEN, opt};

/// Where a header counts the records of the last section.
const ADDITIONAL_COUNT: std::ops::Range<usize> = 10..12;

/// One answer; clones share it.
#[derive(Clone)]
pub(super) struct WireAnswer {
    len_max: u16,
    opt: Option<[u8; OPT_LEN]>,
    bytes: Arc<Mutex<Option<Vec<u8>>>>,
}

impl WireAnswer {
    /// For an answer of at most so many bytes; what does not fit is left out and said to be. To a question of EDNS the
    /// answer must have an OPT record, too, however little fits (RFC 6891 §7).
    pub(super) fn to(request: &Request, len_max: u16) -> Self {
        let edns = request.edns.as_ref();
        Self {
            len_max,
            opt: edns.map(|edns| opt(edns.flags().dnssec_ok)),
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
        let room = self.opt.map_or(0, |opt| opt.len());
        let room = u16::try_from(room).unwrap_or(u16::MAX);
        encoder.set_max_size(self.len_max.saturating_sub(room));
        let info = response.destructive_emit(&mut encoder)?;
        // What was begun and did not fit is still there.
        encoder.trim();
        // The library drops its own when it is short of room, so that is added here.
        if let Some(opt) = self.opt.filter(|_| info.counts().additionals == 0) {
            add_opt(&mut bytes, opt);
        }
        *self.bytes.lock().unwrap_or_else(PoisonError::into_inner) = Some(bytes);
        Ok(info)
    }
}

/// Appends the record that says what we take, as the only one of the last section.
fn add_opt(bytes: &mut Vec<u8>, opt: [u8; OPT_LEN]) {
    let Some(count) = bytes.get_mut(ADDITIONAL_COUNT) else {
        return;
    };
    count.copy_from_slice(&1_u16.to_be_bytes());
    bytes.extend(opt);
}
