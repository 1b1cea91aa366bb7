//! The syntax of key expressions, as the host reads them.

/// What is wrong with an expression, if anything.
pub(crate) fn check(expression: &str) -> Result<(), String> {
    expression
        .split(" + ")
        .map(str::trim)
        .try_for_each(check_term)
}

/// The same for an expression that is to find one text, as it stands in the message.
pub(crate) fn check_single(expression: &str) -> Result<(), String> {
    match expression.contains(" + ") {
        true => Err(format!(
            "`{expression}` has several terms, which make no number: give the one where it stands"
        )),
        false => check(expression),
    }
}

fn check_term(term: &str) -> Result<(), String> {
    // To the host a `+` without spaces is part of a name.
    let joined = ["id", "keys", "header:", "json:"]
        .iter()
        .any(|kind| term.contains(&format!("+{kind}")));
    if joined {
        return Err(format!("write spaces around the `+` in `{term}`"));
    }
    match term.split_once(':') {
        None if term == "id" || term == "keys" => Ok(()),
        Some(("header", "")) => Err("`header:` lacks the header's name".into()),
        Some(("header", _)) => Ok(()),
        Some(("json", pointer)) => check_pointer(pointer),
        _ if term.is_empty() => Err("a term of the key expression is empty".into()),
        _ => Err(format!(
            "`{term}` is no key expression: use `id`, `keys`, `header:NAME` or `json:/pointer`, \
             several joined by ` + `"
        )),
    }
}

fn check_pointer(pointer: &str) -> Result<(), String> {
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(format!(
            "a JSON pointer begins with `/`: write `json:/{pointer}`"
        ));
    }
    let stray = pointer
        .split('~')
        .skip(1)
        .any(|rest| !rest.starts_with(['0', '1']));
    match stray {
        true => Err(format!(
            "in the JSON pointer `{pointer}` write `~0` for `~` and `~1` for `/`"
        )),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::check;

    #[test]
    fn the_grammar_is_the_hosts() {
        for good in [
            "id",
            "keys",
            "header:trace id",
            "json:",
            "json:/a/0/b~1c~0d",
            "header:tenant + json:/order/id",
            "id + keys + json:/a+b",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (bad, why) in [
            ("", "empty"),
            ("order_id", "no key expression"),
            ("xml:/a", "no key expression"),
            ("header:", "lacks the header's name"),
            ("json:order_id", "write `json:/order_id`"),
            ("json:/a~2", "`~0` for `~`"),
            ("json:/a~", "`~0` for `~`"),
            ("id + ", "empty"),
            ("json:/a+json:/b", "spaces around the `+`"),
        ] {
            let error = check(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }
}
