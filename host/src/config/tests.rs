use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(Path::new("semel.toml"), text, &|name| {
        (name == "REDIS_PASSWORD").then(|| "s3cret".to_owned())
    })
}

fn refusal(text: &str) -> String {
    parse(text).unwrap_err().to_string()
}

#[test]
fn the_documented_example_is_accepted_whole() {
    let text = include_str!("../../semel.example.toml");
    let config = Config::parse(Path::new("semel.example.toml"), text, &|name| {
        Some(format!("value of {name}"))
    });
    let config = config.unwrap_or_else(|error| panic!("{error}"));
    let points = config
        .plugin("points")
        .expect("the example configures `points`");
    assert_eq!(points.topics.as_deref(), Some(&["orders".to_owned()][..]));
    assert_eq!(config.destinations.len(), 1);
}

/// Every key of the example that is commented out must be one that the host knows.
#[test]
fn what_the_example_comments_out_is_accepted_as_well() {
    let text = include_str!("../../semel.example.toml");
    let uncommented: String = text
        .lines()
        .map(|line| line.strip_prefix("#:").unwrap_or(line).to_owned() + "\n")
        .collect();
    let config = Config::parse(Path::new("semel.example.toml"), &uncommented, &|name| {
        Some(format!("value of {name}"))
    });
    config.unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn nothing_is_required() {
    let config = parse("").unwrap();
    assert_eq!(config.store, None);
    assert_eq!(config.namespace("points"), "points");
}

#[test]
fn an_unknown_key_is_shown_with_its_line() {
    let shown = refusal("store = \"redb:./data\"\n\n[plugins.points]\nretension = \"7d\"\n");
    assert!(
        shown.starts_with("semel.toml:4:1: unknown field `retension`"),
        "{shown}"
    );
    assert!(
        shown.contains("4 | retension = \"7d\"\n  | ^^^^^^^^^"),
        "{shown}"
    );
}

#[test]
fn an_unknown_section_is_shown_with_its_line() {
    let shown = refusal("[pluggins.points]\nkey = \"id\"\n");
    assert!(
        shown.starts_with("semel.toml:1:2: unknown field `pluggins`"),
        "{shown}"
    );
}

#[test]
fn a_wrong_type_is_shown_with_its_column() {
    let shown = refusal("[plugins.points]\ntopics = \"orders\"\n");
    assert!(
        shown.starts_with("semel.toml:2:10: invalid type"),
        "{shown}"
    );
    assert!(shown.contains("  |          ^^^^^^^^"), "{shown}");
}

#[test]
fn values_that_make_no_sense_are_shown_with_their_place() {
    for (text, place, what) in [
        (
            "[plugins.p]\nkey = \"jason:/id\"",
            "2:7",
            "no key expression",
        ),
        ("[plugins.p]\nretention = \"7 days\"", "2:13", "no duration"),
        (
            "[plugins.p.limits]\nmemory = \"lots\"",
            "2:10",
            "a size such as",
        ),
        ("[plugins.p]\nconcurrency = 0", "2:15", "nonzero"),
        (
            "[plugins.p]\nconfig = { rate = [1] }",
            "2:19",
            "a string, a number",
        ),
        (
            "[logging]\nformat = \"xml\"",
            "2:10",
            "unknown variant `xml`",
        ),
        (
            "[source]\nurl = \"redis://:${NO_SUCH}@h\"",
            "2:7",
            "`NO_SUCH` is not set",
        ),
    ] {
        let shown = refusal(text);
        assert!(
            shown.starts_with(&format!("semel.toml:{place}: ")),
            "{shown}"
        );
        assert!(shown.contains(what), "{shown}");
    }
}

#[test]
fn broken_toml_is_shown_with_its_place() {
    let shown = refusal("store = \"redb:./data\nsource = 1\n");
    assert!(shown.starts_with("semel.toml:1:"), "{shown}");
}

#[test]
fn secrets_come_from_the_environment() {
    let config = parse("store = \"redis://:${REDIS_PASSWORD}@127.0.0.1\"").unwrap();
    assert_eq!(config.store.as_deref(), Some("redis://:s3cret@127.0.0.1"));
}

#[test]
fn a_plugin_is_overridden() {
    let config = parse(
        r#"
        [plugins.points]
        topics = ["a", "b"]
        key = "json:/a + header:b"
        namespace = "shared"
        concurrency = 4
        config = { rate = 100, name = "x", on = true }
        limits = { memory = "16MiB", time = "250ms" }
        retry = { max-attempts = 3 }
        "#,
    )
    .unwrap();
    let points = config.plugin("points").unwrap();
    assert_eq!(config.namespace("points"), "shared");
    assert_eq!(points.manifest().topics.unwrap(), ["a", "b"]);
    assert_eq!(points.config.0["rate"], "100");
    assert_eq!(points.limits.memory, Some(Size(16 << 20)));
    assert_eq!(points.limits.time.unwrap().0.as_millis(), 250);
    assert_eq!(points.retry.max_attempts.unwrap().get(), 3);
}

#[test]
fn namespaces_of_the_host_can_not_be_named() {
    for name in ["", "points#versions"] {
        let shown = refusal(&format!("[plugins.points]\nnamespace = \"{name}\""));
        assert!(shown.contains("can't be a namespace"), "{shown}");
    }
}
