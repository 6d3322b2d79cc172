//! What COPY reads: the files by name, so that it takes neither more nor fewer than were counted.
//! <https://docs.aws.amazon.com/redshift/latest/dg/loading-data-files-using-manifest.html>

use bytes::Bytes;
use serde::Serialize;

/// A file that COPY reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct File {
    pub(super) key: String,
    pub(super) bytes: u64,
}

#[derive(Serialize)]
struct CopyManifest {
    entries: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    url: String,
    /// Else COPY passes over a file that is gone.
    mandatory: bool,
    meta: Meta,
}

/// Of columnar files COPY must know the lengths.
#[derive(Serialize)]
struct Meta {
    content_length: u64,
}

/// The manifest of these files of a bucket.
pub(super) fn copy_manifest(bucket: &str, files: &[File]) -> Result<Bytes, serde_json::Error> {
    let entry =
        |file: &File| Entry { url: uri(bucket, &file.key), mandatory: true, meta: Meta { content_length: file.bytes } };
    serde_json::to_vec(&CopyManifest { entries: files.iter().map(entry).collect() }).map(Bytes::from)
}

/// An object's address as Redshift has it.
pub(super) fn uri(bucket: &str, key: &str) -> String {
    format!("s3://{bucket}/{key}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn each_file_is_mandatory_and_has_its_length() {
        let files = [File { key: "columnar/a".into(), bytes: 7 }, File { key: "warehouse/b".into(), bytes: 8 }];
        let manifest: Value = serde_json::from_slice(&copy_manifest("b", &files).unwrap()).unwrap();
        let entry = |url: &str, bytes: u64| json!({"url": url, "mandatory": true, "meta": {"content_length": bytes}});
        assert_eq!(manifest, json!({"entries": [entry("s3://b/columnar/a", 7), entry("s3://b/warehouse/b", 8)]}));
    }
}
