//! The attribute's arguments, checked, and the manifest they make.

use proc_macro2::Span;
use serde_json::{Map, Value};
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Expr, ExprArray, ExprLit, Ident, Lit, LitStr, MetaNameValue, Token};

use crate::key;

/// What stands between the attribute's parentheses. All of it is optional.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    name: Option<String>,
    topics: Option<Vec<String>>,
    key: Option<String>,
    order_by: Option<String>,
    version: Option<String>,
    entity: Option<String>,
    gap: Option<String>,
    gap_timeout: Option<String>,
    first_version: Option<u64>,
    retention: Option<String>,
}

impl Arguments {
    /// The manifest as JSON. `package` is the name of the crate, `version` its version.
    pub(crate) fn manifest(&self, package: &str, version: &str) -> Result<String, String> {
        let name = self.name.as_deref().unwrap_or(package);
        check_name(name)?;
        let texts = [
            ("semel", Some("0.1")),
            ("name", Some(name)),
            ("plugin-version", Some(version)),
            ("key", self.key.as_deref()),
            ("order-by", self.order_by.as_deref()),
            ("version", self.version.as_deref()),
            ("entity", self.entity.as_deref()),
            ("gap", self.gap.as_deref()),
            ("gap-timeout", self.gap_timeout.as_deref()),
            ("retention", self.retention.as_deref()),
        ];
        let mut manifest: Map<String, Value> = texts
            .into_iter()
            .filter_map(|(field, text)| Some((field.to_owned(), text?.into())))
            .collect();
        if let Some(first) = self.first_version {
            manifest.insert("first-version".to_owned(), first.into());
        }
        if let Some(topics) = &self.topics {
            manifest.insert("topics".to_owned(), topics.clone().into());
        }
        Ok(Value::Object(manifest).to_string())
    }

    /// Takes over one argument.
    fn set(&mut self, argument: &MetaNameValue) -> syn::Result<()> {
        let name = argument
            .path
            .get_ident()
            .map(Ident::to_string)
            .unwrap_or_default();
        match name.as_str() {
            "topics" => {
                let topics = strings(&argument.value)?;
                once(&mut self.topics, topics, argument)
            }
            "name" => once(
                &mut self.name,
                text(argument, "points", check_name)?,
                argument,
            ),
            "key" => once(
                &mut self.key,
                text(argument, "json:/id", key::check)?,
                argument,
            ),
            "order_by" => once(
                &mut self.order_by,
                text(argument, "json:/user", key::check)?,
                argument,
            ),
            "version" => once(
                &mut self.version,
                text(argument, "json:/version", key::check_single)?,
                argument,
            ),
            "entity" => once(
                &mut self.entity,
                text(argument, "json:/account_id", key::check)?,
                argument,
            ),
            "gap" => once(&mut self.gap, text(argument, "wait", check_gap)?, argument),
            "gap_timeout" => once(
                &mut self.gap_timeout,
                text(argument, "30s", check_duration)?,
                argument,
            ),
            "first_version" => once(&mut self.first_version, number(argument)?, argument),
            "retention" => once(
                &mut self.retention,
                text(argument, "7d", check_duration)?,
                argument,
            ),
            _ => Err(syn::Error::new_spanned(
                &argument.path,
                "unknown argument: a handler knows `topics`, `key`, `order_by`, `version`, `entity`, `gap`, `gap_timeout`, `first_version`, `retention` and `name`",
            )),
        }
    }

