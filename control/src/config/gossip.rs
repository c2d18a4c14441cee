//! Limits of the spread of records: which links they are pushed on, named on, asked for.

use std::time::Duration;

use super::MESSAGE_LEN_MAX;

/// Links that fresh records are pushed on from the start; the others are told ids, so a peer whom all name as their
/// target does not push a whole network to everybody.
pub const EAGER_LINKS_MAX: usize = 16;
/// Links by which fresh records are pushed to us, at least: with two a peer that fails delays hardly anything.
pub const PUSHES_MIN: usize = 2;
/// Between two links that are asked to push to us though enough do: ways change, and who is slow by now is pruned then;
/// but each change costs what is under way, and on a bad line any link is slow now and then.
pub const PUSH_EVERY: Duration = Duration::from_secs(5);
/// Links that a record of our own is pushed on, at least: all may have pruned us, and a record that has to be asked for
/// at once takes a quarter of a second more.
pub const OWN_PUSHED_MIN: usize = 8;
/// How long ids of fresh records are gathered before they go to lazy links.
pub const HAVE_AFTER: Duration = Duration::from_millis(20);
/// Between two such messages on one link: while news come all the time, each would weigh ten times what it says, and
/// what is pushed needs no name.
pub const HAVE_EVERY: Duration = Duration::from_secs(1);
/// Ids that wait to be told on one link: four records of each of a thousand peers.
pub const HAVE_MAX: usize = 4096;
/// How long a record that was named may take to come by a faster way: a few hops, of which one loses a segment.
pub const MISSING_AFTER: Duration = Duration::from_millis(400);
/// How long a record that was asked for may take.
pub const WANT_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// Records that were named and have not come: a cold start of a thousand peers.
pub const MISSING_MAX: usize = 8192;
/// Ids of records that were seen lately and need not be asked for.
pub const SEEN_MAX: usize = 8192;
/// Bytes of records in one message, but for a single larger one: slow links stay lively.
pub const GOSSIP_RECORDS_MAX: usize = 32 * 1024;
/// Messages with records under way on one link: while one that was lost is sent again, what comes by other ways need
/// not follow it. Full ones are 96 KiB, 15 Mbit/s at 50 ms, and far below `LINK_QUEUE_MAX`.
pub const GOSSIP_MESSAGES_MAX: usize = 3;
/// Entries of one gossip message: what `MESSAGE_LEN_MAX` holds of the smallest.
pub const GOSSIP_ENTRIES_MAX: usize = MESSAGE_LEN_MAX / 8;
