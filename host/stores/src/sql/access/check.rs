//! What a statement is, and whether it was granted.

mod changes;
mod inspection;

use std::ops::ControlFlow;
use std::sync::Arc;

use semel_core::{SqlGrants, SqlValue};
use sqlparser::ast::{Statement, Visit};
use sqlparser::dialect::{Dialect, MySqlDialect, PostgreSqlDialect};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Tokenizer;

use self::inspection::Inspection;
use super::super::address::Kind as Server;
use super::placeholders;

/// The longest statement, in bytes and in tokens: no one writes longer ones, and the parser must
/// not run out of stack.
const MAX_BYTES: usize = 16 << 10;
const MAX_TOKENS: usize = 4_096;

/// A statement that was granted.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) kind: Kind,
    /// The table that it changes. Empty if it changes none.
    pub(super) table: Arc<str>,
    /// As the server is given it.
    pub(super) text: Arc<str>,
    /// How many parameters it takes.
    pub(super) parameters: usize,
    /// Which of them stands at each placeholder of the text.
    order: Option<Vec<usize>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Query,
    Change,
}

impl Checked {
    /// The parameters in the order in which the text asks for them.
    pub(super) fn arrange(&self, parameters: Vec<SqlValue>) -> Vec<SqlValue> {
        match &self.order {
            Some(order) => order.iter().map(|&at| parameters[at].clone()).collect(),
            None => parameters,
        }
    }
}

/// Understands a statement and tests it against the grants; else says why not.
pub(super) fn check(server: Server, grants: &SqlGrants, text: &str) -> Result<Checked, String> {
    checked(server, grants, text).map_err(|reason| {
        let shown = &text[..text.floor_char_boundary(100)];
        format!("the statement `{shown}` is not taken: {reason}")
    })
}

fn checked(server: Server, grants: &SqlGrants, text: &str) -> Result<Checked, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("it is longer than {MAX_BYTES} bytes"));
    }
    let statement = parse(server, &placeholders::number(text, server)?)?;
    let mut inspection = Inspection::new(server, grants);
    let kind = inspection.begin(&statement)?;
    let table = inspection.targets.first().cloned().unwrap_or_default();
    if let ControlFlow::Break(reason) = statement.visit(&mut inspection) {
        return Err(reason);
    }
    let (text, order) = placeholders::arrange(&statement.to_string(), server)?;
    let parameters = order.iter().map(|at| at + 1).max().unwrap_or(0);
    if let Some(missing) = (0..parameters).find(|at| !order.contains(at)) {
        return Err(format!("it has no parameter `${}`", missing + 1));
    }
    Ok(Checked {
        kind,
        table: table.into(),
        text: text.into(),
        parameters,
        order: (server == Server::Mysql).then_some(order),
    })
}

fn parse(server: Server, text: &str) -> Result<Statement, String> {
    let dialect: &dyn Dialect = match server {
        Server::Mysql => &MySqlDialect {},
        Server::Postgres => &PostgreSqlDialect {},
    };
    let tokens = Tokenizer::new(dialect, text).tokenize_with_location();
    let tokens = tokens.map_err(|error| error.to_string())?;
    if tokens.len() > MAX_TOKENS {
        return Err(format!("it has more than {MAX_TOKENS} words and signs"));
    }
    let mut parser = Parser::new(dialect).with_tokens_with_locations(tokens);
    let mut statements = parser
        .parse_statements()
        .map_err(|error| error.to_string())?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) => Ok(statement),
        _ => Err("it must be one statement".to_owned()),
    }
}

#[cfg(test)]
mod tests;
