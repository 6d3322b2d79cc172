//! Lists the objects of an hour.

use shared::line::Kind;
use shared::object::prefix;
use shared::timestamp::UtcHour;

use lambda_setup::bucket::{Bucket, BucketError, List, Listed};

/// The objects of both kinds, in the order of keys, a page at a time.
pub(super) struct Listing<'a, B> {
    bucket: &'a B,
    /// The folders that are not fully listed; the last is being listed.
    folders: Vec<String>,
    page: std::vec::IntoIter<Listed>,
    /// Where the next page begins.
    after: Option<String>,
    /// Objects so far.
    pub(super) count: u64,
}

impl<'a, B: Bucket> Listing<'a, B> {
    pub(super) fn new(bucket: &'a B, hour: UtcHour) -> Self {
        let folder = |kind| format!("{}/{}/", prefix(kind), hour.partition());
        // In reverse: taken from the end.
        let folders = vec![folder(Kind::Rejected), folder(Kind::Event)];
        Self { bucket, folders, page: Vec::new().into_iter(), after: None, count: 0 }
    }

    /// The next object; `None` after the last.
    pub(super) async fn next(&mut self) -> Result<Option<Listed>, BucketError> {
        loop {
            if let Some(listed) = self.page.next() {
                self.count += 1;
                return Ok(Some(listed));
            }
            let Some(folder) = self.folders.last() else { return Ok(None) };
            let list = List { prefix: folder, start_after: self.after.as_deref(), ..List::default() };
            let page = self.bucket.list(list).await?;
            self.after = page.objects.last().map(|last| last.key.clone());
            let is_data = |listed: &Listed| !listed.key[folder.len()..].starts_with(['_', '.']);
            self.page = page.objects.into_iter().filter(is_data).collect::<Vec<_>>().into_iter();
            if !page.is_truncated || self.after.is_none() {
                self.folders.pop();
                self.after = None;
            }
        }
    }
}
