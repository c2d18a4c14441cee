//! Several datapaths over memory: relays, trees, storms, loops and moves.

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside `#[test]`")]

#[path = "mesh/bridge.rs"]
mod bridge;
#[path = "mesh/group.rs"]
mod group;
#[path = "mesh/hosts.rs"]
mod hosts;
#[path = "mesh/relay.rs"]
mod relay;
