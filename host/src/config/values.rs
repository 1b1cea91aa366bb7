//! Values that people write with units.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use semel_core::parse_duration;
use serde::Deserialize;
use serde::de::{self, Deserializer, Visitor};

/// A duration such as `250ms` or `5m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A duration such as `7d`, kept as text, as manifests have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpanText(pub String);

/// The name of a namespace for state. It has no `#`: the host's own have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace(pub String);

/// A number of bytes such as `64MiB` or `65536`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size(pub usize);

/// Values that a handler may ask for by name. They may be secrets, so they are never printed.
#[derive(Clone, Default)]
pub struct Settings(pub HashMap<String, String>);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        duration(&text).map(Self).map_err(de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Namespace {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        if name.is_empty() || name.contains('#') {
            return Err(de::Error::custom(format!(
                "`{name}` can't be a namespace: it must not be empty, and names with `#` are the host's own"
            )));
        }
        Ok(Self(name))
    }
}

impl<'de> Deserialize<'de> for SpanText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration(&text).map_err(de::Error::custom)?;
        Ok(Self(text))
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| {
        format!(
            "`{text}` is no duration: write a whole number with ms, s, m, h or d, such as `30s`"
        )
    })
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Size;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"64MiB\" or a number of bytes")
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Size, E> {
                usize::try_from(number)
                    .map(Size)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Size, E> {
                parse_size(text)
                    .map(Size)
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }

        deserializer.deserialize_any(Bytes)
    }
}

/// Reads `64MiB`, `10kB`, `512B` or `4096`.
fn parse_size(text: &str) -> Option<usize> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let number: usize = text[..digits].parse().ok()?;
    let unit = match text[digits..].trim() {
        "" | "B" => 1,
        "kB" | "KB" => 1_000,
        "MB" => 1_000_000,
        "GB" => 1_000_000_000,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return None,
    };
    number.checked_mul(unit)
}

/// A duration in the largest unit that loses nothing.
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [
        (86_400_000, "d"),
        (3_600_000, "h"),
        (60_000, "m"),
        (1_000, "s"),
    ];
    units
        .into_iter()
        .find(|(unit, _)| milliseconds > 0 && milliseconds.is_multiple_of(*unit))
        .map_or_else(
            || format!("{milliseconds}ms"),
            |(unit, name)| format!("{}{name}", milliseconds / unit),
        )
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<'de> Deserialize<'de> for Settings {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let values = HashMap::<String, Setting>::deserialize(deserializer)?;
        let values = values.into_iter().map(|(name, value)| (name, value.0));
        Ok(Self(values.collect()))
    }
}

/// A handler gets text; the operator may leave out the quotes of numbers and booleans.
struct Setting(String);

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Setting;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string, a number or a boolean")
            }

            fn visit_bool<E>(self, value: bool) -> Result<Setting, E> {
                Ok(Setting(value.to_string()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Setting, E> {
                Ok(Setting(value.to_string()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Setting, E> {
                Ok(Setting(value.to_string()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Setting, E> {
                Ok(Setting(value.to_string()))
            }

            fn visit_str<E>(self, value: &str) -> Result<Setting, E> {
                Ok(Setting(value.to_owned()))
            }
        }

        deserializer.deserialize_any(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_size("4096"), Some(4096));
        assert_eq!(parse_size("64MiB"), Some(64 << 20));
        assert_eq!(parse_size("10 kB"), Some(10_000));
        for text in ["", "MiB", "1.5MiB", "-1", "7 parsecs", "99999999999GiB"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn durations_print_as_they_are_written() {
        for text in ["250ms", "30s", "90s", "15m", "36h", "7d", "0ms"] {
            assert_eq!(duration_text(parse_duration(text).unwrap()), text);
        }
    }

    #[test]
    fn settings_do_not_print_their_values() {
        let settings = Settings([("token".to_owned(), "s3cret".to_owned())].into());
        assert_eq!(format!("{settings:?}"), r#"{"token"}"#);
    }
}
