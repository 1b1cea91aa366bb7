//! What a statement is, and whether it was granted.

use std::ops::ControlFlow;
use std::sync::Arc;

use semel_core::{SqlGrants, SqlValue};
use sqlparser::ast::{
    Assignment, AssignmentTarget, BinaryOperator, Delete, Expr, FromTable, Function,
    FunctionArguments, Ident, Insert, ObjectName, OnConflictAction, OnInsert, Query, Select,
    SetExpr, Statement, TableFactor, TableObject, TableWithJoins, UnaryOperator, Update,
    UpdateTableFromKind, Value, ValueWithSpan, Visit, Visitor,
};
use sqlparser::dialect::{Dialect, MySqlDialect, PostgreSqlDialect};
use sqlparser::parser::Parser;
use sqlparser::tokenizer::Tokenizer;

use super::super::address::Kind as Server;
use super::functions::is_harmless;
use super::placeholders;

/// The longest statement, in bytes and in tokens: no one writes longer ones, and the parser must
/// not run out of stack.
const MAX_BYTES: usize = 16 << 10;
const MAX_TOKENS: usize = 4_096;
const MAX_DEPTH: usize = 200;

/// A statement that was granted.
#[derive(Debug)]
pub(super) struct Checked {
    pub(super) kind: Kind,
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

/// A look at every part of a statement.
struct Inspection<'g> {
    grants: &'g SqlGrants,
    server: Server,
    /// The tables that are changed, until they are met.
    targets: Vec<String>,
    statements: usize,
    depth: usize,
}

type Flow = ControlFlow<String>;

fn deny(reason: impl Into<String>) -> Flow {
    ControlFlow::Break(reason.into())
}

/// Denies what is there and must not be.
fn deny_any(parts: &[(bool, &str)]) -> Result<(), String> {
    match parts.iter().find(|(is_there, _)| *is_there) {
        Some((_, part)) => Err(format!("{part} is not taken")),
        None => Ok(()),
    }
}

impl<'g> Inspection<'g> {
    fn new(server: Server, grants: &'g SqlGrants) -> Self {
        Self {
            grants,
            server,
            targets: Vec::new(),
            statements: 0,
            depth: 0,
        }
    }

    /// Notes what the statement changes, if that was granted. Each part of a statement is named,
    /// so that a parser that knows more of them must be looked at.
    fn begin(&mut self, statement: &Statement) -> Result<Kind, String> {
        match statement {
            Statement::Query(_) => return Ok(Kind::Query),
            Statement::Insert(insert) => self.begin_insert(insert)?,
            Statement::Update(update) => self.begin_update(update)?,
            Statement::Delete(delete) => self.begin_delete(delete)?,
            _ => return Err("only SELECT, INSERT, UPDATE and DELETE are".to_owned()),
        }
        Ok(Kind::Change)
    }

    fn begin_insert(&mut self, insert: &Insert) -> Result<(), String> {
        let Insert {
            insert_token: _,
            optimizer_hints,
            or,
            ignore,
            into: _,
            table,
            table_alias: _,
            columns: _,
            overwrite,
            source: _,
            assignments,
            partitioned,
            after_columns,
            has_table_keyword,
            on,
            returning,
            output,
            replace_into,
            priority,
            insert_alias,
            settings,
            format_clause,
            multi_table_insert_type,
            multi_table_into_clauses,
            multi_table_when_clauses,
            multi_table_else_clause,
        } = insert;
        deny_any(&[
            (*ignore, "IGNORE, which hides errors,"),
            (*replace_into, "REPLACE"),
            (returning.is_some() || output.is_some(), "RETURNING"),
            (or.is_some() || *overwrite, "OR"),
            (!assignments.is_empty(), "INSERT SET"),
            (
                partitioned.is_some() || !after_columns.is_empty(),
                "PARTITION",
            ),
            (priority.is_some(), "a priority"),
            (insert_alias.is_some(), "an alias of the new row"),
            (!optimizer_hints.is_empty(), "a hint"),
            (
                *has_table_keyword
                    || settings.is_some()
                    || format_clause.is_some()
                    || multi_table_insert_type.is_some()
                    || !multi_table_into_clauses.is_empty()
                    || !multi_table_when_clauses.is_empty()
                    || multi_table_else_clause.is_some(),
                "another database's form of INSERT",
            ),
        ])?;
        let TableObject::TableName(name) = table else {
            return Err("it inserts into what is no table".to_owned());
        };
        let name = self.name_of(name)?;
        self.grant("insert", &self.grants.insert, &name)?;
        let assignments: &[Assignment] = match on {
            None => &[],
            Some(OnInsert::DuplicateKeyUpdate(assignments)) => assignments,
            Some(OnInsert::OnConflict(conflict)) => match &conflict.action {
                OnConflictAction::DoNothing => &[],
                OnConflictAction::DoUpdate(update) => &update.assignments,
            },
            Some(_) => return Err("that way to meet a conflict is unknown".to_owned()),
        };
        if !assignments.is_empty() {
            self.grant("update", &self.grants.update, &name)?;
        }
        self.targets.push(name);
        assigned(assignments)
    }

