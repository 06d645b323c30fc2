//! Proving who we are: trust, password, md5, SCRAM-SHA-256 with and without channel binding.

use bytes::{Buf, Bytes};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    self, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};
use postgres_protocol::message::backend::{AUTHENTICATION_TAG, ERROR_RESPONSE_TAG};
use postgres_protocol::message::frontend;
use tokio_postgres::config::ChannelBinding;

use super::conninfo::Conninfo;
use super::dialogue::{Dialogue, Transport};
use super::error::ConnectError;

/// The kinds of `AuthenticationRequest`.
const OK: i32 = 0;
const CLEARTEXT: i32 = 3;
const MD5: i32 = 5;
const SASL: i32 = 10;
const SASL_CONTINUE: i32 = 11;
const SASL_FINAL: i32 = 12;

/// Answers the server until it is content. `certificate_hash` is what the TLS session has for
/// channel binding.
pub(super) async fn authenticate<S: Transport>(
    dialogue: &mut Dialogue<S>,
    conninfo: &Conninfo,
    certificate_hash: Option<Vec<u8>>,
) -> Result<(), ConnectError> {
    let (kind, mut body) = request(dialogue).await?;
    if kind == SASL {
        scram(dialogue, conninfo, certificate_hash, &body).await?;
        return expect(dialogue, OK).await.map(|_| ());
    }
    if conninfo.channel_binding == ChannelBinding::Require {
        return Err(unbound(dialogue));
    }
    match kind {
        OK => return Ok(()),
        CLEARTEXT => {
            let password = password(dialogue, conninfo, "password")?;
            dialogue.send(|out| frontend::password_message(password, out)).await?;
        }
        MD5 => {
            let mut salt = [0; 4];
            body.try_copy_to_slice(&mut salt).map_err(|_| dialogue.garbled("md5 without salt"))?;
            let password = password(dialogue, conninfo, "md5")?;
            let hash = md5_hash(conninfo.user().as_bytes(), password, salt);
            dialogue.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
        }
        other => return Err(unknown_method(dialogue, other)),
    }
    expect(dialogue, OK).await.map(|_| ())
}

/// The exchange of RFC 5802, in which the server proves too that it knows the password.
async fn scram<S: Transport>(
    dialogue: &mut Dialogue<S>,
    conninfo: &Conninfo,
    certificate_hash: Option<Vec<u8>>,
    offered: &[u8],
) -> Result<(), ConnectError> {
    let (mechanism, binding) = mechanism(dialogue, conninfo, certificate_hash, offered)?;
    let password = password(dialogue, conninfo, mechanism)?;
    let mut scram = ScramSha256::new(password, binding);
    dialogue.send(|out| frontend::sasl_initial_response(mechanism, scram.message(), out)).await?;

    let challenge = expect(dialogue, SASL_CONTINUE).await?;
    scram.update(&challenge).map_err(|error| dialogue.denied(&error.to_string()))?;
    dialogue.send(|out| frontend::sasl_response(scram.message(), out)).await?;

    let proof = expect(dialogue, SASL_FINAL).await?;
    scram.finish(&proof).map_err(|error| {
        dialogue.denied(&format!("the server does not prove that it knows the password: {error}"))
    })
}

/// Chooses the mechanism, and the flag by which the server notices a downgrade: `y`, "I could
/// bind, but you do not offer it", or `n`, "I cannot".
fn mechanism<S>(
    dialogue: &Dialogue<S>,
    conninfo: &Conninfo,
    certificate_hash: Option<Vec<u8>>,
    offered: &[u8],
) -> Result<(&'static str, sasl::ChannelBinding), ConnectError> {
    let offers = |name: &str| offered.split(|byte| *byte == 0).any(|one| one == name.as_bytes());
    let certificate_hash =
        certificate_hash.filter(|_| conninfo.channel_binding != ChannelBinding::Disable);
    match certificate_hash {
        Some(hash) if offers(SCRAM_SHA_256_PLUS) => {
            Ok((SCRAM_SHA_256_PLUS, sasl::ChannelBinding::tls_server_end_point(hash)))
        }
        _ if conninfo.channel_binding == ChannelBinding::Require => Err(unbound(dialogue)),
        Some(_) if offers(SCRAM_SHA_256) => {
            Ok((SCRAM_SHA_256, sasl::ChannelBinding::unrequested()))
        }
        None if offers(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, sasl::ChannelBinding::unsupported())),
        _ => {
            let names = String::from_utf8_lossy(offered.get(..100).unwrap_or(offered));
            Err(unsupported(dialogue, names.replace('\0', " ").trim()))
        }
    }
}

