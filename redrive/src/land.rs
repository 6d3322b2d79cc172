//! Landing by the landing function's own write protocol, as an attempt of its own.

use std::time::Duration;

use anyhow::{Context, anyhow};
use kinesis_to_s3_lambda::group::Group;
use kinesis_to_s3_lambda::landing::{self, LandingError};
use kinesis_to_s3_lambda::s3::Bucket;
use lambda_setup::SdkConfig;
use lambda_setup::deadline::Deadline;
use shared::object::Attempt;
use uuid::Uuid;

/// The longest that landing one object may take, retries included.
const TIME: Duration = Duration::from_secs(60);

#[derive(Clone)]
pub(crate) struct Lander {
    bucket: std::sync::Arc<Bucket>,
    request_id: String,
}

impl Lander {
    pub(crate) fn new(config: &SdkConfig, bucket: String) -> Self {
        let bucket = Bucket::new(config, bucket).into();
        Self { bucket, request_id: format!("redrive-{}", Uuid::new_v4()) }
    }

    pub(crate) async fn land(&self, group: &Group) -> anyhow::Result<()> {
        let attempt = Attempt { deadline: lambda_setup::now(), request_id: self.request_id.clone() };
        let landed = landing::land(&*self.bucket, group, &attempt, Deadline::after(TIME), rand::random::<f64>).await;
        match landed {
            Ok(_) => Ok(()),
            Err(error @ LandingError::Superseded { .. }) => {
                Err(anyhow!("{}: {error}; redrive again ten seconds from now", group.key()))
            }
            Err(error) => Err(error).with_context(|| group.key()),
        }
    }
}
