//! What the attribute makes of a function.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Context, Error, Message, OrFail, Result};

/// A message handler: what [`#[semel::handler]`](macro@crate::handler) implements, on a type
/// with the function's name.
pub trait Handler {
    /// The manifest, as JSON.
    const MANIFEST: &'static str;

    /// Handles the context's message. The bytes, if any, are the reply.
    ///
    /// # Errors
    /// What the handler said, or a rejection if the message is not what the handler takes.
    fn handle(context: &mut Context) -> Result<Option<Vec<u8>>>;
}

/// What a handler's first parameter can be: any [`Deserialize`](serde::Deserialize) type that
/// owns its data, read from the body as JSON, or the raw [`Message`].
#[diagnostic::on_unimplemented(
    message = "a handler can't take a `{Self}`",
    label = "neither `semel::Message` nor a `serde::Deserialize` type that owns its data",
    note = "derive it: `#[derive(serde::Deserialize)]`"
)]
pub trait FromMessage: Sized {
    /// Reads it.
    ///
    /// # Errors
    /// A rejection that says what is wrong with the message.
    fn from_message(message: &Message) -> Result<Self>;
}

impl FromMessage for Message {
    fn from_message(message: &Message) -> Result<Self> {
        Ok(message.clone())
    }
}

impl<T: DeserializeOwned> FromMessage for T {
    fn from_message(message: &Message) -> Result<Self> {
        message.json()
    }
}

/// What a handler can return besides `()`: a reply, kept with the done record and given
/// again to duplicates.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no reply",
    note = "wrap it for a JSON reply: `semel::Result<semel::Json<{Self}>>`"
)]
pub trait IntoReply {
    /// The bytes, if there is a reply.
    ///
    /// # Errors
    /// A rejection if it has no such form.
    fn into_reply(self) -> Result<Option<Vec<u8>>>;
}

/// A reply as JSON.
///
/// ```
/// # use semel::{Context, Json, Result};
/// #[semel::handler(topics = ["numbers"])]
/// fn double(number: i64, ctx: &mut Context) -> Result<Json<i64>> {
///     Ok(Json(number * 2))
/// }
///
/// let mut host = semel::testing::Harness::new::<double>();
/// assert_eq!(host.deliver(&21).reply(), Some(b"42".as_slice()));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoReply for Json<T> {
    fn into_reply(self) -> Result<Option<Vec<u8>>> {
        let bytes = serde_json::to_vec(&self.0).or_reject("the reply has no JSON form")?;
        Ok(Some(bytes))
    }
}

impl IntoReply for () {
    fn into_reply(self) -> Result<Option<Vec<u8>>> {
        Ok(None)
    }
}

impl IntoReply for Vec<u8> {
    fn into_reply(self) -> Result<Option<Vec<u8>>> {
        Ok(Some(self))
    }
}

impl IntoReply for String {
    fn into_reply(self) -> Result<Option<Vec<u8>>> {
        Ok(Some(self.into_bytes()))
    }
}

impl<T: IntoReply> IntoReply for Option<T> {
    fn into_reply(self) -> Result<Option<Vec<u8>>> {
        self.map_or(Ok(None), T::into_reply)
    }
}

/// Turns what a handler returned into what the contract returns.
#[doc(hidden)]
pub fn finish<T: IntoReply, E: Into<Error>>(returned: Result<T, E>) -> Result<Option<Vec<u8>>> {
    returned.map_err(Into::into)?.into_reply()
}
