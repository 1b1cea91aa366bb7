//! A look at every part of a statement: an allow-list of what only reads, computes, and changes the
//! one table that was granted.

use std::ops::ControlFlow;

use semel_core::SqlGrants;
use sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArguments, Ident, ObjectName, Query, Select, SetExpr,
    Statement, TableFactor, UnaryOperator, Value, ValueWithSpan, Visitor,
};

use super::super::super::address::Kind as Server;
use super::super::functions::is_harmless;
use super::super::placeholders;

/// How deeply expressions may be nested.
const MAX_DEPTH: usize = 200;

/// Where the look is.
pub(super) struct Inspection<'g> {
    pub(super) grants: &'g SqlGrants,
    server: Server,
    /// The tables that are changed, until they are met.
    pub(super) targets: Vec<String>,
    statements: usize,
    depth: usize,
}

type Flow = ControlFlow<String>;

fn deny(reason: impl Into<String>) -> Flow {
    ControlFlow::Break(reason.into())
}

/// Denies what is there and must not be.
pub(super) fn deny_any(parts: &[(bool, &str)]) -> Result<(), String> {
    match parts.iter().find(|(is_there, _)| *is_there) {
        Some((_, part)) => Err(format!("{part} is not taken")),
        None => Ok(()),
    }
}

impl<'g> Inspection<'g> {
    pub(super) fn new(server: Server, grants: &'g SqlGrants) -> Self {
        Self {
            grants,
            server,
            targets: Vec::new(),
            statements: 0,
            depth: 0,
        }
    }

    /// A table's name, as grants have it: PostgreSQL takes what is not quoted in lower case.
    pub(super) fn name_of(&self, name: &ObjectName) -> Result<String, String> {
        let part = |ident: &Ident| match (self.server, ident.quote_style) {
            (Server::Postgres, None) => ident.value.to_lowercase(),
            _ => ident.value.clone(),
        };
        let parts: Option<Vec<_>> = name.0.iter().map(|at| at.as_ident().map(part)).collect();
        match parts {
            Some(parts) if parts.len() <= 2 && !parts.iter().any(|part| part.contains('.')) => {
                Ok(parts.join("."))
            }
            _ => Err(format!("`{name}` is no name of a table")),
        }
    }

    pub(super) fn grant(&self, kind: &str, granted: &[String], table: &str) -> Result<(), String> {
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
