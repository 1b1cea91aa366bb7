//! Transfers between accounts that are rows of a table of the bank's own.
#![forbid(unsafe_code)]
#![deny(missing_docs)]

use semel::{Context, Result};
use serde::{Deserialize, Serialize};

/// A message of the topic `transfers`, and one to the destination `booked`.
#[derive(Debug, Deserialize, Serialize)]
pub struct Transfer {
    /// The business key.
    pub transfer_id: String,
    /// The account that pays.
    pub from: String,
    /// The account that is paid.
    pub to: String,
    /// How much, in the smallest unit of the currency.
    pub amount: i64,
}

#[derive(Deserialize)]
struct Account {
    balance: i64,
    version: i64,
}

/// Books a transfer, and passes it on.
///
/// # Errors
/// Rejects an amount that is not above 0, an account that isn't there, and one that has too little.
#[semel::handler(topics = ["transfers"], key = "json:/transfer_id")]
pub fn book(transfer: Transfer, ctx: &mut Context) -> Result {
    let Transfer {
        transfer_id,
        from,
        to,
        amount,
    } = &transfer;
    if *amount <= 0 {
        return Err(semel::reject(format_args!("the amount is {amount}")));
    }
    let payer: Option<Account> = ctx
        .sql()
        .query("SELECT balance, version FROM accounts WHERE id = ?")
        .bind(from)
        .first()?;
    let Some(payer) = payer else {
        return Err(semel::reject(format_args!("there is no account `{from}`")));
    };
    if payer.balance < *amount {
        let balance = payer.balance;
        return Err(semel::reject(format_args!(
            "`{from}` has {balance}, which is less than {amount}"
        )));
    }
    // What was read may have changed since: then this matches no row, and the handler runs again.
    ctx.sql()
        .statement(
            "UPDATE accounts SET balance = balance - ?, version = version + 1 \
             WHERE id = ? AND version = ?",
        )
        .bind(*amount)
        .bind(from)
        .bind(payer.version)
        .rows(1)
        .stage()?;
    // This holds whatever the balance is. That the account is there, it must find out by itself.
    ctx.sql()
        .statement("UPDATE accounts SET balance = balance + ?, version = version + 1 WHERE id = ?")
        .bind(*amount)
        .bind(to)
        .rows(1)
        .or_reject()
        .stage()?;
    ctx.sql()
        .statement("INSERT INTO transfers (id, payer, payee, amount) VALUES (?, ?, ?, ?)")
        .bind(transfer_id)
        .bind(from)
        .bind(to)
        .bind(*amount)
        .or_reject()
        .stage()?;
    ctx.publish("booked", &transfer)?;
    Ok(())
}
