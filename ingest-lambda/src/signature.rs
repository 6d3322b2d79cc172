//! AWS's signature of the one kind of request that is sent for each POST: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>
//!
//! The SDK's signer takes any request, sorts and encodes what this one has sorted and needs no encoding for, and derives the
//! day's key anew each time. Here the key is kept for its day. Keys and signatures are computed by the SDK's own functions.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::sign::v4::{calculate_signature, generate_signing_key};
use sha2::{Digest, Sha256};
use shared::timestamp::UnixMillis;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// Signs requests to one service in one region.
#[derive(Debug)]
pub struct Signer {
    credentials: Credentials,
    region: String,
    service: &'static str,
    key: Mutex<Option<DayKey>>,
}

/// The key of a day, of all that is signed on it.
struct DayKey {
    day: String,
    key: Vec<u8>,
}

impl std::fmt::Debug for DayKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "DayKey({}, …)", self.day)
    }
}

impl Signer {
    #[must_use]
    pub fn new(credentials: Credentials, region: String, service: &'static str) -> Self {
        Self { credentials, region, service, key: Mutex::default() }
    }

    /// The `x-amz-security-token` of each request, which is to be among the headers that are signed.
    #[must_use]
    pub fn session_token(&self) -> Option<&str> {
        self.credentials.session_token()
    }

    /// The `authorization` of a POST to `/` with these headers and body. Names are in lower case and in order, values
    /// without white space at their ends; the host and [`amz_date`] of this time are among them.
    #[must_use]
    pub fn authorization(&self, at: UnixMillis, headers: &[(&str, &str)], body: &[u8]) -> String {
        let date = amz_date(at);
        let day = &date[..8];
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let request = hex::encode(canonical_request(headers, &names, body));
        let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{request}");
        let signature = self.with_key(at, day, |key| calculate_signature(key, to_sign.as_bytes()));
        let access_key = self.credentials.access_key_id();
        format!("{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}")
    }

    fn with_key(&self, at: UnixMillis, day: &str, use_key: impl FnOnce(&[u8]) -> String) -> String {
        let mut kept = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.as_ref().is_none_or(|kept| kept.day != day) {
            let secret = self.credentials.secret_access_key();
            let key = generate_signing_key(secret, system_time(at), &self.region, self.service);
            *kept = Some(DayKey { day: day.to_owned(), key: key.as_ref().to_vec() });
        }
        use_key(kept.as_ref().map_or(&[], |kept| &kept.key))
    }
}

/// `20261121T093208Z`
#[must_use]
pub fn amz_date(at: UnixMillis) -> String {
    let mut date: String =
        at.rfc3339().chars().take_while(|sign| *sign != '.').filter(|sign| !"-:".contains(*sign)).collect();
    date.push('Z');
    date
}

/// The digest of the request in its canonical form, which is never put together.
fn canonical_request(headers: &[(&str, &str)], names: &str, body: &[u8]) -> [u8; 32] {
    let mut request = Sha256::new();
    request.update("POST\n/\n\n");
    for (name, value) in headers {
        for piece in [name, ":", value, "\n"] {
            request.update(piece);
        }
    }
    for piece in ["\n", names, "\n", &hex::encode(Sha256::digest(body))] {
        request.update(piece);
    }
    request.finalize().into()
}

fn system_time(at: UnixMillis) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(at.0.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use proptest::prelude::*;

    /// What the SDK's own signer makes of the same request.
    fn sdk_s(credentials: &Credentials, at: UnixMillis, headers: &[(&str, &str)], host: &str, body: &[u8]) -> String {
        let identity = credentials.clone().into();
        let params = aws_sigv4::sign::v4::SigningParams::builder()
            .identity(&identity)
            .region("eu-central-1")
            .name("kinesis")
            .time(system_time(at))
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        // These it adds itself.
        let given = headers.iter().filter(|(name, _)| !["host", "x-amz-date", "x-amz-security-token"].contains(name));
        let request =
            SignableRequest::new("POST", format!("https://{host}/"), given.copied(), SignableBody::Bytes(body));
        let (instructions, _) = sign(request.unwrap(), &params).unwrap().into_parts();
        let authorization = instructions.headers().find(|(name, _)| *name == "authorization");
        authorization.unwrap().1.to_owned()
    }

    proptest! {
        #[test]
        fn signatures_are_the_sdk_s(
            // The years 1970 to 9999.
            times in prop::collection::vec(0..UnixMillis::LATEST.0, 1..4),
            secret in "[A-Za-z0-9/+]{1,60}",
            token in prop::option::of("[A-Za-z0-9/+=]{1,400}"),
            host in "[a-z0-9-]{1,20}(\\.[a-z]{2,8}){1,3}(:[1-9][0-9]{1,3})?",
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            prop_assume!(!host.ends_with(":443"));
            let credentials = Credentials::new("AKIDEXAMPLE", secret, token, None, "test");
            let signer = Signer::new(credentials.clone(), "eu-central-1".into(), "kinesis");
            for at in times.iter().flat_map(|at| [UnixMillis(*at), UnixMillis(*at + 1)]) {
                let date = amz_date(at);
                let mut headers = vec![("content-type", "application/x-amz-json-1.1"), ("host", &*host), ("x-amz-date", &*date)];
                headers.extend(signer.session_token().map(|token| ("x-amz-security-token", token)));
                headers.push(("x-amz-target", "Kinesis_20131202.PutRecords"));
                let expected = sdk_s(&credentials, at, &headers, &host, &body);
                prop_assert_eq!(signer.authorization(at, &headers, &body), expected);
            }
        }
    }

    #[test]
    fn keys_are_in_no_debug_output() {
        let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
        let signer = Signer::new(credentials, "eu-central-1".into(), "kinesis");
        let authorization = signer.authorization(UnixMillis(1_795_253_528_006), &[], b"");
        assert!(!authorization.contains("secret"));
        let shown = format!("{signer:?}");
        assert!(shown.contains("DayKey(20261121, …)") && !shown.contains("\"secret\""), "{shown}");
    }
}
