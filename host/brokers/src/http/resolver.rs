//! Names to addresses, of which only permitted ones are ever connected to.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::address::Place;

/// Which addresses may be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The public internet only.
    Public,
    /// Private networks and this machine as well.
    Private,
    /// This machine only.
    Loopback,
}

impl Reach {
    /// Whether an address may be connected to.
    pub fn permits(self, address: IpAddr) -> bool {
        match (self, Place::of(address)) {
            (_, Place::Forbidden) => false,
            (Self::Public, place) => place == Place::Public,
            (Self::Private, _) => true,
            (Self::Loopback, place) => place == Place::Loopback,
        }
    }
}

/// Looks a name up.
pub type Lookup =
    Arc<dyn Fn(String) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> + Send + Sync>;

/// Resolves names for connections. Every new connection asks again, and what it is told is
/// checked, so a name can't lead elsewhere later.
pub struct CheckedResolver {
    reach: Reach,
    lookup: Lookup,
}

/// A name leads only where no connection may go.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{name}` leads to {}, where this destination may not connect; `allow-private = true` permits private networks and this machine",
    join(addresses)
)]
pub struct Forbidden {
    name: String,
    addresses: Vec<IpAddr>,
}

fn join(addresses: &[IpAddr]) -> String {
    if addresses.is_empty() {
        return "no address".to_owned();
    }
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    addresses.join(", ")
}

impl CheckedResolver {
    /// A resolver that asks the system.
    pub fn new(reach: Reach) -> Self {
        let lookup = |name: String| -> BoxFuture<'static, _> {
            Box::pin(async move {
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            })
        };
        Self::with_lookup(reach, Arc::new(lookup))
    }

    /// A resolver that asks whoever is given.
    pub fn with_lookup(reach: Reach, lookup: Lookup) -> Self {
        Self { reach, lookup }
    }
}

impl Resolve for CheckedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let reach = self.reach;
        let name = name.as_str().to_owned();
        let found = (self.lookup)(name.clone());
        Box::pin(async move {
            let addresses = found.await?;
            let permitted: Vec<SocketAddr> = addresses
                .iter()
                .filter(|&&address| reach.permits(address))
                .map(|&address| SocketAddr::new(address, 0))
                .collect();
            if permitted.is_empty() {
                return Err(Forbidden { name, addresses }.into());
            }
            Ok(Box::new(permitted.into_iter()) as Addrs)
        })
    }
}
