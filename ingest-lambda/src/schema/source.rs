//! Reads the schema from S3, once.

use std::cell::Cell;
use std::future::Future;
use std::sync::mpsc;
use std::time::Duration;

use lambda_setup::environment::EnvironmentError;
use schema_rules::{MAX_SCHEMA_BYTES, Rules, SchemaError};
use tokio::time::Instant;

use super::{EventSchema, VARIABLE};

/// A bucket that has schemas.
pub trait SchemaBucket {
    /// The object's bytes, if they are at most so many.
    fn read(&self, key: &str, max_bytes: usize) -> impl Future<Output = Result<Vec<u8>, ReadError>> + Send;
}

/// Why an object could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Another try may succeed.
    #[error("S3 does not give it: {0}")]
    Away(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No try can succeed. S3 says so of a missing object too, to those who may not list the bucket.
    #[error("is missing, or the role may not read it: {0}")]
    Refused(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Larger than was asked for.
    #[error("is larger than {0} bytes")]
    TooLarge(usize),
}

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("S3 does not answer within {} s", CALL_TIMEOUT.as_secs())]
    TimeIsUp,
    #[error("the thread that reads it ended: {0}")]
    Thread(#[from] std::io::Error),
}

impl LoadError {
    /// Players do not send again, so S3 alone must not keep ingest from taking events: a process that starts while S3 is away
    /// accepts them unvalidated, says so in `SchemaUnavailable`, and asks again. What stays wrong however often S3 is asked is a
    /// mistake of the deployment, and stops the server's start: its new tasks end beside the old ones.
    const fn may_pass(&self) -> bool {
        matches!(self, Self::Read(ReadError::Away(_)) | Self::TimeIsUp)
    }
}

/// A schema is some 50 ms away. With three tries a start takes five seconds at most.
const CALL_TIMEOUT: Duration = Duration::from_millis(1_500);
const TRIES_AT_START: u32 = 3;
const PAUSE: Duration = Duration::from_millis(150);
/// A single try each time: while S3 is away, all processes ask.
const TRY_AGAIN_EVERY: Duration = Duration::from_secs(30);
/// Of a request that asks again.
const REQUEST_WAITS: Duration = Duration::from_millis(500);