    fn begin_update(&mut self, update: &Update) -> Result<(), String> {
        let Update {
            update_token: _,
            optimizer_hints,
            table,
            assignments,
            from,
            selection: _,
            returning,
            output,
            or,
            order_by: _,
            limit: _,
        } = update;
        deny_any(&[
            (returning.is_some() || output.is_some(), "RETURNING"),
            (or.is_some(), "OR"),
            (!optimizer_hints.is_empty(), "a hint"),
            (
                matches!(from, Some(UpdateTableFromKind::BeforeSet(_))),
                "FROM before SET",
            ),
        ])?;
        let name = self.single(table)?;
        self.grant("update", &self.grants.update, &name)?;
        self.targets.push(name);
        assigned(assignments)
    }

    fn begin_delete(&mut self, delete: &Delete) -> Result<(), String> {
        let Delete {
            delete_token: _,
            optimizer_hints,
            tables,
            from,
            using: _,
            selection: _,
            returning,
            output,
            order_by: _,
            limit: _,
        } = delete;
        deny_any(&[
            (returning.is_some() || output.is_some(), "RETURNING"),
            (!tables.is_empty(), "DELETE of several tables"),
            (!optimizer_hints.is_empty(), "a hint"),
        ])?;
        let FromTable::WithFromKeyword(from) = from else {
            return Err("DELETE without FROM is not taken".to_owned());
        };
        let [table] = &from[..] else {
            return Err("DELETE of several tables is not taken".to_owned());
        };
        let name = self.single(table)?;
        self.grant("delete", &self.grants.delete, &name)?;
        self.targets.push(name);
        Ok(())
    }

    /// The one table that is changed.
    fn single(&self, table: &TableWithJoins) -> Result<String, String> {
        match &table.relation {
            TableFactor::Table { name, .. } if table.joins.is_empty() => self.name_of(name),
            _ => Err("it must change one table: use a subquery in place of a join".to_owned()),
        }
    }

    /// A table's name, as grants have it: PostgreSQL takes what is not quoted in lower case.
    fn name_of(&self, name: &ObjectName) -> Result<String, String> {
        let part = |ident: &Ident| match (self.server, ident.quote_style) {
            (Server::Postgres, None) => ident.value.to_lowercase(),
            _ => ident.value.clone(),
        };
        let parts: Option<Vec<_>> = name.0.iter().map(|at| at.as_ident().map(part)).collect();
        match parts {
            Some(parts) if parts.len() <= 2 => Ok(parts.join(".")),
            _ => Err(format!("`{name}` is no name of a table")),
        }
    }

    fn grant(&self, kind: &str, granted: &[String], table: &str) -> Result<(), String> {
        if granted.iter().any(|granted| granted == table) {
            return Ok(());
        }
        Err(format!(
            "the operator has not granted to {kind} `{table}`: it takes `{kind} = [\"{table}\"]` \
             under the plugin's `sql`"
        ))
    }

