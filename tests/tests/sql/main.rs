//! Statements on the user's own tables, on every database that can be a store: what one commit
//! does with them, and what a host does that is killed among them.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod commit;
mod host;
mod targets;
mod values;

use semel_tests::servers::mariadb::MariadbServer;
use semel_tests::servers::postgres::PostgresServer;

/// A database of a test's own.
struct Database {
    server: Server,
    /// As a store.
    url: String,
}

enum Server {
    Mariadb(&'static MariadbServer),
    Postgres(&'static PostgresServer),
}

impl Database {
    async fn mariadb() -> Self {
        let server = MariadbServer::shared().await.expect("a server");
        Self {
            url: server.database().expect("a database"),
            server: Server::Mariadb(server),
        }
    }

    async fn postgres() -> Self {
        let server = PostgresServer::shared().await.expect("a server");
        Self {
            url: server.database().expect("a database"),
            server: Server::Postgres(server),
        }
    }

    fn name(&self) -> &str {
        self.url.rsplit('/').next().unwrap()
    }

    /// A client that sends statements, to be started.
    fn client(&self, statements: &str) -> std::process::Command {
        match &self.server {
            Server::Mariadb(server) => {
                let statements = format!("USE {}; {statements}", self.name());
                server.client(&statements).unwrap()
            }
            Server::Postgres(server) => server.client(self.name(), statements).unwrap(),
        }
    }

    /// What the server answers, the columns with a bar between.
    fn sql(&self, statements: &str) -> String {
        let output = self.client(statements).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{statements}: {error}");
        let text = String::from_utf8_lossy(&output.stdout);
        text.trim_end().replace('\t', "|")
    }
}

/// Makes each test of one for each database.
macro_rules! on_each_database {
    ($($test:ident),* $(,)?) => {
        mod mariadb {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::Database::mariadb().await).await;
            })*
        }

        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test(crate::Database::postgres().await).await;
            })*
        }
    };
}
use on_each_database;