/// The next request of the server.
async fn request<S: Transport>(dialogue: &mut Dialogue<S>) -> Result<(i32, Bytes), ConnectError> {
    let mut frame = dialogue.read().await?;
    match frame.tag {
        AUTHENTICATION_TAG => {
            let kind = frame.body.try_get_i32();
            let kind = kind.map_err(|_| dialogue.garbled("an empty authentication request"))?;
            Ok((kind, frame.body))
        }
        ERROR_RESPONSE_TAG => Err(dialogue.refused(&frame.body)),
        _ => Err(dialogue.unexpected(&frame)),
    }
}

/// The next request, which has to be of this kind: a server that says `OK` in the middle of SCRAM
/// has not proved that it knows the password.
async fn expect<S: Transport>(
    dialogue: &mut Dialogue<S>,
    expected: i32,
) -> Result<Bytes, ConnectError> {
    match request(dialogue).await? {
        (kind, body) if kind == expected => Ok(body),
        (kind, _) => {
            let what = format!("authentication request {kind} in place of {expected}");
            Err(dialogue.garbled(&what))
        }
    }
}

fn password<'a, S>(
    dialogue: &Dialogue<S>,
    conninfo: &'a Conninfo,
    method: &str,
) -> Result<&'a [u8], ConnectError> {
    let password = conninfo.password.as_ref().map(|password| password.0.as_slice());
    password.filter(|password| !password.is_empty()).ok_or_else(|| {
        let advice = "set postgres.password_file or postgres.password_env";
        let user = conninfo.user();
        dialogue.denied(&format!("user {user:?} needs a password (method {method}); {advice}"))
    })
}

fn unknown_method<S>(dialogue: &Dialogue<S>, kind: i32) -> ConnectError {
    match kind {
        2 => unsupported(dialogue, "Kerberos V5"),
        6 => unsupported(dialogue, "SCM credentials"),
        7 => unsupported(dialogue, "GSSAPI"),
        9 => unsupported(dialogue, "SSPI"),
        SASL_CONTINUE | SASL_FINAL | 8 => {
            dialogue.garbled(&format!("authentication request {kind} out of turn"))
        }
        _ => unsupported(dialogue, &format!("number {kind}")),
    }
}

fn unsupported<S>(dialogue: &Dialogue<S>, method: &str) -> ConnectError {
    let advice = "give the user a line with scram-sha-256 (or cert, md5, trust) in pg_hba.conf";
    dialogue.denied(&format!("the server asks for {method}, which is not supported; {advice}"))
}

