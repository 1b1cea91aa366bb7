//! SQL text.
//!
//! Statements are sent as text, several in one round trip: a batch then costs two of them,
//! however many tables it touches, and no statement is prepared anew for each number of rows.
//! Only numbers, hexadecimal digits and names that were checked are ever put into the text, so
//! there is nothing to escape.

use std::fmt::Write;

/// How one kind of server says things.
#[derive(Clone, Copy, Debug)]
pub(super) struct Words {
    /// What servers of the kind are called.
    pub(super) server: &'static str,
    /// What stands before the digits of bytes; a quote stands after them.
    pub(super) bytes: &'static str,
    /// The server's time in milliseconds since 1970-01-01 UTC.
    pub(super) now_ms: &'static str,
    /// Begins a transaction.
    pub(super) begin: &'static str,
    /// Begins and ends the part of a transaction that is one run's.
    pub(super) begin_run: &'static str,
    pub(super) end_run: &'static str,
    /// Whether an insert that meets its key is told by `ON CONFLICT`.
    pub(super) on_conflict: bool,
    /// The statements of each step of the schema; `{p}` stands for the prefix.
    pub(super) steps: &'static [&'static [&'static str]],
    /// Asks what speaks against changing a table of the user's beside the store's: a row for each
    /// of its parts, which is empty if nothing does. Names are literals; without a schema, a
    /// table is where statements find it.
    pub(super) target: fn(schema: Option<&str>, table: &str) -> String,
    /// What to do about a table of which something does.
    pub(super) target_advice: &'static str,
    /// A statement that deletes rows of which a condition is true, at most so many.
    pub(super) delete_some: fn(table: &str, condition: &str, limit: usize) -> String,
}

impl Words {
    /// Bytes as a literal.
    pub(super) fn bytes(&self, bytes: &[u8]) -> String {
        let mut text = String::with_capacity(2 * bytes.len() + 4);
        self.push_bytes(&mut text, bytes);
        text
    }

    fn push_bytes(&self, text: &mut String, bytes: &[u8]) {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        text.push_str(self.bytes);
        for byte in bytes {
            text.push(DIGITS[usize::from(byte >> 4)].into());
            text.push(DIGITS[usize::from(byte & 15)].into());
        }
        text.push('\'');
    }

    /// A list of literals, in parentheses.
    pub(super) fn list<'a>(&self, items: impl IntoIterator<Item = &'a [u8]>) -> String {
        let mut text = String::from("(");
        for item in items {
            if text.len() > 1 {
                text.push(',');
            }
            self.push_bytes(&mut text, item);
        }
        text.push(')');
        text
    }

    /// A condition: the id is one of these. Ids are one column, so that any server finds them by
    /// its primary key, also before it knows how many rows there are.
    pub(super) fn id_in<T: AsRef<[u8]>>(&self, ids: impl IntoIterator<Item = T>) -> String {
        let mut ids: Vec<T> = ids.into_iter().collect();
        ids.sort_unstable_by(|a, b| a.as_ref().cmp(b.as_ref()));
        if ids.is_empty() {
            return "1 = 0".to_owned();
        }
        format!("id IN {}", self.list(ids.iter().map(AsRef::as_ref)))
    }

    /// The end of an insert that replaces these columns where the key is there.
    pub(super) fn or_update(&self, key: &str, columns: &[&str]) -> String {
        let mut text = match self.on_conflict {
            true => format!(" ON CONFLICT ({key}) DO UPDATE SET "),
            false => " ON DUPLICATE KEY UPDATE ".to_owned(),
        };
        for (at, column) in columns.iter().enumerate() {
            let comma = if at == 0 { "" } else { ", " };
            let _ = match self.on_conflict {
                true => write!(text, "{comma}{column} = EXCLUDED.{column}"),
                false => write!(text, "{comma}{column} = VALUES({column})"),
            };
        }
        text
    }

    /// The end of an insert that leaves what is there. Not `INSERT IGNORE`, which would also
    /// hide a value that was cut off.
    pub(super) fn or_leave(&self, key: &str) -> String {
        match self.on_conflict {
            true => format!(" ON CONFLICT ({key}) DO NOTHING"),
            false => {
                let column = key.split(',').next().unwrap_or(key);
                format!(" ON DUPLICATE KEY UPDATE {column} = {column}")
            }
        }
    }
}

