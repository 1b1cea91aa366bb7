//! From a request to a message.

use axum::http::HeaderMap;
use axum::http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, EXPECT, HOST, HeaderName,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use semel_core::Header;

use super::field;
use super::problem::{Kind, Problem};

/// The header, in lower case, and so the message's header.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// The header of a one-time token.
pub const IDEMPOTENCY_TOKEN: HeaderName = HeaderName::from_static("idempotency-token");
/// The field of a form that bears a one-time token.
const TOKEN_FIELD: &str = "_token=";

/// Headers that are about the connection, or that bear secrets.
const WITHHELD: [HeaderName; 13] = [
    AUTHORIZATION,
    CONNECTION,
    CONTENT_LENGTH,
    COOKIE,
    EXPECT,
    HOST,
    IDEMPOTENCY_KEY,
    IDEMPOTENCY_TOKEN,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The request's idempotency key, if it bears one.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let refuse = |reason: &str| {
        Problem::new(
            Kind::KeyInvalid,
            format!(
                "the header Idempotency-Key can't be used: {reason}; send one value such as \"8e03978e-40d5-43e8-bc93-6894a57f9324\""
            ),
        )
    };
    match single(headers, &IDEMPOTENCY_KEY) {
        Ok(None) => Ok(None),
        Ok(Some(value)) => field::parse_key(value)
            .map(Some)
            .map_err(|why| refuse(&why)),
        Err(count) => Err(refuse(&format!("it is there {count} times"))),
    }
}

/// The request's one-time token in its own header, if it bears one.
pub fn header_token(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    match single(headers, &IDEMPOTENCY_TOKEN) {
        Ok(value) => Ok(value.map(|value| String::from_utf8_lossy(value).trim().to_owned())),
        Err(count) => Err(Problem::new(
            Kind::TokenInvalid,
            format!("the header Idempotency-Token is there {count} times; send it once"),
        )),
    }
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h [u8]>, usize> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.count()) {
        (first, 0) => Ok(first.map(|value| value.as_bytes())),
        (_, more) => Err(1 + more),
    }
}

/// Whether the body is a form, which may bear a token.
pub fn is_form(headers: &HeaderMap) -> bool {
    let form = b"application/x-www-form-urlencoded";
    headers.get(CONTENT_TYPE).is_some_and(|value| {
        let media_type = value.as_bytes().split(|&byte| byte == b';').next();
        media_type.is_some_and(|text| text.trim_ascii().eq_ignore_ascii_case(form))
    })
}

/// The one-time token in a form's body. Tokens are of characters that forms don't encode.
pub fn form_token(body: &[u8]) -> Option<String> {
    let mut fields = body.split(|&byte| byte == b'&');
    let token = fields.find_map(|field| field.strip_prefix(TOKEN_FIELD.as_bytes()))?;
    Some(String::from_utf8_lossy(token).into_owned())
}

/// What a handler is given of the request's headers, and the key that it bears.
pub fn message_headers(headers: &HeaderMap, key: Option<&str>) -> Vec<Header> {
    let given = headers.iter().filter(|(name, _)| !WITHHELD.contains(name));
    let given = given.filter_map(|(name, value)| {
        Some(Header {
            name: name.as_str().to_owned(),
            value: std::str::from_utf8(value.as_bytes()).ok()?.to_owned(),
        })
    });
    let key = key.map(|key| Header {
        name: IDEMPOTENCY_KEY.as_str().to_owned(),
        value: key.to_owned(),
    });
    key.into_iter().chain(given).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_handler_sees_the_key_without_quotes_and_no_secrets() {
        let headers = headers(&[
            ("Host", "h"),
            ("Authorization", "Bearer s3cret"),
            ("Cookie", "s3cret"),
            ("Idempotency-Key", "\"k\""),
            ("Idempotency-Token", "s3cret"),
            ("X-Trace", "1"),
            ("X-Trace", "2"),
        ]);
        let given = message_headers(&headers, Some("k"));
        let given: Vec<_> = given
            .iter()
            .map(|h| (h.name.as_str(), h.value.as_str()))
            .collect();
        assert_eq!(
            given,
            [("idempotency-key", "k"), ("x-trace", "1"), ("x-trace", "2")]
        );
    }

    #[test]
    fn two_keys_are_none() {
        let twice = headers(&[("Idempotency-Key", "a"), ("Idempotency-Key", "a")]);
        assert!(idempotency_key(&twice).is_err());
        assert_eq!(idempotency_key(&headers(&[])).unwrap(), None);
    }

    #[test]
    fn a_form_bears_its_token_in_a_field() {
        let form = headers(&[(
            "Content-Type",
            "Application/X-WWW-Form-URLencoded; charset=utf-8",
        )]);
        assert!(is_form(&form));
        assert!(!is_form(&headers(&[("Content-Type", "application/json")])));
        assert_eq!(form_token(b"a=1&_token=abc-_9&b=2").unwrap(), "abc-_9");
        assert_eq!(form_token(b"a=1&x_token=abc"), None);
    }
}