fn unbound<S>(dialogue: &Dialogue<S>) -> ConnectError {
    let reason = "channel_binding=require, but this session cannot be bound: it takes TLS, \
                  scram-sha-256 in pg_hba.conf and a certificate signed with RSA or ECDSA";
    dialogue.denied(reason)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const WITH: &str = "postgres://md5_user:password@db/app";
    const WITHOUT: &str = "postgres://md5_user@db/app";

    /// A message with its length.
    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag], &length.to_be_bytes()[..], body].concat()
    }

    fn asks(kind: i32, rest: &[u8]) -> Vec<u8> {
        message(AUTHENTICATION_TAG, &[&kind.to_be_bytes()[..], rest].concat())
    }

    /// What comes of a server that says just this and hangs up, and what it was told.
    async fn converse(
        url: &str,
        server: &[Vec<u8>],
        hash: Option<&[u8]>,
    ) -> (Result<(), String>, Vec<u8>) {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(&server.concat()).await.unwrap();
        theirs.shutdown().await.unwrap();
        let mut dialogue = Dialogue::new(ours, "db:5432".to_owned());
        let conninfo = Conninfo::parse(url).unwrap();
        let outcome = authenticate(&mut dialogue, &conninfo, hash.map(<[u8]>::to_vec)).await;
        drop(dialogue);
        let mut told = Vec::new();
        theirs.read_to_end(&mut told).await.unwrap();
        (outcome.map_err(|error| error.to_string()), told)
    }

    #[tokio::test]
    async fn trust_asks_for_nothing() {
        let (outcome, told) = converse(WITHOUT, &[asks(OK, b"")], None).await;
        assert_eq!((outcome, told), (Ok(()), vec![]));
    }

    #[tokio::test]
    async fn cleartext_is_sent_as_it_is() {
        let (outcome, told) = converse(WITH, &[asks(CLEARTEXT, b""), asks(OK, b"")], None).await;
        assert_eq!((outcome, told), (Ok(()), message(b'p', b"password\0")));
    }

    #[tokio::test]
    async fn md5_is_salted() {
        let server = [asks(MD5, &[0x2a, 0x3d, 0x8f, 0xe0]), asks(OK, b"")];
        let (outcome, told) = converse(WITH, &server, None).await;
        assert_eq!(outcome, Ok(()));
        assert_eq!(told, message(b'p', b"md562af4dd09bbb41884907a838a3233294\0"));
    }

    #[tokio::test]
    async fn a_missing_password_is_said_before_anything_is_sent() {
        for request in [asks(CLEARTEXT, b""), asks(MD5, b"salt"), asks(SASL, b"SCRAM-SHA-256\0\0")]
        {
            let (outcome, told) = converse(WITHOUT, &[request], None).await;
            let error = outcome.unwrap_err();
            assert!(error.contains("set postgres.password_file"), "{error}");
            assert!(told.is_empty());
        }
    }

    #[tokio::test]
    async fn a_method_that_is_not_supported_is_named() {
        for (request, name) in [
            (asks(7, b""), "GSSAPI"),
            (asks(9, b""), "SSPI"),
            (asks(99, b""), "number 99"),
            (asks(SASL, b"OAUTHBEARER\0\0"), "OAUTHBEARER"),
        ] {
            let (outcome, _) = converse(WITH, &[request], None).await;
            let error = outcome.unwrap_err();
            assert!(error.contains(&format!("asks for {name},")), "{error}");
        }
    }

    #[tokio::test]
    async fn scram_says_whether_it_could_bind() {
        const BOTH: &[u8] = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        const PLAIN: &[u8] = b"SCRAM-SHA-256\0\0";
        let hash: Option<&[u8]> = Some(b"hash");
        let disable = &format!("{WITH}?channel_binding=disable");
        let bound = "SCRAM-SHA-256-PLUS\0....p=tls-server-end-point,,n=,r=";
        for (url, offered, hash, expected) in [
            (WITH, BOTH, hash, bound),
            (WITH, PLAIN, hash, "SCRAM-SHA-256\0....y,,n=,r="),
            (WITH, PLAIN, None, "SCRAM-SHA-256\0....n,,n=,r="),
            (WITH, BOTH, None, "SCRAM-SHA-256\0....n,,n=,r="),
            (disable, BOTH, hash, "SCRAM-SHA-256\0....n,,n=,r="),
        ] {
            let (_, told) = converse(url, &[asks(SASL, offered)], hash).await;
            let mechanism_len = expected.find('\0').unwrap() + 1;
            let (mechanism, rest) = told[5..].split_at(mechanism_len);
            assert_eq!(mechanism, &expected.as_bytes()[..mechanism_len]);
            let flags = &expected.as_bytes()[mechanism_len + 4..];
            assert_eq!(&rest[4..4 + flags.len()], flags);
        }
    }

    #[tokio::test]
    async fn a_session_that_must_be_bound_is_not_opened_otherwise() {
        let url = &format!("{WITH}?channel_binding=require");
        for (request, hash) in [
            (asks(OK, b""), Some(&b"hash"[..])),
            (asks(CLEARTEXT, b""), Some(b"hash")),
            (asks(SASL, b"SCRAM-SHA-256\0\0"), Some(b"hash")),
            (asks(SASL, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"), None),
        ] {
            let (outcome, told) = converse(url, &[request], hash).await;
            let error = outcome.unwrap_err();
            assert!(error.contains("channel_binding=require"), "{error}");
            assert!(told.is_empty());
        }
    }

    #[tokio::test]
    async fn a_server_that_skips_its_part_of_scram_is_refused() {
        let scram = || asks(SASL, b"SCRAM-SHA-256\0\0");
        let (outcome, _) = converse(WITH, &[scram(), asks(OK, b"")], None).await;
        assert!(outcome.unwrap_err().contains("request 0 in place of 11"));
        let forged = asks(SASL_CONTINUE, b"r=other,s=c2FsdA==,i=4096");
        let (outcome, _) = converse(WITH, &[scram(), forged], None).await;
        assert!(outcome.unwrap_err().contains("invalid nonce"));
    }

    #[tokio::test]
    async fn the_servers_refusal_is_handed_on() {
        let refusal = message(ERROR_RESPONSE_TAG, b"VFATAL\0C28000\0Mno entry\0\0");
        let warning = message(b'N', b"VWARNING\0C01000\0Mold\0\0");
        let (outcome, _) = converse(WITH, &[warning, refusal], None).await;
        assert_eq!(
            outcome.unwrap_err(),
            "db:5432: FATAL 28000: no entry; let the role in with a line of pg_hba.conf for this \
             database (one for \"replication\" does not count)"
        );
    }

    #[tokio::test]
    async fn every_prefix_of_a_conversation_ends_in_an_error() {
        let whole = [asks(MD5, b"salt"), asks(OK, b"")].concat();
        for end in 0..whole.len() {
            let (outcome, _) = converse(WITH, &[whole[..end].to_vec()], None).await;
            let error = outcome.unwrap_err();
            assert!(error.contains("closed the connection"), "{end}: {error}");
        }
    }
}
