//! Tables of the user's that plugins change. The server must keep those changes together with what
//! the store writes beside them, and take them back together, or a message would take effect
//! twice, or not at all.

use std::sync::{Arc, PoisonError};

use semel_core::{AfterMiss, Miss, StoreError};

use super::{Conversation, Failure, Server};
use crate::sql::answer::{Cells, Set, take};
use crate::sql::text::Words;

/// Whether a table can be changed in the store's transactions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) enum Target {
    /// It can.
    Fit,
    /// It must not, for this reason.
    Unfit(String),
    /// There is none.
    Absent(String),
}

impl Target {
    fn question(words: &Words, table: &str) -> String {
        let (schema, name) = match table.split_once('.') {
            Some((schema, name)) => (Some(words.bytes(schema.as_bytes())), name),
            None => (None, table),
        };
        (words.target)(schema.as_deref(), &words.bytes(name.as_bytes()))
    }

    fn read(words: &Words, table: &str, sets: &mut [Set]) -> Result<Self, StoreError> {
        let parts = take(sets, 0);
        if parts.is_empty() {
            return Ok(Self::Absent(format!(
                "there is no table `{table}`, or this user may not see it"
            )));
        }
        for mut part in parts {
            let doubt = Cells::text(&mut part)?;
            if !doubt.is_empty() {
                let advice = words.target_advice;
                return Ok(Self::Unfit(format!(
                    "`{table}` can't be changed together with the store: {doubt}: {advice}"
                )));
            }
        }
        Ok(Self::Fit)
    }
}

impl Server {
    /// Looks at a table as it is now.
    pub(in super::super) async fn survey(&self, table: &str) -> Result<Target, StoreError> {
        let mut sets = self.ask_text(Target::question(self.words, table)).await?;
        Target::read(self.words, table, &mut sets)
    }
}

impl Conversation<'_> {
    /// Why a table must not be changed. One that was found fit is not looked at again.
    pub(super) async fn objection(&mut self, table: &Arc<str>) -> Result<Option<Miss>, Failure> {
        let server = self.server;
        let known = || server.fit.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(table) {
            return Ok(None);
        }
        let asked = self.send(Target::question(server.words, table)).await;
        let target = match asked {
            Ok(mut sets) => Target::read(server.words, table, &mut sets)?,
            Err(error) => return Ok(Some(self.miss(error, AfterMiss::Retry)?)),
        };
        Ok(match target {
            Target::Fit => {
                known().insert(Arc::clone(table));
                None
            }
            Target::Unfit(reason) | Target::Absent(reason) => Some(Miss {
                reason,
                then: AfterMiss::Retry,
            }),
        })
    }
}
