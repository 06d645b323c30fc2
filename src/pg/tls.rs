//! TLS towards Postgres: what `sslmode`, `sslrootcert`, `sslcert` and `sslkey` mean.
//!
//! | `sslmode` | TLS | certificate chain | host name |
//! |---|---|---|---|
//! | `disable` | never | | |
//! | `prefer` (default) | if the server has it | only with `sslrootcert` | no |
//! | `require` | always | only with `sslrootcert` | no |
//! | `verify-ca` | always | yes | no |
//! | `verify-full` | always | yes | yes |
//!
//! As in libpq, with one difference: without `sslrootcert` the modes that verify use the system's
//! trust store, where libpq asks for a file in the home directory, which a service has not got.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::ParsedCertificate;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore};
use rustls::{OtherError, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use x509_cert::Certificate;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc5912;
use x509_cert::der::{Decode, Encode};

use crate::trust::{certificates_in, system_certificates, unreadable};

/// How much TLS, and whom to trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSettings {
    /// `sslmode`.
    pub mode: SslMode,
    /// `sslrootcert`.
    pub root: Option<Root>,
    /// `sslcert` and `sslkey`, PEM files.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// `sslmode`, in rising order; see the table in the module's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are libpq's and the table says what they mean")]
pub enum SslMode {
    Disable,
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// Who may sign the server's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Root {
    /// `system`: everybody the operating system trusts.
    System,
    /// A PEM file.
    File(PathBuf),
}

impl TlsSettings {
    /// From the parameters of the URL.
    pub fn new(
        mode: Option<&str>,
        root: Option<String>,
        cert: Option<String>,
        key: Option<String>,
    ) -> Result<TlsSettings, String> {
        let root = root.map(|root| match root.as_str() {
            "system" => Root::System,
            _ => Root::File(root.into()),
        });
        let mode = match (mode, &root) {
            // Anybody gets a certificate from a public authority, so only the name proves a thing.
            (None, Some(Root::System)) => SslMode::VerifyFull,
            (None, _) => SslMode::Prefer,
            (Some(mode), _) => mode.parse()?,
        };
        if root == Some(Root::System) && mode < SslMode::VerifyCa {
            return Err("sslrootcert=system needs sslmode=verify-full".to_owned());
        }
        let client = match (cert, key) {
            (Some(cert), Some(key)) => Some((cert.into(), key.into())),
            (None, None) => None,
            _ => return Err("sslcert and sslkey belong together; one is missing".to_owned()),
        };
        Ok(TlsSettings { mode, root, client })
    }

    /// Reads the files and builds what a handshake needs; `None` if there is to be no TLS.
    ///
    /// Called for every connection, so that a renewed certificate needs no restart.
    pub(super) fn load(&self) -> Result<Option<Arc<ClientConfig>>, String> {
        if self.mode == SslMode::Disable {
            return Ok(None);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier {
            trust: self.trust()?,
            check_name: self.mode == SslMode::VerifyFull,
            provider: Arc::clone(&provider),
        };
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder.with_client_cert_resolver(identity(cert, key, &provider)?),
        };
        // Since version 17 the server checks it, so that no other protocol's port can pose as it.
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Some(Arc::new(config)))
    }

    /// `None` if any certificate will do.
    fn trust(&self) -> Result<Option<Trust>, String> {
        let trusted = match &self.root {
            Some(Root::File(path)) => certificates_in(path)?,
            None if self.mode < SslMode::VerifyCa => return Ok(None),
            None | Some(Root::System) => system_certificates("sslrootcert")?,
        };
        let mut roots = RootCertStore::empty();
        let (usable, _) = roots.add_parsable_certificates(trusted.iter().cloned());
        if usable == 0 {
            return Err("none of the trusted certificates can be used to verify another".into());
        }
        Ok(Some(Trust { roots, trusted }))
    }
}

impl std::str::FromStr for SslMode {
    type Err = String;