    fn inspect_query(&self, query: &Query) -> Result<(), String> {
        let Query {
            with,
            body,
            order_by: _,
            limit_clause: _,
            fetch: _,
            locks,
            for_clause,
            settings,
            format_clause,
            pipe_operators,
        } = query;
        deny_any(&[
            (with.is_some(), "WITH"),
            (!locks.is_empty(), "FOR UPDATE or the like"),
            (
                for_clause.is_some()
                    || settings.is_some()
                    || format_clause.is_some()
                    || !pipe_operators.is_empty(),
                "another database's form of SELECT",
            ),
        ])?;
        inspect_body(body)
    }

    fn inspect_function(&self, function: &Function) -> Result<(), String> {
        let name = match &function.name.0[..] {
            [part] => part.as_ident().map(|ident| ident.value.to_lowercase()),
            _ => None,
        };
        let Some(name) = name else {
            let name = &function.name;
            return Err(format!("the function `{name}` must have a single name"));
        };
        let is_granted = self.grants.functions.contains(&name);
        if !is_granted && !is_harmless(&name) {
            return Err(format!(
                "the function `{name}` is not known to change nothing: if it does not, it takes \
                 `functions = [\"{name}\"]` under the plugin's `sql`"
            ));
        }
        let plain = matches!(function.parameters, FunctionArguments::None);
        deny_any(&[(!plain || function.uses_odbc_syntax, "that form of a call")])
    }
}

/// Columns, not parts of them.
fn assigned(assignments: &[Assignment]) -> Result<(), String> {
    let is_column =
        |assignment: &Assignment| matches!(assignment.target, AssignmentTarget::ColumnName(_));
    match assignments.iter().all(is_column) {
        true => Ok(()),
        false => Err("an assignment of several columns at once is not taken".to_owned()),
    }
}

fn inspect_body(body: &SetExpr) -> Result<(), String> {
    match body {
        SetExpr::Select(_) | SetExpr::Query(_) | SetExpr::Values(_) => Ok(()),
        SetExpr::SetOperation { left, right, .. } => {
            inspect_body(left)?;
            inspect_body(right)
        }
        _ => Err("a query is made of SELECT and VALUES".to_owned()),
    }
}

fn inspect_select(select: &Select) -> Result<(), String> {
    let Select {
        select_token: _,
        optimizer_hints,
        distinct: _,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection: _,
        exclude,
        into,
        from: _,
        lateral_views,
        prewhere,
        selection: _,
        connect_by,
        group_by: _,
        cluster_by,
        distribute_by,
        sort_by,
        having: _,
        named_window: _,
        qualify,
        window_before_qualify: _,
        value_table_mode,
        flavor: _,
    } = select;
    deny_any(&[
        (into.is_some(), "SELECT INTO"),
        (!optimizer_hints.is_empty(), "a hint"),
        (
            select_modifiers.is_some()
                || top.is_some()
                || exclude.is_some()
                || !lateral_views.is_empty()
                || prewhere.is_some()
                || !connect_by.is_empty()
                || !cluster_by.is_empty()
                || !distribute_by.is_empty()
                || !sort_by.is_empty()
                || qualify.is_some()
                || value_table_mode.is_some(),
            "another database's form of SELECT",
        ),
    ])
}

fn inspect_table(table: &TableFactor) -> Result<(), String> {
    match table {
        TableFactor::Table {
            name: _,
            alias: _,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => deny_any(&[(
            args.is_some()
                || !with_hints.is_empty()
                || version.is_some()
                || *with_ordinality
                || !partitions.is_empty()
                || json_path.is_some()
                || sample.is_some()
                || !index_hints.is_empty(),
            "anything but a name and an alias for a table",
        )]),
        TableFactor::Derived { sample: None, .. } | TableFactor::NestedJoin { .. } => Ok(()),
        _ => Err("rows come from tables and subqueries only".to_owned()),
    }
}

/// Whether an expression is of a kind that only computes.
fn is_plain(expr: &Expr) -> bool {
    matches!(
        expr,
        Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::IsFalse(_)
            | Expr::IsNotFalse(_)
            | Expr::IsTrue(_)
            | Expr::IsNotTrue(_)
            | Expr::IsNull(_)
            | Expr::IsNotNull(_)
            | Expr::IsUnknown(_)
            | Expr::IsNotUnknown(_)
            | Expr::IsDistinctFrom(..)
            | Expr::IsNotDistinctFrom(..)
            | Expr::InList { .. }
            | Expr::InSubquery { .. }
            | Expr::Between { .. }
            | Expr::BinaryOp { .. }
            | Expr::UnaryOp {
                op: UnaryOperator::Plus | UnaryOperator::Minus | UnaryOperator::Not,
                ..
            }
            | Expr::Like { .. }
            | Expr::ILike { .. }
            | Expr::AnyOp { .. }
            | Expr::AllOp { .. }
            | Expr::Cast { .. }
            | Expr::AtTimeZone { .. }
            | Expr::Extract { .. }
            | Expr::Ceil { .. }
            | Expr::Floor { .. }
            | Expr::Position { .. }
            | Expr::Substring { .. }
            | Expr::Trim { .. }
            | Expr::Nested(_)
            | Expr::Value(_)
            | Expr::TypedString(_)
            | Expr::Function(_)
            | Expr::Case { .. }
            | Expr::Exists { .. }
            | Expr::Subquery(_)
            | Expr::Tuple(_)
            | Expr::Array(_)
            | Expr::Interval(_)
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..)
    )
}

