//! Lists the keys of a bucket in S3's order, from its folders.
//!
//! s3s-fs reads a whole bucket for each page, which takes a listing of 200,000 objects through 40 million. Here a folder's
//! names are read once and kept sorted as long as its modification time stays the same; each key is then found by binary
//! search, folder by folder.

use std::collections::HashMap;
use std::fs::Metadata;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// Names that are kept of all folders together: some 100 MB. Past that all are read anew.
const MAX_NAMES: usize = 1_000_000;
/// How long a folder must have been left alone for its modification time to tell later changes: file systems count in
/// steps of some milliseconds.
const SETTLED: Duration = Duration::from_millis(100);
/// Sorts after whatever may follow in a key.
const LAST: char = char::MAX;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Question {
    pub bucket: String,
    pub prefix: String,
    /// Keys that have it after the prefix are shown as one.
    pub delimiter: Option<String>,
    /// Only keys after this one.
    pub after: Option<String>,
    /// Entries on the page at most.
    pub limit: usize,
}

/// One line of a listing.
#[derive(Debug)]
pub(crate) enum Entry {
    Object {
        key: String,
        metadata: Metadata,
    },
    /// All keys that begin with it.
    Prefix(String),
}

/// A part of a listing.
#[derive(Debug)]
pub(crate) struct Page {
    pub entries: Vec<Entry>,
    /// Where the next page begins, if there is more.
    pub next: Option<String>,
}

/// The names in a folder, in order; those of folders end in a slash.
type Names = Arc<Vec<String>>;

/// The lister of all buckets, with the folders that it has read.
#[derive(Debug)]
pub(crate) struct Listing {
    root: PathBuf,
    folders: Mutex<HashMap<PathBuf, (SystemTime, Names)>>,
}

/// The folders of a bucket as one page sees them.
struct View<'l> {
    listing: &'l Listing,
    bucket: PathBuf,
    seen: HashMap<String, Names>,
}

impl Listing {
    #[must_use]
    pub(crate) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), folders: Mutex::default() }
    }

    /// A page of a bucket that is there. It blocks.
    ///
    /// # Errors
    ///
    /// When a folder can't be read.
    pub(crate) fn page(&self, question: &Question) -> io::Result<Page> {
        let mut view = View { listing: self, bucket: self.root.join(&question.bucket), seen: HashMap::new() };
        let mut entries = Vec::new();
        let mut after = question.after.clone();
        while let Some(key) = view.seek("", &question.prefix, after.as_deref())? {
            if entries.len() >= question.limit {
                // A page of no entries is not continued, or it would be for ever.
                let next = after.filter(|_| question.limit > 0);
                return Ok(Page { entries, next });
            }
            if let Some(prefix) = common_prefix(&key, question) {
                after = Some(after_all(&prefix));
                entries.push(Entry::Prefix(prefix));
                continue;
            }
            match std::fs::symlink_metadata(view.bucket.join(&key)) {
                Ok(metadata) => entries.push(Entry::Object { key: key.clone(), metadata }),
                // Deleted meanwhile.
                Err(problem) if problem.kind() == io::ErrorKind::NotFound => {}
                Err(problem) => return Err(problem),
            }
            after = Some(key);
        }
        Ok(Page { entries, next: None })
    }

    fn names(&self, folder: &Path) -> io::Result<Names> {
        let modified = match std::fs::metadata(folder).and_then(|metadata| metadata.modified()) {
            Ok(modified) => modified,
            Err(problem) if problem.kind() == io::ErrorKind::NotFound => return Ok(Names::default()),
            Err(problem) => return Err(problem),
        };
        let known = self.folders.lock().unwrap_or_else(PoisonError::into_inner).get(folder).cloned();
        if let Some((_, names)) = known.filter(|(at, _)| *at == modified) {
            return Ok(names);
        }
        let settled = SystemTime::now().duration_since(modified).is_ok_and(|age| age > SETTLED);
        let names = Names::new(read_names(folder)?);
        if settled {
            let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
            folders.insert(folder.to_owned(), (modified, names.clone()));
            if folders.values().map(|(_, names)| names.len() + 1).sum::<usize>() > MAX_NAMES {
                folders.clear();
            }
        }
        Ok(names)
    }
}

