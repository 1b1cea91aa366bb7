//! The attribute `#[semel::handler]`. Use it through the crate `semel-sdk`.
#![deny(missing_docs)]
#![forbid(unsafe_code)]

mod arguments;
mod expand;
mod key;

use proc_macro::TokenStream;

/// Makes a function the plugin's message handler.
///
/// ```text
/// #[semel::handler(topics = ["orders"], key = "json:/order_id", order_by = "json:/user")]
/// fn grant_points(order: Order, ctx: &mut semel::Context) -> semel::Result { … }
/// ```
///
/// The function takes a `serde::Deserialize` type, read from the message's body as JSON, or
/// the raw `semel::Message`; then, if it wants one, the context. It returns `semel::Result`,
/// or `semel::Result<T>` where `T` is a reply. A body that can't be read as the type is
/// rejected before the function runs.
///
/// The arguments make the plugin's manifest. The operator may override each:
///
/// | argument | what it says | without it |
/// |---|---|---|
/// | `topics` | the topics to handle, such as `["orders"]` | the operator must say |
/// | `key` | where the business key stands: effects happen once per key | the source's message id, which a producer's resend changes |
/// | `order_by` | where the lane stands: messages of one lane take effect in order | messages run in any order |
/// | `version`, `entity` | where a version number stands, and the thing of which messages are versions: one that is not newer than what was applied has no effects | messages have no versions |
/// | `gap` | what becomes of a message that skips versions: it is handled (`"skip"`) or waits for those before it (`"wait"`) | `"skip"` |
/// | `gap_timeout` | how long it waits at most | `"30s"` |
/// | `first_version` | the version that an entity begins with, such as `1`; those after it wait for it | whichever comes first |
/// | `retention` | how long a key is remembered, such as `"7d"` (`ms`, `s`, `m`, `h`, `d`) | the host's default |
/// | `name` | the plugin's name | the crate's name |
///
/// `key`, `order_by`, `version` and `entity` are `id`, `keys`, `header:NAME`, `json:/pointer` (RFC 6901), or
/// several of these joined by ` + `. The version is one of them alone.
///
/// The function stays callable. A type of the same name stands beside it, for the test
/// harness: `semel::testing::Harness::new::<grant_points>()`.
#[proc_macro_attribute]
pub fn handler(arguments: TokenStream, function: TokenStream) -> TokenStream {
    expand::handler(arguments.into(), function.into())
        .unwrap_or_else(|error| error.into_compile_error())
        .into()
}
