//! The bridge decides where one overlay frame goes.

mod fib;

pub use fib::{Fib, NextHop};
