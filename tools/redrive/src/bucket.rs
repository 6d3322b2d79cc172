//! A bucket behind the AWS SDK, as far as it is listed, read and emptied here.

use std::collections::HashMap;

use anyhow::Context;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::retry::RetryConfig;
use aws_sdk_s3::error::DisplayErrorContext;
use bytes::Bytes;
use lambda_setup::sdk::SdkConfig;
use shared::timestamp::UnixMillis;

/// How often a request is made at most. Listing, reading and deleting mean the same each time, so the SDK may repeat them.
const ATTEMPTS: u32 = 4;

#[derive(Clone)]
pub(crate) struct Bucket {
    client: Client,
    name: String,
}

/// Bytes of an object that is read at most. The largest that Playhead writes is a failed batch, of some 12 MiB.
const MAX_STORED_BYTES: i64 = 256 * 1024 * 1024;

/// An object as it was read.
pub(crate) struct Stored {
    pub(crate) bytes: Bytes,
    pub(crate) etag: String,
    /// Its metadata.
    pub(crate) entries: HashMap<String, String>,
    /// When it was written.
    pub(crate) modified: UnixMillis,
}

/// An object as it is listed.
pub(crate) struct Listed {
    pub(crate) key: String,
    pub(crate) bytes: u64,
}

impl Bucket {
    pub(crate) fn new(config: &SdkConfig, name: String) -> Self {
        let retries = RetryConfig::standard().with_max_attempts(ATTEMPTS);
        let config = config.to_builder().retry_config(retries).build();
        Self { client: lambda_setup::s3::client(&config), name }
    }

    /// All keys under a prefix, in order.
    pub(crate) async fn keys(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        Ok(self.list(prefix).await?.into_iter().map(|object| object.key).collect())
    }

    /// All objects under a prefix, in the order of their keys.
    pub(crate) async fn list(&self, prefix: &str) -> anyhow::Result<Vec<Listed>> {
        let mut pages = self.client.list_objects_v2().bucket(&self.name).prefix(prefix).into_paginator().send();
        let mut objects = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(described).with_context(|| format!("listing s3://{}/{prefix}", self.name))?;
            for object in page.contents.unwrap_or_default() {
                let key = object.key.context("a listed object without a key")?;
                objects.push(Listed { key, bytes: u64::try_from(object.size.unwrap_or(0))? });
            }
        }
        Ok(objects)
    }

    /// What keys under a prefix have up to the next slash, that slash included, in order.
    pub(crate) async fn folders(&self, prefix: &str) -> anyhow::Result<Vec<String>> {
        let list = self.client.list_objects_v2().bucket(&self.name).prefix(prefix).delimiter("/");
        let mut pages = list.into_paginator().send();
        let mut folders = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(described).with_context(|| format!("listing s3://{}/{prefix}", self.name))?;
            folders.extend(page.common_prefixes().iter().filter_map(|folder| folder.prefix().map(str::to_owned)));
        }
        Ok(folders)
    }

    /// An object's bytes; `None` when there is none.
    pub(crate) async fn get(&self, key: &str) -> anyhow::Result<Option<Bytes>> {
        Ok(self.read(key).await?.map(|stored| stored.bytes))
    }

    /// An object's bytes and its `ETag`; `None` when there is none.
    pub(crate) async fn read(&self, key: &str) -> anyhow::Result<Option<Stored>> {
        let place = || format!("reading s3://{}/{key}", self.name);
        match self.client.get_object().bucket(&self.name).key(key).send().await {
            Ok(object) => {
                let bytes = object.content_length().unwrap_or(0);
                anyhow::ensure!(
                    bytes <= MAX_STORED_BYTES,
                    "{}: {bytes} bytes are more than {MAX_STORED_BYTES}",
                    place()
                );
                let etag = object.e_tag().context("no ETag in the answer").with_context(place)?.to_owned();
                let entries = object.metadata().cloned().unwrap_or_default();
                let modified = object.last_modified().context("no time in the answer").with_context(place)?;
                let modified = UnixMillis(modified.to_millis()?);
                let bytes = object.body.collect().await.with_context(place)?.into_bytes();
                Ok(Some(Stored { bytes, etag, entries, modified }))
            }
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 404) => Ok(None),
            Err(error) => Err(described(error)).with_context(place),
        }
    }

    /// An object's metadata; `None` when there is none.
    pub(crate) async fn metadata(&self, key: &str) -> anyhow::Result<Option<HashMap<String, String>>> {
        match self.client.head_object().bucket(&self.name).key(key).send().await {
            Ok(head) => Ok(Some(head.metadata().cloned().unwrap_or_default())),
            Err(error) if error.raw_response().is_some_and(|response| response.status().as_u16() == 404) => Ok(None),
            Err(error) => Err(described(error)).with_context(|| format!("looking at s3://{}/{key}", self.name)),
        }
    }

    pub(crate) async fn delete(&self, key: &str) -> anyhow::Result<()> {
        let delete = self.client.delete_object().bucket(&self.name).key(key).send().await;
        delete.map(|_| ()).map_err(described).with_context(|| format!("deleting s3://{}/{key}", self.name))
    }
}

fn described(error: impl std::error::Error) -> anyhow::Error {
    anyhow::anyhow!("{}", DisplayErrorContext(error))
}
