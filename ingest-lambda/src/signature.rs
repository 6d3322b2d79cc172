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

/// The headers that a signature adds, beside the session token if there is one.
pub struct Signature {
    /// `x-amz-date`
    pub date: String,
    /// `authorization`
    pub authorization: String,
}

impl Signer {
    #[must_use]
    pub fn new(credentials: Credentials, region: String, service: &'static str) -> Self {
        Self { credentials, region, service, key: Mutex::default() }
    }

    /// The signature of a POST to `/` at a time, with a body and with headers, to which those that the signature adds
    /// come. Names are in lower case, values without white space at their ends.
    #[must_use]
    pub fn sign(&self, at: UnixMillis, headers: &[(&str, &str)], body: &[u8]) -> Signature {
        let date = amz_date(at);
        let day = &date[..8];
        let token = self.credentials.session_token().map(|token| ("x-amz-security-token", token));
        let mut headers: Vec<(&str, &str)> =
            headers.iter().copied().chain([("x-amz-date", &*date)]).chain(token).collect();
        headers.sort_unstable();
        let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
        let scope = format!("{day}/{}/{}/aws4_request", self.region, self.service);
        let request = hex::encode(canonical_request(&headers, &names, body));
        let to_sign = format!("{ALGORITHM}\n{date}\n{scope}\n{request}");
        let signature = self.with_key(at, day, |key| calculate_signature(key, to_sign.as_bytes()));
        let access_key = self.credentials.access_key_id();
        let authorization =
            format!("{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signature}");
        Signature { date, authorization }
    }

    fn with_key(&self, at: UnixMillis, day: &str, use_key: impl FnOnce(&[u8]) -> String) -> String {
        let mut kept = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        let today_s = kept.take().filter(|kept| kept.day == day);
        use_key(&kept.insert(today_s.unwrap_or_else(|| self.day_key(at, day))).key)
    }

    fn day_key(&self, at: UnixMillis, day: &str) -> DayKey {
        let time = SystemTime::UNIX_EPOCH + Duration::from_millis(at.0.unsigned_abs());
        let key = generate_signing_key(self.credentials.secret_access_key(), time, &self.region, self.service);
        DayKey { day: day.to_owned(), key: key.as_ref().to_vec() }
    }
}

/// `20261121T093208Z`
fn amz_date(at: UnixMillis) -> String {
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
    use proptest::prelude::*;

    /// The `authorization` that the SDK's own signer makes for the same request.
    pub(crate) fn sdk_s(
        credentials: &Credentials,
        at: UnixMillis,
        uri: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> String {
        let identity = credentials.clone().into();
        let params = aws_sigv4::sign::v4::SigningParams::builder()
            .identity(&identity)
            .region("eu-central-1")
            .name("kinesis")
            .time(SystemTime::UNIX_EPOCH + Duration::from_millis(at.0.unsigned_abs()))
            .settings(SigningSettings::default())
            .build()
            .unwrap()
            .into();
        let request = SignableRequest::new("POST", uri, headers.iter().copied(), SignableBody::Bytes(body)).unwrap();
        let (instructions, _) = sign(request, &params).unwrap().into_parts();
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
            host in "[a-z0-9-]{1,20}(\\.[a-z]{2,8}){1,3}(:[1-9][0-9]{3})?",
            body in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let credentials = Credentials::new("AKIDEXAMPLE", secret, token, None, "test");
            let signer = Signer::new(credentials.clone(), "eu-central-1".into(), "kinesis");
            let own = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", "Kinesis_20131202.PutRecords")];
            let headers = [own[0], ("host", &*host), own[1]];
            for at in times.iter().flat_map(|at| [UnixMillis(*at), UnixMillis(*at + 1)]) {
                let expected = sdk_s(&credentials, at, &format!("https://{host}/"), &own, &body);
                prop_assert_eq!(signer.sign(at, &headers, &body).authorization, expected);
            }
        }
    }
}
