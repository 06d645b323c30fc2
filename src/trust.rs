//! Certificates: those in a file, and those that the system trusts.

use std::path::Path;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{Error, PemObject};

/// The certificates in a PEM file.
pub(crate) fn certificates_in(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(path, error))?;
    if certificates.is_empty() {
        return Err(format!("{}: holds no certificate in PEM form", path.display()));
    }
    Ok(certificates)
}

/// What is wrong with a PEM file.
pub(crate) fn unreadable(path: &Path, error: Error) -> String {
    match error {
        Error::Io(error) => format!("{}: {error}", path.display()),
        Error::NoItemsFound => format!("{}: holds nothing usable in PEM form", path.display()),
        other => format!("{}: {other}", path.display()),
    }
}

/// The certificates that the system trusts; `key` is the one that names others.
pub(crate) fn system_certificates(key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let errors = found.errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        return Err(format!(
            "this system has no trusted certificates{}{errors}; name a file with {key}",
            if errors.is_empty() { "" } else { ": " }
        ));
    }
    Ok(found.certs)
}
