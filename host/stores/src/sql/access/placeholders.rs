//! Where parameters stand in a statement.

use std::iter::Peekable;
use std::str::Chars;

use super::super::address::Kind;

/// Writes each placeholder with its number, in the form that the dialect's parser knows; that is
/// how the statement is read and written from there on. The text has neither comments nor
/// backslashes after that, so that quotes are where they seem.
pub(super) fn number(text: &str, kind: Kind) -> Result<String, String> {
    let mut numbered = String::with_capacity(text.len() + 8);
    let mut quotes = Quotes::default();
    let (mut in_order, mut by_number) = (0, false);
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        if char == '\\' || char == '\0' {
            return Err("it has a backslash or a NUL: give such text as a parameter".to_owned());
        }
        if quotes.pass(char) {
            numbered.push(char);
            continue;
        }
        match (char, rest.peek()) {
            ('-', Some('-')) | ('/', Some('*')) | ('#', _) => {
                return Err("it has a comment: leave it out".to_owned());
            }
            ('?', _) => {
                in_order += 1;
                numbered.push(sign(kind));
                numbered.push_str(&in_order.to_string());
            }
            ('$', _) => {
                by_number = true;
                numbered.push(sign(kind));
                numbered.push_str(&digits(&mut rest)?);
            }
            _ => numbered.push(char),
        }
    }
    if in_order > 0 && by_number {
        return Err("it has parameters of both forms: write `?` or `$1`".to_owned());
    }
    Ok(numbered)
}

/// A numbered statement as a server takes it, and which parameter stands at each placeholder.
pub(super) fn arrange(text: &str, kind: Kind) -> Result<(String, Vec<usize>), String> {
    let mut arranged = String::with_capacity(text.len());
    let mut order = Vec::new();
    let mut quotes = Quotes::default();
    let mut rest = text.chars().peekable();
    while let Some(char) = rest.next() {
        arranged.push(char);
        if quotes.pass(char) || char != sign(kind) {
            continue;
        }
        let digits = digits(&mut rest)?;
        let number: usize = digits.parse().map_err(|_| NO_NUMBER)?;
        order.push(number - 1);
        if kind == Kind::Postgres {
            arranged.push_str(&digits);
        }
    }
    Ok((arranged, order))
}

/// Whether a parser's placeholder is one that was numbered here.
pub(super) fn is_numbered(name: &str, kind: Kind) -> bool {
    let number = name.strip_prefix(sign(kind));
    number.is_some_and(|number| number.starts_with(|first: char| first.is_ascii_digit()))
}

const NO_NUMBER: &str = "a parameter is `$1` to `$999`";

fn sign(kind: Kind) -> char {
    match kind {
        Kind::Mysql => '?',
        Kind::Postgres => '$',
    }
}

/// The number that stands next.
fn digits(rest: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut digits = String::new();
    while let Some(digit) = rest.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    match digits.parse() {
        Ok(1..=999) => Ok(digits),
        _ => Err(NO_NUMBER.to_owned()),
    }
}

/// Whether a character stands in quotes. Doubled quotes close and open, which comes to the same.
#[derive(Default)]
struct Quotes(Option<char>);

impl Quotes {
    /// Whether this next character is quoted, or a quote.
    fn pass(&mut self, char: char) -> bool {
        match self.0 {
            Some(quote) if quote == char => self.0 = None,
            Some(_) => {}
            None if matches!(char, '\'' | '"' | '`') => self.0 = Some(char),
            None => return false,
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_outside_of_quotes() {
        let text = "UPDATE t SET a = ?, b = 'why? it''s' WHERE c = ?";
        let numbered = number(text, Kind::Postgres).unwrap();
        assert_eq!(
            numbered,
            "UPDATE t SET a = $1, b = 'why? it''s' WHERE c = $2"
        );
        let numbered = number("a = $2 OR b = '$1'", Kind::Mysql).unwrap();
        assert_eq!(numbered, "a = ?2 OR b = '$1'");
        for (text, says) in [
            ("a = ? AND b = $1", "both forms"),
            ("a = $0", "`$1` to"),
            ("a = $x", "`$1` to"),
            ("a -- b", "comment"),
            ("a /*! b */", "comment"),
            ("a # b", "comment"),
            ("'\\'", "backslash"),
        ] {
            assert!(
                number(text, Kind::Mysql).unwrap_err().contains(says),
                "{text}"
            );
        }
    }

    #[test]
    fn each_server_gets_its_own_form() {
        let text = "SELECT '?9' WHERE a = ?2 OR b = ?1 OR c = ?2";
        let (mysql, order) = arrange(text, Kind::Mysql).unwrap();
        assert_eq!(mysql, "SELECT '?9' WHERE a = ? OR b = ? OR c = ?");
        assert_eq!(order, [1, 0, 1]);
        let text = "SELECT '$9' WHERE a = $2 OR b = $1 OR c = $2";
        let (postgres, order) = arrange(text, Kind::Postgres).unwrap();
        assert_eq!((postgres.as_str(), &order[..]), (text, &[1, 0, 1][..]));
    }
}
