//! Listings in pages: keys in the order of their bytes, what a delimiter folds counted once.
//! <https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html>

use std::ops::Bound;

use crate::S3Error;
use crate::bucket::{Bucket, Object};
use crate::content::Content;

/// Keys and prefixes on a page.
pub const MAX_KEYS: usize = 1_000;

/// What is asked of a listing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List<'a> {
    pub prefix: &'a str,
    /// Keys that have it after the prefix are folded into one common prefix, which ends with it. An empty one is none.
    pub delimiter: Option<&'a str>,
    /// Only keys and common prefixes after this text.
    pub start_after: Option<&'a str>,
    /// Where an earlier page ended; `start_after` says nothing then.
    pub continuation_token: Option<&'a str>,
    /// More than [`MAX_KEYS`] are as many.
    pub max_keys: usize,
}

impl Default for List<'_> {
    fn default() -> Self {
        Self { prefix: "", delimiter: None, start_after: None, continuation_token: None, max_keys: MAX_KEYS }
    }
}

/// A page of a listing.
#[derive(Debug)]
pub struct Page<'b, C> {
    pub objects: Vec<(&'b str, &'b Object<C>)>,
    pub common_prefixes: Vec<String>,
    /// The last key or common prefix, when there are more: a listing that starts after it goes on.
    pub truncated_at: Option<String>,
}

impl<C> Page<'_, C> {
    /// Where the next page goes on, for those who send it back; no key to read.
    #[must_use]
    pub fn next_continuation_token(&self) -> Option<String> {
        self.truncated_at.as_ref().map(hex::encode)
    }
}

