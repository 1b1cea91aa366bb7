//! Strings and bytes as HTTP structured fields (RFC 9651) write them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// The longest idempotency key in bytes.
pub const MAX_KEY_BYTES: usize = 255;

/// Reads the value of an `Idempotency-Key` header: a quoted string, or the bare text that most
/// clients send. Both name the same key. An error says what is wrong with it.
pub fn parse_key(value: &[u8]) -> Result<String, String> {
    let text = value.trim_ascii();
    let key = match text {
        [b'"', rest @ ..] => unquote(rest)?,
        bare => {
            let allowed = |byte: &u8| byte.is_ascii_graphic() && !b"\",\\".contains(byte);
            if !bare.iter().all(allowed) {
                return Err("it is neither a quoted string nor one word of visible ASCII".into());
            }
            bare.iter().map(|&byte| char::from(byte)).collect()
        }
    };
    match key.len() {
        0 => Err("it is empty".into()),
        1..=MAX_KEY_BYTES => Ok(key),
        bytes => Err(format!("it has {bytes} bytes, {MAX_KEY_BYTES} are allowed")),
    }
}

/// What stands between the quotes. `rest` begins after the first of them.
fn unquote(rest: &[u8]) -> Result<String, String> {
    let mut text = String::new();
    let mut bytes = rest.iter();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'"' if bytes.as_slice().is_empty() => return Ok(text),
            b'"' => return Err("something follows the closing quote".into()),
            b'\\' => match bytes.next() {
                Some(&escaped @ (b'"' | b'\\')) => text.push(char::from(escaped)),
                _ => return Err("a backslash may only stand before a quote or a backslash".into()),
            },
            b' '..=b'~' => text.push(char::from(byte)),
            _ => return Err("a quoted string is of printable ASCII only".into()),
        }
    }
    Err("the closing quote is missing".into())
}

/// A value of its own kind: text of printable ASCII is quoted, anything else is `:base64:`.
pub fn item(value: &[u8]) -> String {
    if !value.iter().all(|byte| matches!(byte, b' '..=b'~')) {
        return format!(":{}:", STANDARD.encode(value));
    }
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('"');
    for &byte in value {
        if matches!(byte, b'"' | b'\\') {
            quoted.push('\\');
        }
        quoted.push(char::from(byte));
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_same_with_and_without_quotes() {
        assert_eq!(parse_key(b"\"8e03978e-40d5\"").unwrap(), "8e03978e-40d5");
        assert_eq!(parse_key(b" 8e03978e-40d5 ").unwrap(), "8e03978e-40d5");
        assert_eq!(parse_key(br#""a \"b\" \\""#).unwrap(), r#"a "b" \"#);
    }

    #[test]
    fn what_is_no_key_is_refused_with_the_reason() {
        for (value, reason) in [
            (&b""[..], "empty"),
            (b"\"\"", "empty"),
            (b"\"a", "closing quote is missing"),
            (b"\"a\"b", "follows the closing quote"),
            (b"\"a\";p=1", "follows the closing quote"),
            (b"\"\\n\"", "backslash"),
            (b"\"\xc3\xa4\"", "printable ASCII"),
            (b"a b", "neither"),
            (b"a, b", "neither"),
            (&[b'x'; 256], "256 bytes"),
        ] {
            let error = parse_key(value).unwrap_err();
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(parse_key(&[b'x'; 255]).unwrap().len(), 255);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["a", "a b", r#"q"u\o"#] {
            assert_eq!(parse_key(item(text.as_bytes()).as_bytes()).unwrap(), text);
        }
        assert_eq!(item("ä".as_bytes()), ":w6Q=:");
    }
}