    /// What is wrong between arguments that are right by themselves.
    fn contradiction(&self) -> Option<&'static str> {
        let versions = self.version.is_some();
        let of_versions = self.entity.is_some()
            || self.gap.is_some()
            || self.gap_timeout.is_some()
            || self.first_version.is_some();
        if versions && self.entity.is_none() {
            return Some("`version` needs `entity`: of what are the messages versions?");
        }
        if !versions && of_versions {
            return Some(
                "`entity`, `gap`, `gap_timeout` and `first_version` mean nothing without `version`",
            );
        }
        if versions && self.key == self.entity {
            return Some(
                "`key` and `entity` are the same, so that all versions would be one message: join the version to the key, such as \"json:/account_id + json:/version\"",
            );
        }
        if self.gap.as_deref() == Some("wait") && self.order_by.is_some() {
            return Some(
                "`gap = \"wait\"` and `order_by` contradict each other: the one takes messages in the order of their versions, the other in the order of their arrival",
            );
        }
        None
    }
}

impl Parse for Arguments {
    fn parse(input: ParseStream) -> syn::Result<Self> {
        let mut arguments = Self::default();
        let mut errors: Option<syn::Error> = None;
        for argument in Punctuated::<MetaNameValue, Token![,]>::parse_terminated(input)? {
            if let Err(error) = arguments.set(&argument) {
                match &mut errors {
                    Some(errors) => errors.combine(error),
                    None => errors = Some(error),
                }
            }
        }
        if let (None, Some(reason)) = (&errors, arguments.contradiction()) {
            errors = Some(syn::Error::new(Span::call_site(), reason));
        }
        errors.map_or(Ok(arguments), Err)
    }
}

fn once<T>(slot: &mut Option<T>, value: T, argument: &MetaNameValue) -> syn::Result<()> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(syn::Error::new_spanned(&argument.path, "given twice")),
    }
}

/// A string that passes the check.
fn text(
    argument: &MetaNameValue,
    example: &str,
    check: fn(&str) -> Result<(), String>,
) -> syn::Result<String> {
    let literal = string(&argument.value).ok_or_else(|| {
        syn::Error::new_spanned(
            &argument.value,
            format!("expected a string such as \"{example}\""),
        )
    })?;
    match check(&literal.value()) {
        Ok(()) => Ok(literal.value()),
        Err(reason) => Err(syn::Error::new(literal.span(), reason)),
    }
}

/// A number that is not negative.
fn number(argument: &MetaNameValue) -> syn::Result<u64> {
    let number = match &argument.value {
        Expr::Lit(ExprLit {
            lit: Lit::Int(literal),
            ..
        }) => literal.base10_parse().ok(),
        _ => None,
    };
    number.ok_or_else(|| syn::Error::new_spanned(&argument.value, "expected a number such as 1"))
}

/// A list of topics.
fn strings(value: &Expr) -> syn::Result<Vec<String>> {
    let expected = || {
        let message = "expected a list of topics such as [\"orders\"]";
        syn::Error::new_spanned(value, message)
    };
    let Expr::Array(ExprArray { elems, .. }) = value else {
        return Err(expected());
    };
    if elems.is_empty() {
        return Err(expected());
    }
    let topic = |element: &Expr| {
        let literal = string(element).ok_or_else(expected)?;
        match literal.value() {
            topic if topic.trim().is_empty() => {
                Err(syn::Error::new(literal.span(), "a topic's name is empty"))
            }
            topic => Ok(topic),
        }
    };
    elems.iter().map(topic).collect()
}

fn string(value: &Expr) -> Option<&LitStr> {
    match value {
        Expr::Lit(ExprLit {
            lit: Lit::Str(literal),
            ..
        }) => Some(literal),
        _ => None,
    }
}

fn check_name(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    match !name.is_empty() && name.len() <= 64 && name.chars().all(allowed) {
        true => Ok(()),
        false => Err(format!(
            "the plugin's name `{name}` is not 1 to 64 of a-z, A-Z, 0-9, `-`, `_` and `.`"
        )),
    }
}

fn check_gap(text: &str) -> Result<(), String> {
    match text {
        "skip" | "wait" => Ok(()),
        other => Err(format!(
            "`{other}` is neither `skip`, which handles a message that skips versions, nor `wait`, which keeps it until those before it have come"
        )),
    }
}

