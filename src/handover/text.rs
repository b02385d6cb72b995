//! Names, arguments and paths of the operating system, written down: as text where they are UTF-8, as
//! they nearly always are, else as numbers. Nothing is lost of either.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Text<'a> {
    Readable(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
}

impl<'a> Text<'a> {
    fn of(text: &'a OsStr) -> Self {
        match text.to_str() {
            Some(text) => Self::Readable(text.into()),
            None => Self::Bytes(text.as_bytes().into()),
        }
    }

    fn take<T: From<OsString>>(self) -> T {
        match self {
            Self::Readable(text) => OsString::from(text.into_owned()).into(),
            Self::Bytes(bytes) => OsString::from_vec(bytes.into_owned()).into(),
        }
    }
}

pub(super) fn serialize<S: Serializer>(
    text: &impl AsRef<OsStr>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    Text::of(text.as_ref()).serialize(serializer)
}

pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: From<OsString>,
    D: Deserializer<'de>,
{
    Ok(Text::deserialize(deserializer)?.take())
}

/// One, or none.
pub(super) mod maybe {
    use super::*;

    pub(in crate::handover) fn serialize<S: Serializer>(
        text: &Option<impl AsRef<OsStr>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        text.as_ref().map(|text| Text::of(text.as_ref())).serialize(serializer)
    }

    pub(in crate::handover) fn deserialize<'de, T, D>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error>
    where
        T: From<OsString>,
        D: Deserializer<'de>,
    {
        Ok(Option::<Text<'_>>::deserialize(deserializer)?.map(Text::take))
    }
}

/// Several.
pub(super) mod list {
    use super::*;

    pub(in crate::handover) fn serialize<S: Serializer>(
        texts: &[OsString],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(texts.iter().map(|text| Text::of(text)))
    }

    pub(in crate::handover) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<OsString>, D::Error> {
        let texts = Vec::<Text<'_>>::deserialize(deserializer)?;
        Ok(texts.into_iter().map(Text::take).collect())
    }
}

/// Variables and their values.
pub(super) mod pairs {
    use super::*;

    pub(in crate::handover) fn serialize<S: Serializer>(
        pairs: &[(OsString, OsString)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(pairs.iter().map(|(name, value)| (Text::of(name), Text::of(value))))
    }

    pub(in crate::handover) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(OsString, OsString)>, D::Error> {
        let pairs = Vec::<(Text<'_>, Text<'_>)>::deserialize(deserializer)?;
        Ok(pairs.into_iter().map(|(name, value)| (name.take(), value.take())).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::handover::settings::{
        InheritedVariablesSnapshot, UserSnapshot, WorkerCommandSnapshot,
    };

    #[test]
    fn every_byte_survives_and_what_is_readable_stays_so() {
        let odd = || OsString::from_vec(vec![b'a', 0xff, b'\n']);
        let command = WorkerCommandSnapshot {
            program: "node".into(),
            arguments: vec!["server.js".into(), odd(), "".into()],
            directory: Some(PathBuf::from(odd())),
            environment: vec![("NAME".into(), odd()), (odd(), "ü".into())],
            inherited: InheritedVariablesSnapshot::Without(vec!["AWS_".to_owned()]),
            user: Some(UserSnapshot {
                name: None,
                home: Some("/srv".into()),
                uid: 33,
                gid: 33,
                groups: vec![1],
            }),
            umask: Some(0o27),
            nice: Some(-3),
            no_new_privs: true,
            drop_capabilities: true,
        };
        let text = serde_json::to_string(&command).unwrap();
        assert!(text.contains(r#""arguments":["server.js",[97,255,10],""]"#), "{text}");
        assert!(text.contains(r#"["NAME",[97,255,10]]"#) && text.contains(r#""home":"/srv""#));
        assert_eq!(serde_json::from_str::<WorkerCommandSnapshot>(&text).unwrap(), command);
    }
}
