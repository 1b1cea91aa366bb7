//! `${NAME}` in string values stands for an environment variable, so that secrets stay out
//! of the file. `$${` is a plain `${`.

use std::borrow::Cow;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::Fault;

type Environment<'e> = &'e dyn Fn(&str) -> Option<String>;

/// Parses a document and replaces every variable in it. Values keep their place in `text`,
/// so that later errors point at what the operator wrote.
pub fn resolve<'t>(
    text: &'t str,
    environment: Environment<'_>,
) -> Result<Spanned<DeTable<'t>>, Fault> {
    let document = DeTable::parse(text)?;
    let span = document.span();
    Ok(Spanned::new(
        span,
        table(document.into_inner(), environment)?,
    ))
}

fn table<'t>(table: DeTable<'t>, environment: Environment<'_>) -> Result<DeTable<'t>, Fault> {
    table
        .into_iter()
        .map(|(key, entry)| Ok((key, value(entry, environment)?)))
        .collect()
}

fn value<'t>(
    entry: Spanned<DeValue<'t>>,
    environment: Environment<'_>,
) -> Result<Spanned<DeValue<'t>>, Fault> {
    let span = entry.span();
    let resolved = match entry.into_inner() {
        DeValue::String(text) => match substitute(&text, environment) {
            Ok(None) => DeValue::String(text),
            Ok(Some(resolved)) => DeValue::String(Cow::Owned(resolved)),
            Err(message) => {
                return Err(Fault {
                    message,
                    span: Some(span),
                });
            }
        },
        DeValue::Array(items) => DeValue::Array(
            items
                .into_iter()
                .map(|item| value(item, environment))
                .collect::<Result<_, _>>()?,
        ),
        DeValue::Table(entries) => DeValue::Table(table(entries, environment)?),
        other => other,
    };
    Ok(Spanned::new(span, resolved))
}

/// None where there is nothing to replace.
fn substitute(text: &str, environment: Environment<'_>) -> Result<Option<String>, String> {
    if !text.contains("${") {
        return Ok(None);
    }
    let mut resolved = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            resolved.push_str(before);
            resolved.push_str("${");
            rest = after;
            continue;
        }
        let Some(end) = after.find('}') else {
            return Err("`${` without `}`: write `$${` for a plain `${`".to_owned());
        };
        let name = &after[..end];
        let value = environment(name)
            .ok_or_else(|| format!("the environment variable `{name}` is not set"))?;
        resolved.push_str(before);
        resolved.push_str(&value);
        rest = &after[end + 1..];
    }
    resolved.push_str(rest);
    Ok(Some(resolved))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn substituted(text: &str) -> Result<Option<String>, String> {
        substitute(text, &|name| {
            (name == "SECRET").then(|| "s3cret".to_owned())
        })
    }

    #[test]
    fn variables_are_replaced_wherever_they_stand() {
        let whole = substituted("redis://:${SECRET}@h/${SECRET}").unwrap();
        assert_eq!(whole.unwrap(), "redis://:s3cret@h/s3cret");
        assert_eq!(substituted("plain $ text").unwrap(), None);
    }

    #[test]
    fn two_dollars_escape() {
        assert_eq!(
            substituted("$${SECRET} ${SECRET}").unwrap().unwrap(),
            "${SECRET} s3cret"
        );
    }

    #[test]
    fn what_is_missing_or_open_is_an_error() {
        let unset = substituted("${OTHER}").unwrap_err();
        assert!(unset.contains("`OTHER` is not set"), "{unset}");
        assert!(substituted("${SECRET").is_err());
    }
}
