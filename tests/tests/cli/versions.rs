//! Version numbers, from the command line.

use super::*;

fn change(item: &str, version: u64, level: i64) -> String {
    let body = json!({"item": item, "version": version, "level": level});
    json!({"topic": "stock", "body": body}).to_string()
}

fn stock(lines: &[String]) -> Result<Site> {
    let site = Site::with_plugins(&["stock"])?;
    site.write("in.jsonl", lines.join("\n"))?;
    Ok(site)
}

#[test]
fn stale_messages_are_counted_apart() -> Result<()> {
    let site = stock(&[
        change("bolt", 2, 90),
        change("bolt", 1, 100),
        change("bolt", 1, 100),
    ])?;
    let ended = semel(&site, RUN)?.succeeded(RUN)?;
    let summary = ended.summary()?;
    ensure!(
        summary["applied"] == 1 && summary["stale"] == 1 && summary["duplicates"] == 1,
        "{summary}"
    );
    has(
        &ended.stderr,
        &["stale", "a newer version was applied before"],
    )?;
    let versions = ask_json(&site, "state list stock --versions")?;
    ensure!(
        versions.len() == 1 && versions[0]["key"] == "bolt" && versions[0]["value"] == 2,
        "{versions:?}"
    );
    ensure!(ask_json(&site, "state list stock")?.len() == 1);
    let record = ask_json(&site, "key show stock 4:bolt1:1")?;
    ensure!(record[0]["state"] == "done", "{record:?}");
    Ok(())
}

#[test]
fn early_messages_wait_where_the_operator_says_so() -> Result<()> {
    let lines = [4, 3, 1, 2].map(|version| change("bolt", version, version as i64));
    let site = stock(&lines)?;
    let sidecar = "gap = \"wait\"\nfirst-version = 1";
    site.write("plugins/stock.toml", sidecar)?;
    has(
        &ask_of_plugin(&site)?,
        &[
            "json:/version of json:/item",
            "wait up to 30s, from version 1 on",
        ],
    )?;
    let summary = run(&site)?;
    ensure!(
        summary["applied"] == 4 && summary["stale"] == 0,
        "{summary}"
    );
    ensure!(json_lines(&site.read("out.jsonl")?)?.len() == 4);
    ensure!(ask_json(&site, "state get stock level/bolt")?[0]["value"] == 4);

    site.write(
        "plugins/stock.toml",
        format!("{sidecar}\norder-by = \"json:/item\""),
    )?;
    let refused = site.run(&["plugin", "inspect", "plugins/stock.wasm"], LIMIT)?;
    ensure!(refused.status.code() == Some(1));
    has(&refused.stderr, &["contradict each other"])
}

fn ask_of_plugin(site: &Site) -> Result<String> {
    let words = ["plugin", "inspect", "plugins/stock.wasm"];
    Ok(site.run(&words, LIMIT)?.succeeded("inspect")?.stdout)
}
