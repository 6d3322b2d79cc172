//! The address of a webhook.

use std::net::IpAddr;

use http::Uri;

/// A webhook's address, which is a secret: whoever has it can post. It is in no log and no error.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookUrl(Uri);

/// An address that can't be posted to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    #[error("it is not a URL")]
    NotAUrl,
    #[error("it must begin with https://; http:// works for this machine only")]
    NotEncrypted,
}

impl std::fmt::Debug for WebhookUrl {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("WebhookUrl(…)")
    }
}

impl WebhookUrl {
    /// # Errors
    ///
    /// When it is not an absolute URL, or unencrypted and not on this machine.
    pub fn parse(text: &str) -> Result<Self, WebhookError> {
        let uri: Uri = text.parse().map_err(|_| WebhookError::NotAUrl)?;
        let host = uri.host().ok_or(WebhookError::NotAUrl)?;
        match uri.scheme_str() {
            Some("https") => Ok(Self(uri)),
            Some("http") if is_loopback(host) => Ok(Self(uri)),
            Some("http") => Err(WebhookError::NotEncrypted),
            _ => Err(WebhookError::NotAUrl),
        }
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.0
    }
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("https://hooks.example.com/services/T0/B0/x", None)]
    #[case("http://127.0.0.1:8080/x", None)]
    #[case("http://[::1]:8080/x", None)]
    #[case("http://localhost/x", None)]
    #[case("http://hooks.example.com/x", Some(WebhookError::NotEncrypted))]
    #[case("http://127.0.0.1.example.com/x", Some(WebhookError::NotEncrypted))]
    #[case("ftp://hooks.example.com/x", Some(WebhookError::NotAUrl))]
    #[case("/x", Some(WebhookError::NotAUrl))]
    #[case("not a url", Some(WebhookError::NotAUrl))]
    fn unencrypted_webhooks_must_be_on_this_machine(#[case] url: &str, #[case] error: Option<WebhookError>) {
        assert_eq!(WebhookUrl::parse(url).err(), error);
    }

    #[test]
    fn debug_output_contains_no_address() {
        let url = WebhookUrl::parse("https://hooks.example.com/secret").unwrap();
        assert_eq!(format!("{url:?}"), "WebhookUrl(…)");
    }
}
