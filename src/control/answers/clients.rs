//! Where clients go, and which connections workers hold.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use crate::control::answers::{Control, Items};
use crate::control::protocol::{Code, Problem};
use crate::control::report::{Connections, Whereabouts};

impl Control {
    pub(super) async fn whereabouts(
        &self,
        _address: Option<IpAddr>,
        _key: Option<String>,
    ) -> Result<Whereabouts, Problem> {
        Err(Problem::new(Code::Refused, "not there yet"))
    }

    pub(super) async fn connections(
        &self,
        _slot: Option<u16>,
        _address: Option<IpNet>,
        _limit: Option<usize>,
    ) -> Result<Connections, Problem> {
        Err(Problem::new(Code::Refused, "not there yet"))
    }

    pub(super) async fn logs(
        &self,
        _follow: bool,
        _slot: Option<u16>,
        _err: bool,
        _lines: usize,
        _items: &Items,
    ) -> Result<Value, Problem> {
        Err(Problem::new(Code::Refused, "not there yet"))
    }
}
