//! E-mail addresses of people. They are personal data: nothing shows or logs one.

use std::fmt;

/// The most bytes of an address: <https://www.rfc-editor.org/errata/eid1690>
pub(crate) const MAX_ADDRESS_BYTES: usize = 254;
/// The most addresses of a group. SES takes 50 a message.
pub(crate) const MAX_ADDRESSES: usize = 10;

/// An address such as `a@example.com`, of ASCII.
#[derive(Clone, PartialEq, Eq)]
pub struct MailAddress(String);

/// Hides it: errors and logs may hold what has one.
impl fmt::Debug for MailAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("MailAddress(…)")
    }
}

impl MailAddress {
    /// `None` for what is no plain address: a name beside it, a list, quotes, or anything that would be another header.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (local, domain) = text.split_once('@')?;
        let is_plain = |character: char| character.is_ascii_graphic() && !"\"(),:;<>@[\\]".contains(character);
        let are_plain = |part: &str| !part.is_empty() && part.chars().all(is_plain);
        let fits = text.len() <= MAX_ADDRESS_BYTES && are_plain(local) && are_plain(domain);
        fits.then(|| Self(text.to_owned()))
    }

    /// For SES alone.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("a@example.com", true)]
    #[case("on-call+prod@mail.example.com", true)]
    #[case("", false)]
    #[case("a", false)]
    #[case("@example.com", false)]
    #[case("a@", false)]
    #[case("a@b@example.com", false)]
    #[case("a@example.com,b@example.com", false)]
    #[case("A <a@example.com>", false)]
    #[case("a@example.com\r\nBcc: b@example.com", false)]
    #[case("ä@example.com", false)]
    fn only_plain_addresses_are_taken(#[case] text: &str, #[case] is_taken: bool) {
        assert_eq!(MailAddress::parse(text).is_some(), is_taken);
    }

    #[rstest]
    #[case(MAX_ADDRESS_BYTES, true)]
    #[case(MAX_ADDRESS_BYTES + 1, false)]
    fn an_address_has_at_most_254_bytes(#[case] bytes: usize, #[case] is_taken: bool) {
        let address = format!("{}@example.com", "a".repeat(bytes - "@example.com".len()));
        assert_eq!(MailAddress::parse(&address).is_some(), is_taken);
    }

    #[test]
    fn debug_text_hides_it() {
        assert!(!format!("{:?}", MailAddress::parse("secret@example.com")).contains("secret"));
    }
}