    fn from_str(text: &str) -> Result<SslMode, String> {
        match text {
            "disable" => Ok(SslMode::Disable),
            "prefer" => Ok(SslMode::Prefer),
            "require" => Ok(SslMode::Require),
            "verify-ca" => Ok(SslMode::VerifyCa),
            "verify-full" => Ok(SslMode::VerifyFull),
            "allow" => Err("sslmode: `allow` tries without TLS first and protects nothing; use \
                            prefer, or better verify-full"
                .to_owned()),
            other => Err(format!(
                "sslmode: {other:?} is not one of disable, prefer, require, verify-ca, verify-full"
            )),
        }
    }
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SslMode::Disable => "disable",
            SslMode::Prefer => "prefer",
            SslMode::Require => "require",
            SslMode::VerifyCa => "verify-ca",
            SslMode::VerifyFull => "verify-full",
        })
    }
}

/// The certificate and key with which the client proves who it is.
fn identity(
    cert: &Path,
    key: &Path,
    provider: &CryptoProvider,
) -> Result<Arc<SingleCertAndKey>, String> {
    let chain = certificates_in(cert)?;
    let private = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable(key, error))?;
    let signing = provider.key_provider.load_private_key(private);
    let signing = signing.map_err(|error| format!("{}: {error}", key.display()))?;
    let certified = chain.first().and_then(|first| public_key(first));
    if let (Some(owned), Some(certified)) = (signing.public_key(), certified)
        && owned != certified
    {
        return Err(format!("{} is not the key to {}", key.display(), cert.display()));
    }
    Ok(Arc::new(CertifiedKey::new(chain, signing).into()))
}

/// The key in a certificate of any version. rustls reads version 3 only, but until version 3.2
/// `openssl x509 -req` made version 1, so that many servers have one.
fn public_key(certificate: &[u8]) -> Option<SubjectPublicKeyInfoDer<'static>> {
    let parsed = Certificate::from_der(certificate).ok()?;
    Some(parsed.tbs_certificate.subject_public_key_info.to_der().ok()?.into())
}

/// Whom to believe.
#[derive(Debug)]
struct Trust {
    roots: RootCertStore,
    /// The same certificates whole.
    trusted: Vec<CertificateDer<'static>>,
}

impl Trust {
    /// A certificate that is itself among the trusted ones needs no signature: the customary
    /// self-signed `server.crt`, copied to the client as its root. OpenSSL accepts it; webpki would
    /// not, because such a certificate says that it is an authority.
    fn accepts(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
        provider: &CryptoProvider,
    ) -> Result<(), rustls::Error> {
        if self.trusted.iter().any(|trusted| trusted == certificate) {
            return check_period(certificate, now);
        }
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            &self.roots,
            intermediates,
            now,
            provider.signature_verification_algorithms.all,
        )
    }
}

