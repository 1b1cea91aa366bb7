//! Try, confirm, cancel: money is frozen by one message, and spent or set free by another.
//!
//! The phases of a transaction may come in any order and any number of times.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

use semel::{Context, Json, OrFail, Result};
use serde::{Deserialize, Serialize};

/// A message of the topic `tcc`.
#[derive(Debug, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// Money comes in from outside.
    Deposit {
        /// The deposit's number.
        tx: String,
        /// Whose it is.
        account: String,
        /// How many cents.
        amount: u64,
    },
    /// Freeze the money, or say that there is too little.
    Try {
        /// The transaction's number.
        tx: String,
        /// Who pays.
        account: String,
        /// How many cents.
        amount: u64,
    },
    /// Spend what is frozen.
    Confirm {
        /// The transaction's number.
        tx: String,
    },
    /// Set free what is frozen, or will be.
    Cancel {
        /// The transaction's number.
        tx: String,
    },
}

/// The value of `account/NAME`, in cents.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Account {
    available: u64,
    /// Is in it still, and promised to transactions that were tried.
    frozen: u64,
}

/// The value of `tx/TX`. It outlives the done records of its messages, so that a phase which
/// comes after they expired is harmless, too.
#[derive(Debug, Deserialize, Serialize)]
#[serde(tag = "status", rename_all = "kebab-case")]
enum Transaction {
    Frozen { account: String, amount: u64 },
    Refused { reason: String },
    Confirmed,
    Cancelled,
}

/// The reply, and a message to the destination `tcc-results`.
#[derive(Debug, Serialize)]
pub struct Answer {
    tx: String,
    result: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

/// Takes one phase of one transaction, and says where the transaction stands.
///
/// # Errors
/// Asks to be run again for a confirmation of what was not tried. Rejects one of what was
/// refused or cancelled, and the cancellation of what was confirmed.
#[semel::handler(topics = ["tcc"], key = "json:/tx + json:/phase")]
pub fn take_phase(phase: Phase, ctx: &mut Context) -> Result<Json<Answer>> {
    let (tx, (result, reason)) = match phase {
        Phase::Deposit {
            tx,
            account,
            amount,
        } => {
            change(ctx, &account, |held| {
                held.available = held.available.checked_add(amount)?;
                Some(())
            })?;
            (tx, ("deposited", None))
        }
        Phase::Try {
            tx,
            account,
            amount,
        } => {
            let answer = attempt(ctx, &tx, account, amount)?;
            (tx, answer)
        }
        Phase::Confirm { tx } => {
            let result = confirm(ctx, &tx)?;
            (tx, (result, None))
        }
        Phase::Cancel { tx } => {
            let result = cancel(ctx, &tx)?;
            (tx, (result, None))
        }
    };
    let answer = Answer { tx, result, reason };
    ctx.publish("tcc-results", &answer)?;
    Ok(Json(answer))
}

fn attempt(
    ctx: &Context,
    tx: &str,
    account: String,
    amount: u64,
) -> Result<(&'static str, Option<String>)> {
    match transaction(ctx, tx)? {
        None => {}
        Some(Transaction::Frozen { .. }) => return Ok(("frozen", None)),
        Some(Transaction::Refused { reason }) => return Ok(("refused", Some(reason))),
        Some(Transaction::Confirmed) => return Ok(("confirmed", None)),
        // Nobody would ever set free what is frozen now.
        Some(Transaction::Cancelled) => {
            return Ok(("refused", Some("it was cancelled before".to_owned())));
        }
    }
    let held: Account = ctx.state().get(&name(&account))?.unwrap_or_default();
    if held.available < amount {
        let available = held.available;
        let reason = format!("`{account}` has {available} available, which is less than {amount}");
        let refused = Transaction::Refused {
            reason: reason.clone(),
        };
        ctx.state().put(&record(tx), &refused)?;
        return Ok(("refused", Some(reason)));
    }
    change(ctx, &account, |held| {
        held.available = held.available.checked_sub(amount)?;
        held.frozen = held.frozen.checked_add(amount)?;
        Some(())
    })?;
    ctx.state()
        .put(&record(tx), &Transaction::Frozen { account, amount })?;
    Ok(("frozen", None))
}

fn confirm(ctx: &Context, tx: &str) -> Result<&'static str> {
    match transaction(ctx, tx)? {
        Some(Transaction::Frozen { account, amount }) => {
            change(ctx, &account, |held| {
                held.frozen = held.frozen.checked_sub(amount)?;
                Some(())
            })?;
            ctx.state().put(&record(tx), &Transaction::Confirmed)?;
        }
        Some(Transaction::Confirmed) => {}
        // It overtook its try, which a broker may let happen.
        None => return Err(semel::retry(format_args!("`{tx}` was not tried yet"))),
        Some(Transaction::Refused { reason }) => {
            return Err(semel::reject(format_args!(
                "`{tx}` can't be confirmed, it was refused: {reason}"
            )));
        }
        Some(Transaction::Cancelled) => {
            return Err(semel::reject(format_args!(
                "`{tx}` can't be confirmed, it was cancelled"
            )));
        }
    }
    Ok("confirmed")
}

fn cancel(ctx: &Context, tx: &str) -> Result<&'static str> {
    match transaction(ctx, tx)? {
        Some(Transaction::Frozen { account, amount }) => {
            change(ctx, &account, |held| {
                held.frozen = held.frozen.checked_sub(amount)?;
                held.available = held.available.checked_add(amount)?;
                Some(())
            })?;
        }
        // There is nothing to set free. With no try so far the record is what holds off a late
        // one.
        None | Some(Transaction::Refused { .. } | Transaction::Cancelled) => {}
        Some(Transaction::Confirmed) => {
            return Err(semel::reject(format_args!(
                "`{tx}` can't be cancelled, it was confirmed"
            )));
        }
    }
    ctx.state().put(&record(tx), &Transaction::Cancelled)?;
    Ok("cancelled")
}

fn transaction(ctx: &Context, tx: &str) -> Result<Option<Transaction>> {
    ctx.state().get(&record(tx))
}

/// Changes an account. No sum in it may go below 0 or past 64 bits.
fn change(ctx: &Context, account: &str, with: impl FnOnce(&mut Account) -> Option<()>) -> Result {
    let mut held: Account = ctx.state().get(&name(account))?.unwrap_or_default();
    with(&mut held).or_reject(format_args!("a sum of `{account}` would leave 64 bits"))?;
    ctx.state().put(&name(account), &held)
}

fn name(account: &str) -> String {
    format!("account/{account}")
}

fn record(tx: &str) -> String {
    format!("tx/{tx}")
}