fn check_duration(text: &str) -> Result<(), String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let unit = ["ms", "s", "m", "h", "d"].contains(&&text[digits..]);
    match unit && text[..digits].parse::<u32>().is_ok() {
        true => Ok(()),
        false => Err(format!(
            "`{text}` is no duration: write a number with ms, s, m, h or d, such as 7d"
        )),
    }
}

/// What cargo says about the crate being compiled.
pub(crate) fn package(variable: &str) -> syn::Result<String> {
    std::env::var(variable).map_err(|_| {
        syn::Error::new(
            Span::call_site(),
            format!("{variable} is not set: build with cargo"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Arguments, Vec<String>> {
        syn::parse_str(text)
            .map_err(|error: syn::Error| error.into_iter().map(|error| error.to_string()).collect())
    }

    #[test]
    fn the_manifest_holds_what_was_said_and_nothing_else() {
        let all = r#"topics = ["orders", "returns"], key = "json:/order_id",
            order_by = "json:/user", version = "json:/version", entity = "json:/user + json:/shop",
            gap = "skip", gap_timeout = "1m", first_version = 1, retention = "7d",
            name = "shop.points","#;
        let manifest = parse(all).unwrap().manifest("points", "1.2.3").unwrap();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let expected = serde_json::json!({
            "semel": "0.1", "name": "shop.points", "plugin-version": "1.2.3",
            "topics": ["orders", "returns"], "key": "json:/order_id",
            "order-by": "json:/user", "version": "json:/version",
            "entity": "json:/user + json:/shop", "gap": "skip", "gap-timeout": "1m",
            "first-version": 1, "retention": "7d",
        });
        assert_eq!(manifest, expected);

        let manifest = parse("").unwrap().manifest("points", "1.2.3").unwrap();
        let manifest: Value = serde_json::from_str(&manifest).unwrap();
        let expected =
            serde_json::json!({ "semel": "0.1", "name": "points", "plugin-version": "1.2.3" });
        assert_eq!(manifest, expected);
    }

    #[test]
    fn each_wrong_argument_is_named() {
        for (bad, why) in [
            (r#"topic = ["orders"]"#, "unknown argument"),
            (r#"topics = "orders""#, "expected a list of topics"),
            ("topics = []", "expected a list of topics"),
            ("topics = [1]", "expected a list of topics"),
            (r#"topics = [" "]"#, "empty"),
            ("key = 5", "expected a string such as \"json:/id\""),
            (r#"key = "order_id""#, "no key expression"),
            (r#"order_by = "json:user""#, "begins with `/`"),
            (r#"retention = "a week""#, "no duration"),
            (r#"retention = "d""#, "no duration"),
            (r#"name = "my plugin""#, "not 1 to 64"),
            (r#"key = "id", key = "keys""#, "given twice"),
            (
                r#"version = "json:/a + json:/b", entity = "id""#,
                "several terms",
            ),
            (r#"version = "json:/version""#, "needs `entity`"),
            (r#"gap = "wait""#, "nothing without `version`"),
            ("first_version = -1", "expected a number"),
            (r#"gap = "stop""#, "neither `skip`"),
            (
                r#"key = "json:/a", entity = "json:/a", version = "json:/v""#,
                "join the version to the key",
            ),
            (
                r#"entity = "json:/a", version = "json:/v", gap = "wait", order_by = "json:/a""#,
                "contradict each other",
            ),
        ] {
            let errors = parse(bad).unwrap_err();
            assert!(errors[0].contains(why), "{bad}: {errors:?}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once() {
        assert_eq!(
            parse(r#"key = "order_id", retention = "soon""#)
                .unwrap_err()
                .len(),
            2
        );
    }

    #[test]
    fn a_crate_name_that_is_no_plugin_name_is_refused() {
        assert!(
            parse("")
                .unwrap()
                .manifest(&"x".repeat(65), "1.0.0")
                .is_err()
        );
    }
}