impl<C: Content> Bucket<C> {
    /// `ListObjectsV2`.
    ///
    /// # Errors
    ///
    /// When the continuation token is none.
    pub fn list(&self, list: &List<'_>) -> Result<Page<'_, C>, S3Error> {
        let after = match list.continuation_token {
            Some(token) => Some(position_in(token)?),
            None => list.start_after.map(str::to_owned),
        };
        let limit = list.max_keys.min(MAX_KEYS);
        let mut page = Page { objects: Vec::new(), common_prefixes: Vec::new(), truncated_at: None };
        let (mut last, mut next) = (None, self.first_from(list, after.as_deref()));
        while let Some((key, object)) = next {
            if page.objects.len() + page.common_prefixes.len() == limit {
                page.truncated_at = last;
                break;
            }
            let folded = common_prefix(key, list);
            last = Some(folded.unwrap_or(key).to_owned());
            match folded {
                Some(prefix) => page.common_prefixes.push(prefix.to_owned()),
                None => page.objects.push((key, object)),
            }
            next = self.first_from(list, last.as_deref());
        }
        Ok(page)
    }

    /// The first key that a listing shows after some text, be it by itself or in a common prefix. That is shown only if it
    /// is itself after the text.
    fn first_from(&self, list: &List<'_>, after: Option<&str>) -> Option<(&str, &Object<C>)> {
        let after_prefix = after.filter(|after| *after >= list.prefix);
        let start = after_prefix.map_or(Bound::Included(list.prefix), Bound::Excluded);
        let (key, object) = self.objects.range::<str, _>((start, Bound::Unbounded)).next()?;
        if !key.starts_with(list.prefix) {
            return None;
        }
        let shown_already = common_prefix(key, list).filter(|prefix| after.is_some_and(|after| *prefix <= after));
        let Some(prefix) = shown_already else { return Some((key, object)) };
        let after = Bound::Included(after_all(prefix)?);
        let (key, object) = self.objects.range((after, Bound::Unbounded)).next()?;
        key.starts_with(list.prefix).then_some((key.as_str(), object))
    }
}

fn common_prefix<'k>(key: &'k str, list: &List<'_>) -> Option<&'k str> {
    let delimiter = list.delimiter.filter(|delimiter| !delimiter.is_empty())?;
    let at = key.get(list.prefix.len()..)?.find(delimiter)?;
    key.get(..list.prefix.len() + at + delimiter.len())
}

/// The least text that is greater than all that begin with this; `None` when there is none.
fn after_all(prefix: &str) -> Option<String> {
    let mut text = prefix.to_owned();
    while let Some(last) = text.pop() {
        // Surrogates are not characters.
        let next = (u32::from(last) + 1..=u32::from(char::MAX)).find_map(char::from_u32);
        if let Some(next) = next {
            text.push(next);
            return Some(text);
        }
    }
    None
}

fn position_in(token: &str) -> Result<String, S3Error> {
    let position = hex::decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    position.ok_or(S3Error::InvalidArgument("The continuation token provided is incorrect"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::Condition;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn bucket<K: AsRef<str>>(keys: impl IntoIterator<Item = K>) -> Bucket {
        let mut bucket: Bucket = Bucket::default();
        keys.into_iter().for_each(|key| drop(bucket.put(0, key.as_ref(), "".into(), Condition::None).unwrap()));
        bucket
    }

    /// Keys, and common prefixes with a star, each in order.
    fn shown(page: &Page<'_, impl Content>) -> Vec<String> {
        let keys = page.objects.iter().map(|(key, _)| (*key).to_owned());
        keys.chain(page.common_prefixes.iter().map(|prefix| format!("{prefix}*"))).collect()
    }

    fn listed(bucket: &Bucket, list: List<'_>) -> Vec<String> {
        shown(&bucket.list(&list).unwrap())
    }

    #[test]
    fn keys_come_in_the_order_of_their_bytes() {
        let bucket = bucket(["b", "a/b", "B", "a", "a/", "ﬁ", "😀", "é", "a0", "a.b"]);
        assert_eq!(listed(&bucket, List::default()), ["B", "a", "a.b", "a/", "a/b", "a0", "b", "é", "ﬁ", "😀"]);
    }

    #[test]
    fn a_delimiter_folds_what_follows_it() {
        let bucket = bucket(["a", "a/", "a/1", "a/b/2", "ab", "b//c"]);
        let by = |prefix, delimiter| listed(&bucket, List { prefix, delimiter: Some(delimiter), ..List::default() });
        assert_eq!(by("", "/"), ["a", "ab", "a/*", "b/*"]);
        assert_eq!(by("a/", "/"), ["a/", "a/1", "a/b/*"]);
        assert_eq!(by("b/", "/"), ["b//*"]);
        assert_eq!(by("a", "b"), ["a", "a/", "a/1", "a/b*", "ab*"]);
        assert_eq!(by("c", "/"), [""; 0]);
        assert_eq!(by("", "").len(), 6);
    }

    #[test]
    fn a_common_prefix_is_shown_only_if_it_is_itself_after_the_start() {
        let bucket = bucket(["a/1", "a/2", "b"]);
        let after = |start| listed(&bucket, List { delimiter: Some("/"), start_after: Some(start), ..List::default() });
        assert_eq!(after("a"), ["b", "a/*"]);
        assert_eq!(after("a/"), ["b"]);
        assert_eq!(after("a/1"), ["b"]);
        assert_eq!(listed(&bucket, List { start_after: Some("a/1"), ..List::default() }), ["a/2", "b"]);
    }

    #[test]
    fn a_page_has_at_most_a_thousand_keys_and_a_page_of_none_has_no_next() {
        let bucket = bucket((0..1_001).map(|number| number.to_string()));
        let page = bucket.list(&List { max_keys: 5_000, ..List::default() }).unwrap();
        assert_eq!((page.objects.len(), page.truncated_at.as_deref()), (1_000, Some("998")));
        let page = bucket.list(&List { max_keys: 0, ..List::default() }).unwrap();
        assert_eq!((page.objects.len(), page.truncated_at), (0, None));
    }

    #[test]
    fn a_token_that_is_none_is_refused() {
        for token in ["a", "ff", "zz"] {
            let error = bucket(["a"]).list(&List { continuation_token: Some(token), ..List::default() }).err();
            assert_eq!(error.map(S3Error::code), Some("InvalidArgument"), "{token}");
        }
    }

    #[test]
    fn the_least_text_behind_a_prefix_skips_what_is_no_character() {
        assert_eq!(after_all("a/"), Some("a0".into()));
        assert_eq!(after_all("\u{d7ff}"), Some("\u{e000}".into()));
        assert_eq!(after_all("a\u{10ffff}"), Some("b".into()));
        assert_eq!(after_all("\u{10ffff}"), None);
    }

    /// The documentation, word by word and as slow as may be.
    fn reference(keys: &BTreeSet<String>, list: &List<'_>) -> Vec<String> {
        let (mut objects, mut prefixes) = (Vec::new(), BTreeSet::new());
        for key in keys.iter().filter(|key| key.starts_with(list.prefix)) {
            let rest = &key[list.prefix.len()..];
            let folded = list.delimiter.filter(|delimiter| !delimiter.is_empty()).and_then(|delimiter| {
                rest.split_once(delimiter).map(|(before, _)| format!("{}{before}{delimiter}", list.prefix))
            });
            let is_after = |text: &str| list.start_after.is_none_or(|after| text > after);
            match folded {
                Some(prefix) if is_after(&prefix) => drop(prefixes.insert(format!("{prefix}*"))),
                None if is_after(key) => objects.push(key.clone()),
                _ => {}
            }
        }
        objects.into_iter().chain(prefixes).collect()
    }

    fn text() -> impl Strategy<Value = String> {
        "[a/\u{10ffff}\u{d7ff}\u{e000}]{1,5}"
    }

    proptest! {
        #[test]
        fn pages_of_any_size_make_the_whole_listing(
            keys in prop::collection::btree_set(text(), 0..30), prefix in "[a/]{0,2}", start in prop::option::of(text()),
            delimiter in prop::option::of("[a/]{0,2}"), max_keys in 1..40usize,
        ) {
            let bucket = bucket(&keys);
            let list = List {
                prefix: &prefix, delimiter: delimiter.as_deref(), start_after: start.as_deref(), ..List::default()
            };
            let expected = reference(&keys, &list);
            prop_assert_eq!(&listed(&bucket, list), &expected);
            let (mut token, mut objects, mut prefixes) = (None::<String>, Vec::new(), Vec::new());
            loop {
                let page = bucket.list(&List { max_keys, continuation_token: token.as_deref(), ..list }).unwrap();
                let entries = page.objects.len() + page.common_prefixes.len();
                prop_assert!(entries <= max_keys && (entries == max_keys || page.truncated_at.is_none()));
                objects.extend(page.objects.iter().map(|(key, _)| (*key).to_owned()));
                prefixes.extend(page.common_prefixes.iter().map(|prefix| format!("{prefix}*")));
                token = page.next_continuation_token();
                if token.is_none() { break }
            }
            objects.extend(prefixes);
            prop_assert_eq!(objects, expected);
        }
    }
}
