//! Transfers between accounts: two state keys change in one atomic step.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

use semel::{Context, OrFail, Result};
use serde::{Deserialize, Serialize};

/// A message of the topic `transfers`.
#[derive(Debug, Deserialize)]
pub struct Transfer {
    /// The producer's number for the transfer: the business key.
    pub transfer_id: String,
    /// Whose account pays. Absent or null: a deposit from outside.
    pub from: Option<String>,
    /// Whose account receives.
    pub to: String,
    /// How much, in cents; more than 0.
    pub amount: u64,
}

/// A message to the destination `transfers-done`.
#[derive(Debug, Serialize)]
struct Done<'t> {
    transfer_id: &'t str,
    from: Option<&'t str>,
    to: &'t str,
    amount: u64,
}

/// Moves the money, and publishes that it did.
///
/// # Errors
/// Rejects a transfer of nothing, from an account to itself, or of more than the account
/// holds.
#[semel::handler(topics = ["transfers"], key = "json:/transfer_id")]
pub fn move_money(transfer: Transfer, ctx: &mut Context) -> Result {
    let Transfer {
        transfer_id,
        from,
        to,
        amount,
    } = &transfer;
    if *amount == 0 {
        return Err(semel::reject("a transfer moves more than 0"));
    }
    if from.as_ref() == Some(to) {
        return Err(semel::reject(format_args!("`{to}` can't pay itself")));
    }
    if let Some(from) = from {
        let held = balance(ctx, from)?;
        let left = held.checked_sub(*amount).or_reject(format_args!(
            "`{from}` holds {held}, which is less than {amount}"
        ))?;
        ctx.state().put(&account(from), &left)?;
    }
    let new = balance(ctx, to)?
        .checked_add(*amount)
        .or_reject(format_args!("`{to}` would hold more than 64 bits can"))?;
    ctx.state().put(&account(to), &new)?;
    ctx.publish(
        "transfers-done",
        &Done {
            transfer_id,
            from: from.as_deref(),
            to,
            amount: *amount,
        },
    )?;
    Ok(())
}

fn balance(ctx: &Context, owner: &str) -> Result<u64> {
    Ok(ctx.state().get(&account(owner))?.unwrap_or(0))
}

fn account(owner: &str) -> String {
    format!("account/{owner}")
}
