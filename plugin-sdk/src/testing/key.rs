//! Key expressions, evaluated as the host does.

use std::collections::HashMap;

use serde_json::value::RawValue;

use super::Incoming;

/// The longest key in bytes.
const MAX_KEY_BYTES: usize = 1024;

/// The key that an expression finds in a message, or why there is none. The attribute checked
/// the expression's syntax.
pub(super) fn evaluate(expression: &str, message: &Incoming, id: &str) -> Result<String, String> {
    let terms: Vec<&str> = expression.split(" + ").map(str::trim).collect();
    let mut key = String::new();
    for term in &terms {
        let text = match find(term, message, id).map_err(|why| format!("`{term}` {why}"))? {
            None => return Err(format!("`{term}` finds nothing in the message")),
            Some(text) if text.is_empty() => {
                return Err(format!("`{term}` is empty in the message"));
            }
            Some(text) => text,
        };
        // Of several terms each is preceded by its length, so that no two splits collide.
        if terms.len() > 1 {
            key.push_str(&format!("{}:", text.len()));
        }
        key.push_str(&text);
    }
    match key.len() {
        ..=MAX_KEY_BYTES => Ok(key),
        bytes => Err(format!(
            "the key has {bytes} bytes, {MAX_KEY_BYTES} are allowed"
        )),
    }
}

/// The version that an expression finds in a message, or why there is none.
pub(super) fn evaluate_version(
    expression: &str,
    message: &Incoming,
    id: &str,
) -> Result<u64, String> {
    let text = evaluate(expression, message, id)?;
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten().ok_or_else(|| {
        format!(
            "the version `{text}` is no whole number from 0 to {}",
            u64::MAX
        )
    })
}

fn find(term: &str, message: &Incoming, id: &str) -> Result<Option<String>, String> {
    match term.split_once(':') {
        Some(("header", name)) => {
            let header = message.headers.iter().find(|(header, _)| header == name);
            Ok(header.map(|(_, value)| value.clone()))
        }
        Some((_, pointer)) => {
            let body: &RawValue = serde_json::from_slice(&message.body).map_err(not_json)?;
            scalar(walk(body, pointer)?)
        }
        None if term == "keys" => Ok((!message.keys.is_empty()).then(|| message.keys.join(" "))),
        None => Ok(Some(id.to_owned())),
    }
}

/// What an RFC 6901 pointer leads to.
fn walk<'b>(body: &'b RawValue, pointer: &str) -> Result<Option<&'b RawValue>, String> {
    let mut value = body;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        let next = match value.get().as_bytes().first() {
            Some(b'{') => parse::<HashMap<String, &RawValue>>(value.get())?.remove(&token),
            Some(b'[') => {
                let elements: Vec<&RawValue> = parse(value.get())?;
                index(&token).and_then(|at| elements.get(at).copied())
            }
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

/// An array index: no sign, no leading zero.
fn index(token: &str) -> Option<usize> {
    let plain = token == "0" || !token.starts_with(['0', '+']);
    plain.then(|| token.parse().ok()).flatten()
}

/// The text of a string or of a whole number.
fn scalar(value: Option<&RawValue>) -> Result<Option<String>, String> {
    let Some(text) = value.map(RawValue::get) else {
        return Ok(None);
    };
    let found = match text.as_bytes().first() {
        Some(b'"') => return parse(text).map(Some),
        Some(b'-' | b'0'..=b'9') if !text.contains(['.', 'e', 'E']) => {
            return Ok(Some(text.to_owned()));
        }
        Some(b'-' | b'0'..=b'9') => "a number with a fraction",
        Some(b't' | b'f') => "true or false",
        Some(b'[') => "an array",
        Some(b'{') => "an object",
        _ => return Ok(None),
    };
    Err(format!("is {found}, not a string or a whole number"))
}

fn parse<'b, T: serde::Deserialize<'b>>(text: &'b str) -> Result<T, String> {
    serde_json::from_str(text).map_err(not_json)
}

fn not_json(error: serde_json::Error) -> String {
    format!("needs a JSON body, and this one is none: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(expression: &str, body: &str) -> Result<String, String> {
        let message = Incoming::new(body).key("k1").header("tenant", "t");
        evaluate(expression, &message, "m-1")
    }

    #[test]
    fn a_single_term_is_its_text() {
        for (expression, body, expected) in [
            ("id", "", "m-1"),
            ("keys", "", "k1"),
            ("header:tenant", "", "t"),
            ("json:/a/b", r#"{"x":[1],"a":{"b":"v"}}"#, "v"),
            ("json:/a/1", r#"{"a":[1,-20]}"#, "-20"),
            ("json:", r#""whole""#, "whole"),
            ("json:/a~1b", r#"{"a/b":"escaped"}"#, "escaped"),
            (
                "json:/big",
                r#"{"big":123456789012345678901}"#,
                "123456789012345678901",
            ),
            ("json:/twice", r#"{"twice":1,"twice":2}"#, "2"),
        ] {
            assert_eq!(
                key(expression, body).as_deref(),
                Ok(expected),
                "{expression}"
            );
        }
    }

    #[test]
    fn composites_have_their_lengths_before_them() {
        let body = r#"{"a":"x+y","b":"z"}"#;
        assert_eq!(key("json:/a + json:/b", body).unwrap(), "3:x+y1:z");
    }

    #[test]
    fn what_makes_no_key_is_named() {
        for (expression, body, why) in [
            ("json:/a", "{}", "finds nothing"),
            ("json:/a", r#"{"a":null}"#, "finds nothing"),
            ("json:/a/01", r#"{"a":[1,2]}"#, "finds nothing"),
            ("json:/a", r#"{"a":""}"#, "is empty"),
            ("json:/a", r#"{"a":1.5}"#, "a number with a fraction"),
            ("json:/a", r#"{"a":{}}"#, "an object"),
            ("json:/a", "{", "none"),
            ("header:other", "", "finds nothing"),
        ] {
            let error = key(expression, body).unwrap_err();
            assert!(error.contains(why), "{expression} in {body}: {error}");
        }
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(1025));
        assert!(key("json:/a", &long).unwrap_err().contains("1025 bytes"));
    }
}