/// Reads the schema. If S3 does not answer, a thread goes on asking for as long as the process lives. It has a runtime of its own,
/// for the server has none yet.
pub(super) fn load(
    schema: &EventSchema,
    key: String,
    bucket: impl SchemaBucket + Send + 'static,
) -> Result<(), EnvironmentError> {
    let (say, said) = mpsc::sync_channel(1);
    let named = |key: &str, error: &LoadError| EnvironmentError::new(VARIABLE, format!("{key}: {error}"));
    let (schema, own_key) = (schema.clone(), key.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build();
    let runtime = runtime.map_err(|error| named(&key, &error.into()))?;
    let run = move || runtime.block_on(run(schema, own_key, bucket, say));
    std::thread::Builder::new().name("schema".into()).spawn(run).map_err(|error| named(&key, &error.into()))?;
    match said.recv() {
        Ok(loaded) => loaded.map_err(|error| named(&key, &error)),
        Err(error) => Err(named(&key, &std::io::Error::other(error).into())),
    }
}

async fn run(
    schema: EventSchema,
    key: String,
    bucket: impl SchemaBucket,
    say: mpsc::SyncSender<Result<(), LoadError>>,
) {
    let said = say.send(start(&schema, &key, &bucket).await);
    if said.is_ok() && !schema.is_known() {
        go_on(&schema, &key, &bucket).await;
    }
}

/// Reads the schema, with few tries. Without an error it may still be unknown, while S3 is away.
async fn start(schema: &EventSchema, key: &str, bucket: &impl SchemaBucket) -> Result<(), LoadError> {
    let mut tries = 1;
    let mut loaded = try_once(bucket, key).await;
    while tries < TRIES_AT_START && loaded.as_ref().is_err_and(LoadError::may_pass) {
        tokio::time::sleep(PAUSE).await;
        loaded = try_once(bucket, key).await;
        tries += 1;
    }
    accept(schema, key, loaded)
}

fn accept(schema: &EventSchema, key: &str, loaded: Result<Rules, LoadError>) -> Result<(), LoadError> {
    match loaded {
        Ok(rules) => schema.set(rules),
        Err(error) if error.may_pass() => {
            tracing::error!(key, %error, "the schema can't be read; events are accepted unvalidated, and counted, until it can");
        }
        Err(error) => return Err(error),
    }
    Ok(())
}

async fn go_on(schema: &EventSchema, key: &str, bucket: &impl SchemaBucket) {
    while !schema.is_known() {
        tokio::time::sleep(TRY_AGAIN_EVERY).await;
        ask_again(schema, key, bucket).await;
    }
}

async fn ask_again(schema: &EventSchema, key: &str, bucket: &impl SchemaBucket) {
    match try_once(bucket, key).await {
        Ok(rules) => {
            tracing::warn!(key, "the schema could be read at last; from here on events are validated");
            schema.set(rules);
        }
        // Also one that no other process would start with: somebody may put it right.
        Err(error) => tracing::error!(key, %error, "the schema still can't be read; events are accepted unvalidated"),
    }
}

/// Reads the schema in a function. An environment is frozen between requests, and with it a thread that waits for S3: so it is a
/// request that asks again.
#[derive(Debug)]
pub struct SchemaReader<B> {
    schema: EventSchema,
    key: String,
    bucket: B,
    asked_at: Cell<Instant>,
}

impl<B: SchemaBucket> SchemaReader<B> {
    pub(super) async fn open(schema: EventSchema, key: String, bucket: B) -> Self {
        // A player waits.
        let loaded = tokio::time::timeout(CALL_TIMEOUT, start(&schema, &key, &bucket)).await;
        let loaded = loaded.unwrap_or_else(|_| accept(&schema, &key, Err(LoadError::TimeIsUp)));
        if let Err(error) = loaded {
            // The server's old tasks serve on beside a new one that ends. Behind a function that ends there is nobody.
            tracing::error!(key, %error, "the schema can't be used; events are accepted unvalidated, and counted, until it can");
        }
        Self { schema, key, bucket, asked_at: Cell::new(Instant::now()) }
    }

    /// The schema, which may be unknown so far.
    pub const fn schema(&self) -> &EventSchema {
        &self.schema
    }

    /// Before each request: asks S3 for a schema that it has not given yet, every half a minute and half a second long.
    pub async fn before_request(&self) {
        if self.schema.is_known() || self.asked_at.get().elapsed() < TRY_AGAIN_EVERY {
            return;
        }
        self.asked_at.set(Instant::now());
        let asked = ask_again(&self.schema, &self.key, &self.bucket);
        if tokio::time::timeout(REQUEST_WAITS, asked).await.is_err() {
            tracing::error!(key = self.key, "S3 still does not give the schema; events are accepted unvalidated");
        }
    }
}

async fn try_once(bucket: &impl SchemaBucket, key: &str) -> Result<Rules, LoadError> {
    let read = bucket.read(key, MAX_SCHEMA_BYTES);
    let bytes = tokio::time::timeout(CALL_TIMEOUT, read).await.map_err(|_| LoadError::TimeIsUp)??;
    Ok(Rules::parse(&bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::SchemaMode;
    use rstest::rstest;
    use shared::timestamp::UnixMillis;
    use std::sync::Mutex;

    /// What S3 does, call by call; then it is away.
    struct Script(Mutex<Vec<Result<&'static str, ReadError>>>);

    impl SchemaBucket for Script {
        async fn read(&self, _: &str, _: usize) -> Result<Vec<u8>, ReadError> {
            let mut calls = self.0.lock().unwrap();
            if calls.is_empty() { away() } else { calls.remove(0) }.map(Vec::from)
        }
    }

    struct Hangs;

    impl SchemaBucket for Hangs {
        async fn read(&self, _: &str, _: usize) -> Result<Vec<u8>, ReadError> {
            std::future::pending().await
        }
    }

    fn away() -> Result<&'static str, ReadError> {
        Err(ReadError::Away("503".into()))
    }

    fn refused() -> Result<&'static str, ReadError> {
        Err(ReadError::Refused("404".into()))
    }

    /// What the start is told after so long, and whether events are judged two minutes later.
    async fn outcome(bucket: impl SchemaBucket) -> (Result<(), String>, Duration, bool) {
        let schema = EventSchema::of(None, SchemaMode::Reject);
        let (say, said) = mpsc::sync_channel(1);
        let began = Instant::now();
        let mut told_after = None;
        let going = run(schema.clone(), "schemas/a.json".into(), bucket, say);
        let watch = async {
            let told = loop {
                if let Ok(told) = said.try_recv() {
                    told_after = Some(began.elapsed());
                    break told;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            };
            tokio::time::sleep(Duration::from_secs(120)).await;
            told
        };
        let told = tokio::select! {
            (told, ()) = async { tokio::join!(watch, async { tokio::time::timeout(Duration::from_secs(125), going).await.unwrap_or(()) }) } => told,
        };
        let judges = schema.judge(UnixMillis(0)).check("{}").is_err();
        (told.map_err(|error| error.to_string()), told_after.unwrap(), judges)
    }

    #[rstest]
    #[case::there(vec![Ok("false")], true)]
    #[case::late_by_two_tries(vec![away(), away(), Ok("false")], true)]
    #[case::away_at_the_start(vec![away(), away(), away(), Ok("false")], true)]
    #[case::away_for_a_minute(vec![away(), away(), away(), away(), Ok("false")], true)]
    #[case::away(vec![], false)]
    #[case::away_and_then_missing(vec![away(), away(), away(), refused(), Ok("false")], true)]
    #[case::away_and_then_no_schema(vec![away(), away(), away(), Ok("{"), Ok("false")], true)]
    #[tokio::test(start_paused = true)]
    async fn a_start_goes_on_without_s3(#[case] calls: Vec<Result<&'static str, ReadError>>, #[case] judges: bool) {
        let (told, _, judged) = outcome(Script(Mutex::new(calls))).await;
        assert_eq!((told, judged), (Ok(()), judges));
    }

    #[rstest]
    #[case::missing(refused(), "is missing, or the role may not read it: 404")]
    #[case::too_large(Err(ReadError::TooLarge(7)), "is larger than 7 bytes")]
    #[case::no_json(Ok("{"), "is not JSON")]
    #[case::no_schema(Ok("7"), "is not a JSON Schema")]
    #[tokio::test(start_paused = true)]
    async fn a_mistake_stops_the_servers_start(#[case] call: Result<&'static str, ReadError>, #[case] expected: &str) {
        let (told, _, judged) = outcome(Script(Mutex::new(vec![away(), call]))).await;
        let told = told.unwrap_err();
        assert!(told.starts_with(expected) && !judged, "{told}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_start_waits_five_seconds_at_most() {
        let (told, after, judged) = outcome(Hangs).await;
        assert_eq!((told, judged), (Ok(()), false));
        assert!(after <= Duration::from_secs(5), "{after:?}");
    }

    async fn reader(bucket: impl SchemaBucket) -> SchemaReader<impl SchemaBucket> {
        SchemaReader::open(EventSchema::of(None, SchemaMode::Reject), "schemas/a.json".into(), bucket).await
    }

    #[rstest]
    #[case::there(vec![Ok("false")], true, true)]
    #[case::late_by_two_tries(vec![away(), away(), Ok("false")], true, true)]
    #[case::away_at_the_start(vec![away(), away(), away(), Ok("false")], false, true)]
    #[case::away(vec![], false, false)]
    #[case::away_and_then_missing(vec![away(), away(), away(), refused()], false, false)]
    #[case::missing_and_then_there(vec![away(), refused(), Ok("false")], false, true)]
    #[case::no_schema_and_then_one(vec![Ok("7"), Ok("false")], false, true)]
    #[tokio::test(start_paused = true)]
    async fn a_request_asks_again(
        #[case] calls: Vec<Result<&'static str, ReadError>>,
        #[case] at_once: bool,
        #[case] later: bool,
    ) {
        let reader = reader(Script(Mutex::new(calls))).await;
        reader.before_request().await;
        tokio::time::sleep(TRY_AGAIN_EVERY.checked_sub(Duration::from_millis(1)).unwrap()).await;
        reader.before_request().await;
        assert_eq!(reader.schema().is_known(), at_once);
        tokio::time::sleep(Duration::from_millis(1)).await;
        reader.before_request().await;
        assert_eq!(reader.schema().is_known(), later);
    }

    #[tokio::test(start_paused = true)]
    async fn a_function_waits_no_longer_than_a_call_and_its_requests_half_a_second() {
        let began = Instant::now();
        let reader = reader(Hangs).await;
        assert_eq!(began.elapsed(), CALL_TIMEOUT);
        tokio::time::sleep(TRY_AGAIN_EVERY).await;
        let began = Instant::now();
        reader.before_request().await;
        reader.before_request().await;
        assert_eq!((began.elapsed(), reader.schema().is_known()), (REQUEST_WAITS, false));
    }

    #[test]
    fn an_error_names_variable_and_key() {
        let open = |calls| {
            let config = crate::schema::SchemaConfig { key: "schemas/a-3.json".into(), mode: SchemaMode::Report };
            EventSchema::open(config, Script(Mutex::new(calls)), "ingest".into())
        };
        let error = open(vec![refused()]).unwrap_err().to_string();
        assert!(error.starts_with("environment variable EVENT_SCHEMA: schemas/a-3.json: "), "{error}");
        assert!(open(vec![Ok("false")]).unwrap().judge(UnixMillis(0)).check("{}").is_ok(), "it only reports");
    }
}
