//! What the two ends of an encrypted connection know each other by.

use std::fs;
use std::path::{Path, PathBuf};

use crate::percent::decoded;

/// How PEM files begin that hold a certificate, and what the first line of one with a key has.
const CERTIFICATE: &str = "-----BEGIN CERTIFICATE-----";
const KEY: &str = "PRIVATE KEY-----";

/// The parameters `ca=FILE`, `certificate=FILE` and `key=FILE` of a URL: PEM files with the
/// authorities that are trusted, and with what this end shows of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct TlsFiles {
    pub(crate) ca: Option<PathBuf>,
    pub(crate) certificate: Option<PathBuf>,
    pub(crate) key: Option<PathBuf>,
}

/// Why a file that a URL names can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{parameter}={}` can't be used: {reason}; give a PEM file", path.display())]
pub struct TlsFileError {
    /// The URL's parameter.
    pub parameter: &'static str,
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it.
    pub reason: String,
}

impl TlsFiles {
    /// Takes a parameter of a URL, if it is one of these.
    pub(crate) fn take(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let file = match name {
            "ca" => &mut self.ca,
            "certificate" => &mut self.certificate,
            "key" => &mut self.key,
            _ => return Ok(false),
        };
        match decoded(value)? {
            path if path.is_empty() => Err(format!("`{name}=` names no file")),
            path => {
                *file = Some(path.into());
                Ok(true)
            }
        }
    }

    /// Whether they make sense together, in a URL whose scheme for TLS is `scheme`.
    pub(crate) fn agree(&self, tls: bool, scheme: &str) -> Result<(), String> {
        if self.certificate.is_some() != self.key.is_some() {
            return Err("`certificate=` and `key=` go together".to_owned());
        }
        match tls || *self == Self::default() {
            true => Ok(()),
            false => Err(format!(
                "`ca=`, `certificate=` and `key=` go with `{scheme}://`"
            )),
        }
    }

    /// Whether they are there and of their kinds.
    pub(crate) fn check(&self) -> Result<(), TlsFileError> {
        self.ca_text()?;
        self.identity()?;
        Ok(())
    }

    /// The certificates of the authorities.
    pub(crate) fn ca_text(&self) -> Result<Option<String>, TlsFileError> {
        let text = |path: &PathBuf| read("ca", path, CERTIFICATE);
        self.ca.as_ref().map(text).transpose()
    }

    /// The certificate and the key of this end.
    pub(crate) fn identity(&self) -> Result<Option<(String, String)>, TlsFileError> {
        let (Some(certificate), Some(key)) = (&self.certificate, &self.key) else {
            return Ok(None);
        };
        Ok(Some((
            read("certificate", certificate, CERTIFICATE)?,
            read("key", key, KEY)?,
        )))
    }
}

fn read(parameter: &'static str, path: &Path, has: &str) -> Result<String, TlsFileError> {
    let unusable = |reason: String| TlsFileError {
        parameter,
        path: path.to_owned(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|error| unusable(error.to_string()))?;
    match text.contains(has) {
        true => Ok(text),
        false => Err(unusable(format!("it has no `{has}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_and_must_be_of_their_kinds() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let certificate = path("c%.pem", &format!("{CERTIFICATE}\n…\n"));
        let key = path("k.pem", "-----BEGIN PRIVATE KEY-----\n…\n");
        let mut files = TlsFiles::default();
        assert_eq!(files.take("group", "g"), Ok(false));
        let encoded = certificate.replace('%', "%25");
        for (name, value) in [("ca", &encoded), ("certificate", &encoded), ("key", &key)] {
            assert_eq!(files.take(name, value), Ok(true));
        }
        files.check().unwrap();
        assert_eq!(files.agree(true, "amqps"), Ok(()));
        assert!(
            files
                .agree(false, "amqps")
                .unwrap_err()
                .contains("amqps://")
        );

        files.take("ca", &key).unwrap();
        let error = files.check().unwrap_err().to_string();
        assert!(
            error.contains("`ca=") && error.contains("BEGIN CERTIFICATE"),
            "{error}"
        );
        files.take("ca", "/nowhere/ca.pem").unwrap();
        let error = files.check().unwrap_err().to_string();
        assert!(
            error.contains("/nowhere/ca.pem") && error.contains("No such file"),
            "{error}"
        );
        assert!(files.take("ca", "").is_err());
        files.key = None;
        assert!(
            files
                .agree(true, "amqps")
                .unwrap_err()
                .contains("go together")
        );
    }
}
