//! Values and keys in the syntax of the configuration file.

use clap::Arg;

use crate::settings::table;

/// A setting's default in the syntax of the file.
pub(super) fn default_value(setting: &Arg) -> String {
    let defaults = setting.get_default_values();
    let defaults: Vec<_> = defaults.iter().map(|value| value.to_string_lossy().into()).collect();
    match &defaults[..] {
        [] if table::is_list(setting) => "[]".to_owned(),
        [] => "\"\"".to_owned(),
        defaults => written(setting, defaults),
    }
}

/// A value in the syntax of the file.
pub(super) fn written(setting: &Arg, values: &[String]) -> String {
    match values {
        [value] if !table::is_list(setting) || value == "true" || value == "false" => plain(value),
        values => {
            let values: Vec<_> = values.iter().map(|value| plain(value)).collect();
            format!("[{}]", values.join(", "))
        }
    }
}

/// Numbers and booleans as they are, everything else in quotes.
pub(super) fn plain(value: &str) -> String {
    let number = value.parse::<i64>().is_ok_and(|number| number.to_string() == value);
    if number || value == "true" || value == "false" { value.to_owned() } else { quoted(value) }
}

/// A TOML string. They are JSON's but for one character.
pub(super) fn quoted(value: &str) -> String {
    serde_json::Value::from(value).to_string().replace('\u{7f}', "\\u007F")
}

/// A key, in quotes where needed.
pub(super) fn key(name: &str) -> String {
    let bare = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && name.chars().all(bare) { name.to_owned() } else { quoted(name) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_written_as_toml() {
        for (value, expected) in
            [("3", "3"), ("-1", "-1"), ("007", "\"007\""), ("true", "true"), ("a\"b", "\"a\\\"b\"")]
        {
            assert_eq!(plain(value), expected);
        }
        assert_eq!(key("NODE_ENV"), "NODE_ENV");
        assert_eq!(key("a b"), "\"a b\"");
    }
}
