//! The landing bucket behind the AWS SDK: the only file here that knows it. Objects are created, and a schema is read:
//! <https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html>

use std::time::Duration;

use aws_sdk_s3::Client;
use aws_sdk_s3::config::Builder;
use aws_sdk_s3::config::timeout::TimeoutConfig;
use aws_sdk_s3::error::ProvideErrorMetadata;
use aws_sdk_s3::primitives::ByteStream;
use lambda_setup::s3::{client, describe, is_permanent, status};
use lambda_setup::sdk::SdkConfig;

use crate::put::sdk_time_limit;
use crate::schema::{ReadError, SchemaBucket};
use crate::spill::{CreateError, SpillBucket, Spilled};

/// An S3 bucket.
pub struct Bucket {
    client: Client,
    name: String,
}

impl Bucket {
    #[must_use]
    pub fn new(config: &SdkConfig, name: String) -> Self {
        Self { client: client(config), name }
    }
}

impl SpillBucket for Bucket {
    async fn create(&self, object: &Spilled, time_limit: Duration) -> Result<(), CreateError> {
        let timeouts = TimeoutConfig::builder().operation_attempt_timeout(sdk_time_limit(time_limit)).build();
        let put = self
            .client
            .put_object()
            .bucket(&self.name)
            .key(&object.key)
            .content_type("application/x-bzip2")
            .set_metadata(Some(object.metadata.to_entries()))
            .body(ByteStream::from(object.body.clone()))
            .if_none_match("*")
            .customize()
            .config_override(Builder::new().timeout_config(timeouts));
        // Boxed, so that not each future around it has room for it.
        match Box::pin(put.send()).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(412) => Ok(()),
            Err(error) => {
                let permanent = is_permanent(status(&error), error.code());
                let source = describe(error).into();
                Err(if permanent { CreateError::Permanent(source) } else { CreateError::Uncertain(source) })
            }
        }
    }
}

impl SchemaBucket for Bucket {
    async fn read(&self, key: &str, max_bytes: usize) -> Result<Vec<u8>, ReadError> {
        let object = match Box::pin(self.client.get_object().bucket(&self.name).key(key).send()).await {
            Ok(object) => object,
            Err(error) => {
                let permanent = is_permanent(status(&error), error.code());
                let source = describe(error).into();
                return Err(if permanent { ReadError::Refused(source) } else { ReadError::Away(source) });
            }
        };
        // S3 always says how long an object is.
        let length = object.content_length().and_then(|bytes| usize::try_from(bytes).ok());
        if length.is_none_or(|bytes| bytes > max_bytes) {
            return Err(ReadError::TooLarge(max_bytes));
        }
        let body = object.body.collect().await.map_err(|error| ReadError::Away(error.into()))?;
        Ok(body.into_bytes().into())
    }
}