fn check_period(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), rustls::Error> {
    let parsed = Certificate::from_der(certificate)
        .map_err(|_| rustls::Error::from(CertificateError::BadEncoding))?;
    let period = &parsed.tbs_certificate.validity;
    let now = now.as_secs();
    if now < period.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now > period.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// Checks as much as `sslmode` asks for. That the server owns the key of its certificate is
/// checked always; the channel binding of SCRAM rests on it.
#[derive(Debug)]
struct Verifier {
    trust: Option<Trust>,
    check_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(trust) = &self.trust {
            trust.accepts(certificate, intermediates, now, &self.provider)?;
        }
        if self.check_name {
            verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        match (ParsedCertificate::try_from(certificate), public_key(certificate)) {
            (Err(_), Some(key)) => {
                verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
            }
            _ => verify_tls13_signature(message, certificate, signature, algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Missing from the table of the library.
const ECDSA_WITH_SHA_1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");

/// The `tls-server-end-point` of RFC 5929: the hash of the server's certificate by which SCRAM
/// makes sure that both sides see the same TLS session. `None` where the RFC defines none, as for
/// Ed25519.
pub(super) fn certificate_hash(certificate: &[u8]) -> Option<Vec<u8>> {
    let algorithm = Certificate::from_der(certificate).ok()?.signature_algorithm.oid;
    match algorithm {
        // MD5 and SHA-1 are too weak for this, says the RFC, and have SHA-256 stand in.
        rfc5912::MD_5_WITH_RSA_ENCRYPTION
        | rfc5912::SHA_1_WITH_RSA_ENCRYPTION
        | ECDSA_WITH_SHA_1
        | rfc5912::SHA_256_WITH_RSA_ENCRYPTION
        | rfc5912::ECDSA_WITH_SHA_256 => Some(Sha256::digest(certificate).to_vec()),
        rfc5912::SHA_384_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_384 => {
            Some(Sha384::digest(certificate).to_vec())
        }
        rfc5912::SHA_512_WITH_RSA_ENCRYPTION | rfc5912::ECDSA_WITH_SHA_512 => {
            Some(Sha512::digest(certificate).to_vec())
        }
        _ => None,
    }
}

/// A failed handshake in words that say what to change.
pub(super) fn explain(error: &io::Error, settings: &TlsSettings) -> String {
    let reason = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let Some(reason) = reason else { return format!("the handshake failed: {error}") };
    let rustls::Error::InvalidCertificate(flaw) = reason else { return reason.to_string() };
    let root = match &settings.root {
        Some(Root::File(path)) => path.display().to_string(),
        None | Some(Root::System) => "the system's trust store".to_owned(),
    };
    match flaw {
        CertificateError::UnknownIssuer => format!(
            "the server's certificate is signed by nobody in {root}; name the certificate of its \
             authority with sslrootcert"
        ),
        CertificateError::Other(OtherError(inner)) => match inner.to_string().as_str() {
            "CaUsedAsEndEntity" => format!(
                "the server's certificate is self-signed and not in {root}; name a copy of that \
                 very certificate with sslrootcert"
            ),
            "UnsupportedCertVersion" => "the server's certificate is of version 1, which cannot \
                be verified; have one made with subjectAltName"
                .to_owned(),
            other => format!("the server's certificate cannot be verified: {other}"),
        },
        _ => reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

    use super::*;

    /// 2030-01-01, within the period of rcgen's certificates.
    const NOW: u64 = 1_893_456_000;
    /// 5000-01-01, after it.
    const LATE: u64 = 95_617_584_000;

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn server(name: &str, issuer: &CertifiedIssuer<'_, KeyPair>) -> CertificateDer<'static> {
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
    }

    /// As `openssl req -x509` makes them: its own authority.
    fn self_signed(name: &str) -> CertificateDer<'static> {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    fn verifier(mode: SslMode, trusted: Option<&CertificateDer<'static>>) -> Verifier {
        let trust = trusted.map(|trusted| {
            let mut roots = RootCertStore::empty();
            roots.add(trusted.clone()).unwrap();
            Trust { roots, trusted: vec![trusted.clone()] }
        });
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Verifier { trust, check_name: mode == SslMode::VerifyFull, provider }
    }

    fn verdict(
        verifier: &Verifier,
        certificate: &CertificateDer<'_>,
        name: &str,
        now: u64,
    ) -> String {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now));
        match verifier.verify_server_cert(certificate, &[], &name, &[], now) {
            Ok(_) => "ok".to_owned(),
            Err(rustls::Error::InvalidCertificate(error)) => {
                format!("{error:?}").split([' ', '{', '(']).next().unwrap_or_default().to_owned()
            }
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn each_mode_checks_what_it_promises() {
        use SslMode::{Require, VerifyCa, VerifyFull};
        let (ours, theirs) = (authority("ours"), authority("theirs"));
        let db = server("db", &ours);
        let (ours, theirs) = (Some(ours.der()), Some(theirs.der()));
        for (mode, trusted, name, now, expected) in [
            (Require, None, "db", NOW, "ok"),
            (Require, None, "other", LATE, "ok"),
            (Require, ours, "other", NOW, "ok"),
            (Require, theirs, "db", NOW, "UnknownIssuer"),
            (VerifyCa, ours, "other", NOW, "ok"),
            (VerifyCa, theirs, "db", NOW, "UnknownIssuer"),
            (VerifyCa, ours, "db", LATE, "ExpiredContext"),
            (VerifyFull, ours, "db", NOW, "ok"),
            (VerifyFull, ours, "other", NOW, "NotValidForNameContext"),
            (VerifyFull, ours, "10.0.0.1", NOW, "NotValidForNameContext"),
            (VerifyFull, theirs, "db", NOW, "UnknownIssuer"),
        ] {
            let got = verdict(&verifier(mode, trusted), &db, name, now);
            assert_eq!(got, expected, "{mode} {name}");
        }
    }

    #[test]
    fn a_self_signed_certificate_is_its_own_root() {
        let (db, other) = (self_signed("db"), self_signed("db"));
        let full = verifier(SslMode::VerifyFull, Some(&db));
        assert_eq!(verdict(&full, &db, "db", NOW), "ok");
        assert_eq!(verdict(&full, &db, "elsewhere", NOW), "NotValidForNameContext");
        assert_eq!(verdict(&full, &db, "db", LATE), "Expired");
        assert_eq!(verdict(&full, &db, "db", 0), "NotValidYet");
        assert_ne!(verdict(&full, &other, "db", NOW), "ok");
    }

    #[test]
    fn the_hash_is_the_one_of_the_signature() {
        let der = self_signed("db");
        let signed_with = |oid: &str| {
            let mut certificate = Certificate::from_der(&der).unwrap();
            certificate.signature_algorithm.oid = ObjectIdentifier::new_unwrap(oid);
            let der = certificate.to_der().unwrap();
            (certificate_hash(&der), der)
        };
        for (sha256, name) in [
            ("1.2.840.113549.1.1.4", "md5WithRSAEncryption"),
            ("1.2.840.113549.1.1.5", "sha1WithRSAEncryption"),
            ("1.2.840.113549.1.1.11", "sha256WithRSAEncryption"),
            ("1.2.840.10045.4.1", "ecdsa-with-SHA1"),
            ("1.2.840.10045.4.3.2", "ecdsa-with-SHA256"),
        ] {
            let (hash, der) = signed_with(sha256);
            assert_eq!(hash, Some(Sha256::digest(der).to_vec()), "{name}");
        }
        for sha384 in ["1.2.840.113549.1.1.12", "1.2.840.10045.4.3.3"] {
            let (hash, der) = signed_with(sha384);
            assert_eq!(hash, Some(Sha384::digest(der).to_vec()));
        }
        for sha512 in ["1.2.840.113549.1.1.13", "1.2.840.10045.4.3.4"] {
            let (hash, der) = signed_with(sha512);
            assert_eq!(hash, Some(Sha512::digest(der).to_vec()));
        }
        assert_eq!(signed_with("1.3.101.112").0, None, "Ed25519");
        assert_eq!(certificate_hash(b"no certificate"), None);
    }

    #[test]
    fn modes_and_roots_go_together_as_in_libpq() {
        let new = |mode, root: Option<&str>| {
            let settings = TlsSettings::new(mode, root.map(str::to_owned), None, None);
            settings.map(|settings| settings.mode)
        };
        assert_eq!(new(None, None), Ok(SslMode::Prefer));
        assert_eq!(new(None, Some("/ca.pem")), Ok(SslMode::Prefer));
        assert_eq!(new(None, Some("system")), Ok(SslMode::VerifyFull));
        assert!(new(Some("require"), Some("system")).is_err());
        for mode in ["disable", "prefer", "require", "verify-ca", "verify-full"] {
            assert_eq!(new(Some(mode), None).map(|mode| mode.to_string()), Ok(mode.to_owned()));
        }
    }

    #[test]
    fn files_that_are_of_no_use_are_named() {
        let missing = TlsSettings {
            mode: SslMode::VerifyFull,
            root: Some(Root::File("/nowhere/ca.pem".into())),
            client: None,
        };
        assert!(missing.load().unwrap_err().starts_with("/nowhere/ca.pem: "));
        let empty = TlsSettings { root: Some(Root::File("/dev/null".into())), ..missing };
        assert!(empty.load().unwrap_err().contains("/dev/null: holds no certificate"));
        let client = Some(("/dev/null".into(), "/dev/null".into()));
        let client = TlsSettings { mode: SslMode::Require, root: None, client };
        assert!(client.load().unwrap_err().contains("/dev/null: holds no certificate"));
    }
}