/// A letter or `_`, then letters, digits and `_`. Anything else is only there to confuse.
fn is_name(ident: &Ident) -> bool {
    let quotes = matches!(ident.quote_style, None | Some('"' | '`'));
    let mut chars = ident.value.chars();
    let first = chars.next().is_some_and(|c| c.is_alphabetic() || c == '_');
    quotes && first && chars.all(|c| c.is_alphanumeric() || c == '_')
}

fn flow(inspected: Result<(), String>) -> Flow {
    match inspected {
        Ok(()) => ControlFlow::Continue(()),
        Err(reason) => deny(reason),
    }
}

impl Visitor for Inspection<'_> {
    type Break = String;

    fn pre_visit_statement(&mut self, _: &Statement) -> Flow {
        self.statements += 1;
        match self.statements {
            1 => ControlFlow::Continue(()),
            _ => deny("a statement within another is not taken"),
        }
    }

    fn pre_visit_query(&mut self, query: &Query) -> Flow {
        flow(self.inspect_query(query))
    }

    fn pre_visit_select(&mut self, select: &Select) -> Flow {
        flow(inspect_select(select))
    }

    fn pre_visit_table_factor(&mut self, table: &TableFactor) -> Flow {
        flow(inspect_table(table))
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> Flow {
        let name = match self.name_of(relation) {
            Ok(name) => name,
            Err(reason) => return deny(reason),
        };
        // The table that is changed is met once as such; what else names it reads it.
        match self.targets.iter().position(|target| *target == name) {
            Some(at) => {
                self.targets.remove(at);
                ControlFlow::Continue(())
            }
            None => flow(self.grant("select", &self.grants.select, &name)),
        }
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> Flow {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return deny("it is nested too deeply");
        }
        match expr {
            Expr::BinaryOp {
                op: BinaryOperator::Custom(_) | BinaryOperator::PGCustomBinaryOperator(_),
                ..
            } => deny(format!("`{expr}` has an operator that is not taken")),
            Expr::Function(function) => flow(self.inspect_function(function)),
            _ if is_plain(expr) => ControlFlow::Continue(()),
            _ => deny(format!("`{expr}` is of a form that is not taken")),
        }
    }

    fn post_visit_expr(&mut self, _: &Expr) -> Flow {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_value(&mut self, value: &ValueWithSpan) -> Flow {
        match &value.value {
            Value::Number(..) | Value::SingleQuotedString(_) | Value::Boolean(_) | Value::Null => {
                ControlFlow::Continue(())
            }
            Value::Placeholder(name) if placeholders::is_numbered(name, self.server) => {
                ControlFlow::Continue(())
            }
            other => deny(format!(
                "`{other}` is of a form that is not taken: give it as a parameter"
            )),
        }
    }

    fn pre_visit_ident(&mut self, ident: &Ident) -> Flow {
        if is_name(ident) {
            return ControlFlow::Continue(());
        }
        deny(format!(
            "the name `{ident}` has other signs than letters, digits and `_`"
        ))
    }
}

#[cfg(test)]
mod tests;
