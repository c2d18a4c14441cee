//! Two machines against each other over simulated underlays, and one machine fed by hand.

mod by_hand;
mod liveness;
mod mtu;
mod roaming;
mod sim;
