//! The landing bucket, over the checks' S3 client.

use lambda_setup::bucket::{self, Bucket, BucketError, Content, Listed, S3Bucket};

use super::LandedError;
use crate::aws;

/// With a custom endpoint the bucket is part of the path: stand-ins have no host name for each bucket.
pub(crate) async fn access(bucket: String, endpoint_url: Option<&str>) -> S3Bucket {
    S3Bucket::new(bucket::client(&aws::config(endpoint_url).await), bucket)
}

/// Objects to list and read.
pub(super) trait Objects: Clone + Send + Sync + 'static {
    /// All under a prefix.
    fn list(&self, prefix: &str) -> impl Future<Output = Result<Vec<Listed>, LandedError>> + Send;
    /// `None` when it is not there any more. It may be newer than the listing.
    fn get(&self, key: &str) -> impl Future<Output = Result<Option<Content>, LandedError>> + Send;
}

impl Objects for S3Bucket {
    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, LandedError> {
        self.list_all(prefix).await.map_err(|problem| failed(self, problem))
    }

    async fn get(&self, key: &str) -> Result<Option<Content>, LandedError> {
        Bucket::get(self, key).await.map_err(|problem| failed(self, problem))
    }
}

fn failed(bucket: &S3Bucket, problem: BucketError) -> LandedError {
    LandedError::Bucket { bucket: bucket.name().to_owned(), problem }
}
