use super::*;

fn grants() -> SqlGrants {
    let tables = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    SqlGrants {
        select: tables(&["accounts", "shop.prices"]),
        insert: tables(&["orders", "log"]),
        update: tables(&["accounts", "log"]),
        delete: tables(&["orders"]),
        functions: tables(&["tax"]),
    }
}

fn both(text: &str) -> [Result<Checked, String>; 2] {
    [Server::Mysql, Server::Postgres].map(|server| check(server, &grants(), text))
}

fn postgres(text: &str) -> Result<Checked, String> {
    check(Server::Postgres, &grants(), text)
}

fn mysql(text: &str) -> Result<Checked, String> {
    check(Server::Mysql, &grants(), text)
}

#[test]
fn what_was_granted_is_taken() {
    for text in [
        "SELECT balance, version FROM accounts WHERE id = $1",
        "SELECT a.id, COUNT(*) AS n FROM accounts a JOIN shop.prices AS p ON p.id = a.id \
         WHERE a.id IN ($1, $2) GROUP BY a.id HAVING COUNT(*) > 1 ORDER BY a.id DESC LIMIT 10",
        "SELECT id FROM (SELECT id FROM accounts UNION ALL SELECT id FROM shop.prices) AS both_of",
        "SELECT CASE WHEN balance > 0 THEN 'in' ELSE 'out' END FROM accounts",
        "UPDATE accounts SET balance = balance - $2, version = version + 1 \
         WHERE id = $1 AND version = $3",
        "UPDATE accounts SET balance = (SELECT tax(price) FROM shop.prices WHERE id = ?) \
         WHERE id = ?",
        "INSERT INTO orders (id, total, at) VALUES ($1, CAST($2 AS DECIMAL(10, 2)), now())",
        "INSERT INTO orders (id) SELECT id FROM accounts WHERE balance > $1",
        "DELETE FROM orders WHERE id = $1",
    ] {
        for checked in both(text) {
            assert!(checked.is_ok(), "{text}: {checked:?}");
        }
    }
    for text in [
        "INSERT INTO log (id, n) VALUES ($1, 1) ON CONFLICT (id) DO UPDATE SET n = log.n + 1",
        "INSERT INTO orders (id) VALUES ($1) ON CONFLICT DO NOTHING",
        "UPDATE accounts SET name = $1::text WHERE id = $2",
        "UPDATE Accounts SET \"name\" = $1",
    ] {
        assert!(postgres(text).is_ok(), "{text}: {:?}", postgres(text));
    }
    let text = "INSERT INTO log (id, n) VALUES (?, 1) ON DUPLICATE KEY UPDATE n = n + VALUES(n)";
    assert!(mysql(text).is_ok(), "{:?}", mysql(text));
}

#[test]
fn what_was_not_granted_is_denied_by_name() {
    for (text, says) in [
        ("SELECT * FROM orders", "to select `orders`"),
        ("SELECT * FROM prices", "to select `prices`"),
        ("SELECT * FROM accounts, secrets", "to select `secrets`"),
        ("SELECT (SELECT x FROM secrets) FROM accounts", "`secrets`"),
        (
            "SELECT id FROM accounts WHERE EXISTS (SELECT 1 FROM secrets)",
            "`secrets`",
        ),
        (
            "SELECT id FROM accounts ORDER BY (SELECT x FROM secrets)",
            "`secrets`",
        ),
        (
            "SELECT id FROM accounts LIMIT (SELECT x FROM secrets)",
            "`secrets`",
        ),
        (
            "SELECT id FROM accounts GROUP BY (SELECT x FROM secrets)",
            "`secrets`",
        ),
        (
            "SELECT COUNT(*) OVER (ORDER BY (SELECT x FROM secrets)) FROM accounts",
            "`secrets`",
        ),
        (
            "SELECT id FROM accounts a JOIN secrets ON true",
            "`secrets`",
        ),
        (
            "SELECT id FROM accounts UNION SELECT x FROM secrets",
            "`secrets`",
        ),
        (
            "INSERT INTO accounts (id) VALUES ($1)",
            "to insert `accounts`",
        ),
        (
            "INSERT INTO orders (id) SELECT id FROM orders",
            "to select `orders`",
        ),
        (
            "INSERT INTO orders (id) VALUES ((SELECT x FROM secrets))",
            "`secrets`",
        ),
        ("UPDATE orders SET id = 1", "to update `orders`"),
        (
            "UPDATE accounts SET id = (SELECT x FROM secrets)",
            "`secrets`",
        ),
        (
            "UPDATE accounts SET id = 1 WHERE id = ANY (SELECT x FROM secrets)",
            "`secrets`",
        ),
        ("DELETE FROM accounts WHERE id = 1", "to delete `accounts`"),
        (
            "DELETE FROM orders WHERE id IN (SELECT x FROM secrets)",
            "`secrets`",
        ),
        ("SELECT pg_sleep(10)", "`pg_sleep` is not known"),
        ("SELECT SLEEP(10)", "`sleep` is not known"),
        ("SELECT LOAD_FILE('/etc/passwd')", "`load_file`"),
        (
            "SELECT query_to_xml('select 1', true, true, '')",
            "`query_to_xml`",
        ),
        ("SELECT nextval('ids')", "`nextval`"),
        (
            "SELECT id FROM accounts WHERE GET_LOCK('a', 10) = 1",
            "`get_lock`",
        ),
        ("SELECT mysql.tax(1)", "must have a single name"),
    ] {
        for checked in both(text) {
            let reason = checked.expect_err(text);
            assert!(reason.contains(says), "{text}: {reason}");
        }
    }
    let upsert = "INSERT INTO orders (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET id = 2";
    assert!(postgres(upsert).unwrap_err().contains("to update `orders`"));
    let upsert = "INSERT INTO orders (id) VALUES (1) ON DUPLICATE KEY UPDATE id = 2";
    assert!(mysql(upsert).unwrap_err().contains("to update `orders`"));
    assert!(postgres("UPDATE \"Accounts\" SET id = 1").is_err());
    let from = "UPDATE accounts SET id = s.x FROM secrets s WHERE true";
    assert!(postgres(from).unwrap_err().contains("to select `secrets`"));
    let using = "DELETE FROM orders USING secrets WHERE true";
    assert!(postgres(using).unwrap_err().contains("to select `secrets`"));
    // The names of subqueries hide no table.
    let with = "WITH secrets AS (SELECT * FROM secrets) SELECT * FROM secrets";
    assert!(postgres(with).unwrap_err().contains("WITH"));
}

