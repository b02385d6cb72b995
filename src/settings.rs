//! The settings: one table for the flags and for the keys of `sticky-lb.toml`.
//!
//! Acts on no setting.

pub mod before;
pub mod change;
pub mod control;
mod doubts;
pub mod drain;
pub mod file;
pub mod general;
#[cfg(test)]
mod guide;
pub mod hand_off;
pub mod interface;
pub mod layers;
pub mod lifecycle;
pub mod limits;
pub mod output;
pub mod placement;
pub mod pm2 {
    //! Configuration files of PM2, read and converted.
    mod command;
    pub mod convert;
    pub mod ecosystem;
    mod keys;
}
pub mod problems;
pub mod reader;
pub mod reference;
pub mod report;
mod resolve;
pub mod scaling;
mod secret;
mod syntax;
pub mod table;
pub mod template;
pub mod triggers;
pub mod units;
pub mod user;
pub mod worker;
