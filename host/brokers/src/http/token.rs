//! One-time tokens: idempotency keys that the host gives out, for clients that can't make their
//! own, such as a form.
//!
//! A token says of itself what it is good for, under a MAC: nothing is stored when it is
//! issued. That it is good for one message only follows from its use as idempotency key: the
//! record of the first message answers every later one.

use std::fmt;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// What separates the MAC's key from other uses of the same secret.
const CONTEXT: &str = "semel 2026 one-time tokens of the HTTP source";

const RANDOM: usize = 16;
const EXPIRY: usize = 8;
const MAC: usize = blake3::OUT_LEN;

/// Issues and verifies tokens.
pub struct Tokens {
    key: [u8; blake3::KEY_LEN],
    lifetime: Duration,
}

/// Why a token is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It was not issued under this secret, or for another topic.
    Forged,
    /// It was, and its time is over.
    Expired,
}

impl Tokens {
    /// Tokens under a secret that several hosts may share, or else under one of this process.
    pub fn new(secret: Option<&str>, lifetime: Duration) -> Self {
        let key = match secret {
            Some(secret) => blake3::derive_key(CONTEXT, secret.as_bytes()),
            None => rand::random(),
        };
        Self { key, lifetime }
    }

    /// How long a token is good for.
    pub fn lifetime(&self) -> Duration {
        self.lifetime
    }

    /// A new token for a message of `topic`.
    pub fn issue(&self, topic: &str, now_ms: u64) -> String {
        let random: [u8; RANDOM] = rand::random();
        let lifetime_ms = u64::try_from(self.lifetime.as_millis()).unwrap_or(u64::MAX);
        let expiry = now_ms.saturating_add(lifetime_ms).to_be_bytes();
        let mac = self.mac(topic, &random, &expiry);
        URL_SAFE_NO_PAD.encode([&random[..], &expiry, mac.as_bytes()].concat())
    }

    /// The idempotency key that a token stands for: 32 hexadecimal digits.
    pub fn verify(&self, token: &str, topic: &str, now_ms: u64) -> Result<String, TokenError> {
        let bytes = URL_SAFE_NO_PAD
            .decode(token)
            .map_err(|_| TokenError::Forged)?;
        let bytes: [u8; RANDOM + EXPIRY + MAC] =
            bytes.try_into().map_err(|_| TokenError::Forged)?;
        let (random, rest) = bytes
            .split_first_chunk::<RANDOM>()
            .ok_or(TokenError::Forged)?;
        let (expiry, mac) = rest
            .split_first_chunk::<EXPIRY>()
            .ok_or(TokenError::Forged)?;
        // Hashes are compared in constant time.
        if self.mac(topic, random, expiry) != *mac {
            return Err(TokenError::Forged);
        }
        if now_ms >= u64::from_be_bytes(*expiry) {
            return Err(TokenError::Expired);
        }
        Ok(random.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    fn mac(&self, topic: &str, random: &[u8; RANDOM], expiry: &[u8; EXPIRY]) -> blake3::Hash {
        // The topic is last and everything before it of one length: no two inputs are one text.
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        hasher
            .update(random)
            .update(expiry)
            .update(topic.as_bytes());
        hasher.finalize()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFETIME: Duration = Duration::from_secs(60);

    fn shared() -> Tokens {
        Tokens::new(Some("a secret that hosts share among them"), LIFETIME)
    }

    #[test]
    fn a_token_is_good_for_its_topic_and_time_on_every_host_with_the_secret() {
        let token = shared().issue("orders", 1_000);
        let key = shared().verify(&token, "orders", 2_000).unwrap();
        assert_eq!(key.len(), 32);
        assert_eq!(shared().verify(&token, "orders", 60_999).unwrap(), key);
        let expired = shared().verify(&token, "orders", 61_000);
        assert_eq!(expired, Err(TokenError::Expired));
        let elsewhere = shared().verify(&token, "order", 2_000);
        assert_eq!(elsewhere, Err(TokenError::Forged));
        let other = Tokens::new(None, LIFETIME).verify(&token, "orders", 2_000);
        assert_eq!(other, Err(TokenError::Forged));
    }

    #[test]
    fn no_two_tokens_are_the_same() {
        let tokens = shared();
        assert_ne!(tokens.issue("t", 0), tokens.issue("t", 0));
    }

    #[test]
    fn a_token_with_any_bit_changed_is_forged() {
        let tokens = shared();
        let token = tokens.issue("orders", 0);
        let bytes = URL_SAFE_NO_PAD.decode(&token).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = URL_SAFE_NO_PAD.encode(&changed);
            assert_eq!(
                tokens.verify(&changed, "orders", 1),
                Err(TokenError::Forged),
                "bit {bit}"
            );
        }
        for text in ["", "x", "not base64!", &token[1..], &format!("{token}AA")] {
            assert_eq!(
                tokens.verify(text, "orders", 1),
                Err(TokenError::Forged),
                "{text}"
            );
        }
    }
}
