//! Lines that workers print.

use serde_json::Value;

use crate::control::answers::{Control, Items};
use crate::control::protocol::{Code, Problem};

impl Control {
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
