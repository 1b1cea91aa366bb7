use std::time::Duration;

use lapin::runtime::default_runtime;
use lapin::tcp::{OwnedIdentity, OwnedTLSConfig};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::time::timeout;

use super::url::RabbitMqUrl;
use crate::causes::describe;
use crate::tls::TlsFileError;

/// The longest that any one exchange with the broker may take.
pub(super) const EXCHANGE: Duration = Duration::from_secs(5);

/// A connection, without the client's own recovery: what was on its way on the old one is for
/// the source and the sink to sort out.
pub(super) async fn connect(url: &RabbitMqUrl, name: &str) -> Result<Connection, String> {
    // The client takes the process's provider, which is not settled where two are built in.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let properties = ConnectionProperties::default().with_connection_name(name.into());
    let runtime = default_runtime().map_err(|error| describe(&error))?;
    let tls = tls_config(url).map_err(|error| error.to_string())?;
    let connection = Connection::connect_uri_with_config(url.uri(), properties, tls, runtime);
    match timeout(2 * EXCHANGE, connection).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// The files are read for each connection: certificates are renewed.
fn tls_config(url: &RabbitMqUrl) -> Result<OwnedTLSConfig, TlsFileError> {
    let Some(files) = &url.tls else {
        return Ok(OwnedTLSConfig::default());
    };
    let identity = files.identity()?.map(|(pem, key)| OwnedIdentity::PKCS8 {
        pem: pem.into_bytes(),
        key: key.into_bytes(),
    });
    Ok(OwnedTLSConfig {
        identity,
        cert_chain: files.ca_text()?,
    })
}

/// A new channel.
pub(super) async fn channel(connection: &Connection) -> Result<Channel, String> {
    match timeout(EXCHANGE, connection.create_channel()).await {
        Ok(Ok(channel)) => Ok(channel),
        Ok(Err(error)) => Err(describe(&error)),
        Err(_) => Err("no answer".to_owned()),
    }
}

/// Says goodbye, so that the broker has all that was sent before.
pub(super) async fn close(connection: &Connection) {
    let closed = timeout(EXCHANGE, connection.close(200, "OK".into())).await;
    if !matches!(closed, Ok(Ok(()))) {
        tracing::debug!("the connection was not closed in order");
    }
}
