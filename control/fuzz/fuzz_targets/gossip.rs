//! A member says anything about records: any bytes, and records that it signed whatever they say.
//!
//! ```text
//!  each step   0: any bytes on a link  1: a record signed by the member, fresh or not  2: time passes
//! ```

#![no_main]

use std::time::{Duration, Instant};

use libfuzzer_sys::fuzz_target;
use weft_control::config::{MESSAGE_LEN_MAX, ORIGIN_BYTES_MAX, ORIGIN_RECORDS_MAX, RECORD_BODY_MAX};
use weft_control::fuzzing::{GossipEar, record};
use weft_control_fuzz::input::Input;
use weft_control_fuzz::watched::{config, identity};

const LINKS: u64 = 3;
/// Our own record, and all that the member may have us keep.
const BYTES_MAX: usize = 2 * ORIGIN_BYTES_MAX;

fuzz_target!(|bytes: &[u8]| {
    if let Some((len, body_len)) = record(bytes) {
        assert!(len <= bytes.len() && body_len <= RECORD_BODY_MAX);
    }
    let mut input = Input(bytes);
    let mut now = Instant::now();
    let settings = config("node", true, &[]);
    let mut ear = GossipEar::new(settings, identity(1), identity(2), LINKS, now);
    let introduction = [[4, 1].as_slice(), &ear.introduction(1)].concat();
    ear.hear(0, &introduction, now);
    assert_eq!(ear.size().0, 2, "an honest introduction is kept");
    while !input.is_over() {
        let said = match input.byte() % 3 {
            0 => ear.hear(u64::from(input.byte()) % LINKS, input.bytes(), now),
            1 => {
                let (kind, part, why) = (input.byte(), input.short() % 100, input.byte());
                let version = [u64::from(input.byte()), u64::from(input.byte())];
                let signed = ear.signed(kind, part, version, input.bytes());
                ear.hear(1, &[[4, why & 1].as_slice(), &signed].concat(), now)
            }
            _ => {
                now += Duration::from_millis(u64::from(input.short()));
                ear.tick(now)
            }
        };
        for (link, message) in said {
            assert!(link < LINKS && message.len() < MESSAGE_LEN_MAX);
        }
        let (count, size) = ear.size();
        assert!(size <= BYTES_MAX, "{size} bytes kept");
        // Each origin but the member needs a signature that the input cannot make.
        assert!(count <= 2 * ORIGIN_RECORDS_MAX, "{count} records kept");
    }
    // In the end there is nothing left that is due at once for ever.
    let mut same = 0;
    while let Some(due) = ear.deadline().filter(|due| *due < now + Duration::from_secs(60)) {
        ear.tick(due);
        same = if ear.deadline() == Some(due) { same + 1 } else { 0 };
        assert!(same < 8, "would spin");
    }
});
