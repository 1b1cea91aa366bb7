//! A coupon that each user gets once: a name in the state as a unique index.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

use semel::{Context, Json, Message, OrFail, Result};
use serde::{Deserialize, Serialize};

/// How many of each coupon there are, unless `supply` is configured.
const SUPPLY: u64 = 100;

/// A message of the topic `coupon-claims`: a form's fields, or JSON.
#[derive(Debug, Default, Deserialize)]
pub struct Claim {
    /// Which coupon.
    pub coupon: String,
    /// Who wants it.
    pub user: String,
}

/// The value of `claim/COUPON/USER`: who came first.
#[derive(Debug, Deserialize, Serialize)]
struct Claimed {
    /// The business key of the message that got it.
    by: String,
    /// Its number among those of the coupon.
    number: u64,
}

/// A message to the destination `coupons-granted`.
#[derive(Debug, Serialize)]
struct Granted<'c> {
    coupon: &'c str,
    user: &'c str,
    number: u64,
}

/// The reply.
#[derive(Debug, Serialize)]
pub struct Answer {
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
}

/// Grants the coupon, unless the user has it or none is left. Both are answers, no failures:
/// the client is told, and no operator has to look.
///
/// # Errors
/// Rejects what is no claim.
#[semel::handler(topics = ["coupon-claims"], key = "id")]
pub fn claim_coupon(message: Message, ctx: &mut Context) -> Result<Json<Answer>> {
    let Claim { coupon, user } = read(&message)?;
    // Otherwise coupon `a/b` of user `c` and coupon `a` of user `b/c` would share a name.
    if [&coupon, &user]
        .iter()
        .any(|part| part.is_empty() || part.contains('/'))
    {
        return Err(semel::reject("a coupon and a user have names, without `/`"));
    }
    let supply = match ctx.config("supply") {
        Some(text) => text.parse().or_retry("`supply` is no number")?,
        None => SUPPLY,
    };
    let index = format!("claim/{coupon}/{user}");
    if let Some(claimed) = ctx.state().get::<Claimed>(&index)? {
        return Ok(Json(Answer {
            result: "already-claimed",
            number: Some(claimed.number),
        }));
    }
    let issued_name = format!("issued/{coupon}");
    let issued: u64 = ctx.state().get(&issued_name)?.unwrap_or(0);
    if issued >= supply {
        return Ok(Json(Answer {
            result: "sold-out",
            number: None,
        }));
    }
    let number = issued + 1;
    let by = String::from_utf8_lossy(&message.key).into_owned();
    ctx.state().put(&issued_name, &number)?;
    ctx.state().put(&index, &Claimed { by, number })?;
    let granted = Granted {
        coupon: &coupon,
        user: &user,
        number,
    };
    ctx.publish("coupons-granted", &granted)?;
    Ok(Json(Answer {
        result: "granted",
        number: Some(number),
    }))
}

/// A browser sends a form's fields, and among them the token that made the message's key.
fn read(message: &Message) -> Result<Claim> {
    let media_type = message.header("content-type").unwrap_or_default();
    if !media_type.starts_with("application/x-www-form-urlencoded") {
        return message.json();
    }
    let mut claim = Claim::default();
    for (name, value) in form_urlencoded::parse(&message.body) {
        match &*name {
            "coupon" => claim.coupon = value.into_owned(),
            "user" => claim.user = value.into_owned(),
            _ => {}
        }
    }
    Ok(claim)
}
