#[path = "../../../tests/src/conformance"]
mod conformance {
    #[macro_use]
    pub mod store;
}
use conformance::store as suite;

use semel_core::Admin;
use std::sync::Arc;
use suite::Fixture;

struct Memory(Arc<dyn Admin>);
impl Fixture for Memory {
    fn store(&self) -> Arc<dyn Admin> {
        Arc::clone(&self.0)
    }
}
mod memory {
    use super::*;
    store_conformance!(async || Memory(Arc::new(semel_core::memory::MemoryStore::new())));
}
struct Redb(Arc<dyn Admin>, #[allow(dead_code)] tempfile::TempDir);
impl Fixture for Redb {
    fn store(&self) -> Arc<dyn Admin> {
        Arc::clone(&self.0)
    }
}
mod redb {
    use super::*;
    store_conformance!(async || {
        let directory = tempfile::tempdir().unwrap();
        Redb(
            Arc::new(semel_stores::RedbStore::open(directory.path()).unwrap()),
            directory,
        )
    });
}
#[path = "../../../tests/src/servers/redis.rs"]
#[allow(dead_code)]
mod server;
struct Redis(Arc<dyn Admin>, #[allow(dead_code)] server::RedisServer);
impl Fixture for Redis {
    fn store(&self) -> Arc<dyn Admin> { Arc::clone(&self.0) }
}
mod redis {
    use super::*;
    store_conformance!(async || {
        let server = server::RedisServer::start().await.unwrap();
        Redis(Arc::new(semel_stores::RedisStore::open(&server.url()).await.unwrap()), server)
    });
}
