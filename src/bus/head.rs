//! The fields of a message that matter here; all others are left unread.

use serde::Deserialize;
use serde_json::value::RawValue;

/// A message of a program. Fields are JSON as it was written.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Head<'a> {
    #[serde(borrow, default, rename = "type")]
    pub(super) kind: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) channel: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) topic: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) uid: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) requester_uid: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) data: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) payload: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) request_id: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) metrics: Option<&'a RawValue>,
}

impl<'a> Head<'a> {
    /// Reads a message; one that is no object has no fields.
    pub(super) fn read(message: &'a [u8]) -> Self {
        let is_object = message.first() == Some(&b'{');
        serde_json::from_slice(message).ok().filter(|_| is_object).unwrap_or_default()
    }
}

/// A field that is a text.
pub(super) fn text(field: Option<&RawValue>) -> Option<String> {
    serde_json::from_str(field?.get()).ok()
}

/// Whether a field is this text, which has no character that JSON escapes.
pub(super) fn is(field: Option<&RawValue>, text: &str) -> bool {
    let quoted = field.map(RawValue::get).and_then(|it| it.strip_prefix('"')?.strip_suffix('"'));
    quoted == Some(text)
}

/// A number of the message, by the name of its field.
pub(super) fn number(message: &[u8], field: &str) -> Option<f64> {
    #[derive(Deserialize)]
    struct All<'a>(#[serde(borrow)] std::collections::HashMap<String, &'a RawValue>);
    let All(fields) = serde_json::from_slice(message).ok()?;
    serde_json::from_str(fields.get(field)?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_whatever_they_are() {
        let message = br#"{"type":3,"source":"_sio_adapter","uid":null,"x":[1],"n":2.5,"requesterUid":"a\u0041"}"#;
        let head = Head::read(message);
        assert_eq!(head.kind.unwrap().get(), "3");
        assert!(is(head.source, "_sio_adapter") && !is(head.source, "_sio"));
        assert_eq!(text(head.kind), None);
        assert_eq!(text(head.requester_uid).as_deref(), Some("aA"));
        assert_eq!((number(message, "n"), number(message, "x")), (Some(2.5), None));
        for other in [&b"\"ready\""[..], b"[1]", b"5", b"", b"{", b"{\"type\":1,\"type\":2}"] {
            assert!(Head::read(other).kind.is_none(), "{other:?}");
        }
    }
}