#[test]
fn what_can_t_be_seen_through_is_denied() {
    for text in [
        "",
        "SELECT 1; DELETE FROM orders",
        "DROP TABLE orders",
        "TRUNCATE orders",
        "CREATE TABLE x (id INT)",
        "GRANT ALL ON orders TO me",
        "SET SESSION sql_mode = ''",
        "BEGIN",
        "COMMIT",
        "CALL proc()",
        "SELECT 1 INTO OUTFILE '/tmp/x'",
        "SELECT id INTO copies FROM accounts",
        "SELECT id FROM accounts FOR UPDATE",
        "SELECT * FROM generate_series(1, 1000000000)",
        "SELECT id FROM accounts -- all of them",
        "SELECT /*! SLEEP(10), */ 1",
        "SELECT 'a\\'",
        "SELECT @@version",
        "SELECT @x := 1",
        "SELECT id FROM accounts WHERE id = $0",
        "SELECT id FROM accounts WHERE id = $1 OR id = $3",
        "SELECT id FROM accounts WHERE id = :name",
        "WITH gone AS (DELETE FROM orders RETURNING id) SELECT * FROM gone",
        "REPLACE INTO orders (id) VALUES (1)",
        "INSERT IGNORE INTO orders (id) VALUES (1)",
        "DELETE FROM orders WHERE id = 1 RETURNING id",
        "UPDATE accounts, shop.prices SET id = 1",
        "TABLE accounts",
        "VALUES (pg_sleep(1))",
        "EXPLAIN SELECT 1",
        "COPY accounts TO '/tmp/x'",
        "SELECT E'a'",
        "SELECT $$a$$",
        "SELECT id AS 'a b' FROM accounts",
        "LOCK TABLES accounts WRITE",
        "SHOW TABLES",
        "HANDLER accounts OPEN",
        "MERGE INTO orders USING accounts ON true WHEN MATCHED THEN DELETE",
    ] {
        for checked in both(text) {
            assert!(checked.is_err(), "{text}: {checked:?}");
        }
    }
    let deep = format!("SELECT {} FROM accounts", vec!["1"; 3_000].join(" + "));
    let long = format!("SELECT '{}' FROM accounts", "x".repeat(MAX_BYTES));
    let nested = format!(
        "SELECT {}1{} FROM accounts",
        "(".repeat(900),
        ")".repeat(900)
    );
    for text in [deep, long, nested] {
        for checked in both(&text) {
            assert!(checked.is_err());
        }
    }
}

#[test]
fn parameters_stand_where_the_server_expects_them() {
    let text = "UPDATE accounts SET balance = ? WHERE id = ? AND version = ?";
    let checked = mysql(text).unwrap();
    assert_eq!(&*checked.text, text);
    assert_eq!(checked.parameters, 3);
    let checked = postgres(text).unwrap();
    assert!(
        checked.text.ends_with("id = $2 AND version = $3"),
        "{checked:?}"
    );

    let checked = mysql("UPDATE accounts SET name = $2, full_name = $2 WHERE id = $1").unwrap();
    let values = [SqlValue::Integer(1), SqlValue::Text("ann".into())];
    let [id, name] = values.clone();
    assert_eq!(checked.arrange(values.to_vec()), [name.clone(), name, id]);
    assert_eq!(checked.parameters, 2);
}

/// A statement that this understands in one way and a server in another would be a way around
/// the grants: what is sent is what was understood, without what was left aside.
#[test]
fn what_is_sent_is_written_anew() {
    let checked = mysql("select   `id`\n from accounts\twhere name='it''s' and x<>-1").unwrap();
    assert_eq!(
        &*checked.text,
        "SELECT `id` FROM accounts WHERE name = 'it''s' AND x <> -1"
    );
}
