//! Certificates for servers on loopback and for their clients.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;

use anyhow::Result;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

use super::program::home;

/// The one that the certificate is for.
const ADDRESS: &str = "127.0.0.1";

/// An authority that nobody else knows, and a certificate that it gave, for either end of a
/// connection to 127.0.0.1, but not to `localhost`. Files are in PEM, and gone when it is dropped.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes them.
    pub fn new() -> Result<Self> {
        let folder = home("certificates")?;
        let mut authority = named(Vec::new(), &format!("authority {}", rand::random::<u32>()))?;
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority_key = KeyPair::generate()?;
        let root = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);
        let key = KeyPair::generate()?;
        let certificate = named(vec![ADDRESS.to_owned()], ADDRESS)?.signed_by(&key, &issuer)?;

        let certificates = Self { folder };
        fs::write(certificates.ca(), root.pem())?;
        fs::write(certificates.certificate(), certificate.pem())?;
        fs::write(certificates.key(), key.serialize_pem())?;
        let both = key.serialize_pem() + &certificate.pem();
        fs::write(certificates.key_and_certificate(), both)?;
        // Some servers take no key that others may read.
        fs::set_permissions(certificates.key(), Permissions::from_mode(0o600))?;
        Ok(certificates)
    }

    /// Gives them to a user, so that a server that runs as that one can read them.
    pub fn give_to(&self, user: u32, group: u32) -> Result<()> {
        chown(self.folder.path(), Some(user), Some(group))?;
        for entry in fs::read_dir(self.folder.path())? {
            chown(entry?.path(), Some(user), Some(group))?;
        }
        Ok(())
    }

    /// The authority's own certificate.
    pub fn ca(&self) -> PathBuf {
        self.path("ca.pem")
    }

    /// The certificate of a server or a client.
    pub fn certificate(&self) -> PathBuf {
        self.path("certificate.pem")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.path("key.pem")
    }

    /// Both in one file.
    pub fn key_and_certificate(&self) -> PathBuf {
        self.path("both.pem")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// A certificate's contents. One with its issuer's name would be taken for the issuer's own.
fn named(addresses: Vec<String>, name: &str) -> Result<CertificateParams> {
    let mut params = CertificateParams::new(addresses)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}
