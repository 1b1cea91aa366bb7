//! What a statement changes, and whether that was granted.

use sqlparser::ast::{
    Assignment, AssignmentTarget, Delete, FromTable, Insert, OnConflictAction, OnInsert, Statement,
    TableFactor, TableObject, TableWithJoins, Update, UpdateTableFromKind,
};

use super::Kind;
use super::inspection::{Inspection, deny_any};

impl Inspection<'_> {
    /// Notes what the statement changes, if that was granted. Each part of a statement is named,
    /// so that a parser that knows more of them must be looked at.
    pub(super) fn begin(&mut self, statement: &Statement) -> Result<Kind, String> {
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