fn read_names(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        // What is not Unicode can't be a key.
        let Ok(mut name) = entry.file_name().into_string() else { continue };
        if entry.file_type()?.is_dir() {
            name.push('/');
        }
        names.push(name);
    }
    names.sort_unstable();
    Ok(names)
}

/// What a key is shown as, when it has the delimiter after the prefix.
fn common_prefix(key: &str, question: &Question) -> Option<String> {
    let delimiter = question.delimiter.as_deref().filter(|delimiter| !delimiter.is_empty())?;
    let end = key[question.prefix.len()..].find(delimiter)?;
    Some(key[..question.prefix.len() + end + delimiter.len()].to_owned())
}

/// A place after all keys that begin with this.
#[must_use]
pub(crate) fn after_all(prefix: &str) -> String {
    format!("{prefix}{LAST}")
}

impl View<'_> {
    /// The first key in a folder (empty, or ending in a slash) that begins with the prefix and comes after a place.
    fn seek(&mut self, folder: &str, prefix: &str, after: Option<&str>) -> io::Result<Option<String>> {
        let names = self.names(folder)?;
        let bound = after.map_or(prefix, |after| after.max(prefix));
        for name in &names[first_place(&names, folder, bound)..] {
            let key = format!("{folder}{name}");
            if !key.starts_with(prefix) && !prefix.starts_with(&key) {
                if key.as_str() > prefix {
                    return Ok(None);
                }
                continue;
            }
            if name.ends_with('/') {
                if let Some(found) = self.seek(&key, prefix, after)? {
                    return Ok(Some(found));
                }
            } else if key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after) {
                return Ok(Some(key));
            }
        }
        Ok(None)
    }

    fn names(&mut self, folder: &str) -> io::Result<Names> {
        if let Some(names) = self.seen.get(folder) {
            return Ok(names.clone());
        }
        let names = self.listing.names(&self.bucket.join(folder))?;
        self.seen.insert(folder.to_owned(), names.clone());
        Ok(names)
    }
}