/// Statements for one or more round trips.
#[derive(Debug)]
pub(super) struct Script {
    words: &'static Words,
    parts: Vec<String>,
    statements: usize,
    /// The length at which another part begins.
    limit: usize,
}

impl Script {
    pub(super) fn new(words: &'static Words, limit: usize) -> Self {
        Self {
            words,
            parts: vec![String::new()],
            statements: 0,
            limit,
        }
    }

    /// Adds a statement. Returns which set of the answer is its.
    pub(super) fn add(&mut self, statement: &str) -> usize {
        let last = self.parts.last().map_or(0, String::len);
        if last > 0 && last + statement.len() > self.limit {
            self.parts.push(String::new());
        }
        if let Some(part) = self.parts.last_mut() {
            part.push_str(statement);
            part.push(';');
        }
        self.statements += 1;
        self.statements - 1
    }

    /// Adds inserts of rows, unless there are none. `tail` follows the rows.
    pub(super) fn insert<T>(
        &mut self,
        head: &str,
        tail: &str,
        rows: impl IntoIterator<Item = T>,
        mut write: impl FnMut(&mut Row, T),
    ) {
        let mut text = String::new();
        for row in rows {
            let mut values = Row {
                words: self.words,
                text: String::new(),
            };
            write(&mut values, row);
            // Rows that a server takes one by one must not be too long for it together.
            if !text.is_empty() && text.len() + values.text.len() + tail.len() > self.limit {
                text.push_str(tail);
                self.add(&text);
                text.clear();
            }
            text.push_str(if text.is_empty() { head } else { "," });
            text.push_str(&values.text);
            text.push(')');
        }
        if !text.is_empty() {
            text.push_str(tail);
            self.add(&text);
        }
    }

    pub(super) fn into_parts(self) -> Vec<String> {
        self.parts
    }
}

/// The values of a row.
pub(super) struct Row {
    words: &'static Words,
    text: String,
}

impl Row {
    fn next(&mut self) {
        self.text.push(if self.text.is_empty() { '(' } else { ',' });
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.next();
        self.words.push_bytes(&mut self.text, bytes);
        self
    }

    pub(super) fn number(&mut self, number: u64) -> &mut Self {
        self.next();
        let _ = write!(self.text, "{}", signed(number));
        self
    }

    pub(super) fn bytes_or_null(&mut self, bytes: Option<&[u8]>) -> &mut Self {
        match bytes {
            Some(bytes) => self.bytes(bytes),
            None => self.null(),
        }
    }

    pub(super) fn number_or_null(&mut self, number: Option<u64>) -> &mut Self {
        match number {
            Some(number) => self.number(number),
            None => self.null(),
        }
    }

    fn null(&mut self) -> &mut Self {
        self.next();
        self.text.push_str("NULL");
        self
    }
}

/// A number as columns hold it: larger ones mean "never".
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A limit as servers take it.
pub(super) fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::mysql::WORDS;
    use super::*;

    #[test]
    fn a_script_has_parts_of_bounded_length() {
        let mut script = Script::new(&WORDS, 60);
        assert_eq!(script.add("BEGIN"), 0);
        let rows = [1_u64, 2, 3];
        script.insert("INSERT INTO t VALUES ", "", rows, |row, number| {
            row.number(number).bytes(&[7; 12]).bytes_or_null(None);
        });
        assert_eq!(script.add("COMMIT"), 4);
        let parts = script.into_parts();
        assert_eq!(parts.len(), 5, "{parts:?}");
        let row = "INSERT INTO t VALUES (2,x'070707070707070707070707',NULL);";
        assert_eq!(parts[2], row);
        assert_eq!(parts[4], "COMMIT;");
    }

    #[test]
    fn numbers_that_are_too_large_mean_never() {
        assert_eq!(signed(7), 7);
        assert_eq!(signed(u64::MAX), i64::MAX);
        assert_eq!(limit(usize::MAX), i64::MAX);
    }
}
