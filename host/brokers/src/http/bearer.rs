//! Who may talk to the server.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

/// The bearer tokens that are accepted, as hashes: those are compared in constant time, and
/// tokens of any length take the same.
pub struct Bearers {
    accepted: Vec<blake3::Hash>,
}

/// What a request says of who sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// It bears an accepted token.
    Accepted,
    /// None is asked for, and it bears none.
    NotNeeded,
    /// One is asked for, and it bears none.
    Missing,
    /// It bears something else.
    Wrong,
}

impl Bearers {
    /// Accepts each of `tokens`; without any, whoever can connect.
    pub fn new(tokens: &[String]) -> Self {
        let accepted = tokens.iter().map(|token| blake3::hash(token.as_bytes()));
        Self {
            accepted: accepted.collect(),
        }
    }

    /// Looks at a request's `Authorization`.
    pub fn check(&self, headers: &HeaderMap) -> Credentials {
        if self.accepted.is_empty() {
            return Credentials::NotNeeded;
        }
        let Some(value) = headers.get(AUTHORIZATION) else {
            return Credentials::Missing;
        };
        let token = value.as_bytes().split_at_checked("Bearer ".len());
        let Some((_, token)) = token.filter(|(s, _)| s.eq_ignore_ascii_case(b"Bearer ")) else {
            return Credentials::Wrong;
        };
        let hash = blake3::hash(token.trim_ascii());
        // All are compared, so that the time does not tell which.
        let matches = self.accepted.iter().filter(|known| **known == hash).count();
        if matches > 0 {
            Credentials::Accepted
        } else {
            Credentials::Wrong
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(tokens: &[&str], authorization: Option<&str>) -> Credentials {
        let tokens: Vec<String> = tokens.iter().map(ToString::to_string).collect();
        let mut headers = HeaderMap::new();
        if let Some(value) = authorization {
            headers.insert(AUTHORIZATION, value.parse().unwrap());
        }
        Bearers::new(&tokens).check(&headers)
    }

    #[test]
    fn any_of_the_tokens_is_accepted_and_nothing_else() {
        let tokens = ["first", "second"];
        assert_eq!(check(&tokens, Some("Bearer first")), Credentials::Accepted);
        assert_eq!(check(&tokens, Some("bearer second")), Credentials::Accepted);
        for other in [
            "Bearer third",
            "Bearer ",
            "Bearer",
            "Basic first",
            "first",
            "Bearer firs",
        ] {
            assert_eq!(check(&tokens, Some(other)), Credentials::Wrong, "{other}");
        }
        assert_eq!(check(&tokens, None), Credentials::Missing);
        assert_eq!(check(&[], None), Credentials::NotNeeded);
    }
}