/// The place of the first name that holds keys from `bound` on.
fn first_place(names: &[String], folder: &str, bound: &str) -> usize {
    let Some(bound) = bound.strip_prefix(folder) else {
        return if bound > folder { names.len() } else { 0 };
    };
    let place = names.partition_point(|name| name.as_str() < bound);
    // A folder comes before the keys in it. Nothing else can stand between it and them.
    let inside =
        place.checked_sub(1).filter(|before| names[*before].ends_with('/') && bound.starts_with(&names[*before]));
    inside.unwrap_or(place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    struct Bucket {
        root: PathBuf,
        listing: Listing,
    }

    impl Bucket {
        fn with(keys: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
            let root = std::env::temp_dir().join(format!("listing-{}", uuid::Uuid::new_v4()));
            std::fs::create_dir_all(root.join("b")).unwrap();
            let bucket = Self { listing: Listing::new(&root), root };
            keys.into_iter().for_each(|key| bucket.put(key.as_ref()));
            bucket
        }

        fn put(&self, key: &str) {
            let path = self.root.join("b").join(key);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, key).unwrap();
        }

        /// All pages, objects and prefixes as they come.
        fn list(&self, prefix: &str, delimiter: Option<&str>, limit: usize) -> Vec<String> {
            let mut question = Question {
                bucket: "b".into(),
                prefix: prefix.into(),
                delimiter: delimiter.map(str::to_owned),
                after: None,
                limit,
            };
            let mut listed = Vec::new();
            loop {
                let page = self.listing.page(&question).unwrap();
                assert!(page.entries.len() <= limit);
                listed.extend(page.entries.into_iter().map(|entry| match entry {
                    Entry::Object { key, .. } => key,
                    Entry::Prefix(prefix) => prefix,
                }));
                match page.next {
                    Some(next) => question.after = Some(next),
                    None => return listed,
                }
            }
        }
    }

    impl Drop for Bucket {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.root).unwrap();
        }
    }

    #[test]
    fn keys_come_in_s3_s_order_and_not_in_that_of_folders() {
        let bucket = Bucket::with(["a/x", "a-b", "a.b", "b", "a/y/z", "a0"]);
        assert_eq!(bucket.list("", None, 2), ["a-b", "a.b", "a/x", "a/y/z", "a0", "b"]);
        assert_eq!(bucket.list("", Some("/"), 2), ["a-b", "a.b", "a/", "a0", "b"]);
        assert_eq!(bucket.list("a/", Some("/"), 1), ["a/x", "a/y/"]);
        assert_eq!(bucket.list("a/y", None, 9), ["a/y/z"]);
        assert_eq!(bucket.list("c", None, 9), Vec::<String>::new());
    }

    #[test]
    fn empty_folders_are_no_keys() {
        let bucket = Bucket::with(["a/b/c"]);
        std::fs::remove_file(bucket.root.join("b/a/b/c")).unwrap();
        assert!(bucket.list("", Some("/"), 9).is_empty());
    }

    #[test]
    fn a_page_of_nothing_ends_the_listing() {
        let bucket = Bucket::with(["a"]);
        assert!(bucket.list("", None, 0).is_empty());
    }

    #[test]
    fn what_changes_is_seen() {
        let bucket = Bucket::with(["a/1", "a/3"]);
        for settle in [Duration::ZERO, 2 * SETTLED] {
            std::thread::sleep(settle);
            assert_eq!(bucket.list("a/", None, 1).len(), 2);
            bucket.put("a/2");
            assert_eq!(bucket.list("a/", None, 1), ["a/1", "a/2", "a/3"]);
            std::fs::remove_file(bucket.root.join("b/a/2")).unwrap();
            assert_eq!(bucket.list("a/", None, 1), ["a/1", "a/3"]);
        }
    }

    /// Reading the folder for each page would take minutes.
    #[test]
    fn a_folder_of_many_keys_is_listed_by_small_pages() {
        let keys: Vec<String> = (0..20_000).map(|number| format!("a/b/{number:05}")).collect();
        let bucket = Bucket::with(&keys);
        std::thread::sleep(2 * SETTLED);
        assert_eq!(bucket.list("a/", None, 7), keys);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        /// The reference: all keys in a sorted set.
        #[test]
        fn listings_are_those_of_a_sorted_set(
            keys in proptest::collection::btree_set("[a-c][a-c-]{0,1}(/[a-c0][a-c.0]{0,1}){0,3}", 0..20),
            prefix in "[a-c]{0,1}(/[a-c]{0,1}){0,2}",
            delimiter in proptest::option::of("[/a]"),
            limit in 1..4usize,
        ) {
            // A file can't be a folder too.
            let is_folder = |key: &String| keys.iter().any(|other| other.starts_with(&format!("{key}/")));
            let keys: BTreeSet<String> = keys.iter().filter(|key| !is_folder(key)).cloned().collect();
            let bucket = Bucket::with(&keys);
            let shown = |key: &String| {
                let end = delimiter.as_ref().and_then(|delimiter| key[prefix.len()..].find(delimiter.as_str()));
                end.map_or_else(|| key.clone(), |end| key[..=prefix.len() + end].to_owned())
            };
            let mut expected: Vec<String> = keys.iter().filter(|key| key.starts_with(&prefix)).map(shown).collect();
            expected.dedup();
            prop_assert_eq!(bucket.list(&prefix, delimiter.as_deref(), limit), expected);
        }
    }
}
