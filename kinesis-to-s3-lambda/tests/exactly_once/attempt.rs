//! One invocation of the real handler, run from one request to the next on a clock of its own.

use std::ops::Range;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use kinesis_to_s3_lambda::handler::Handler;
use kinesis_to_s3_lambda::kinesis_event::{BatchAnswer, KinesisEvent};
use lambda_runtime::Context;
use shared::line::EventFormat;
use shared::timestamp::UnixMillis;
use tokio::runtime::{Builder, Runtime};

use crate::s3::{Connection, Request};

/// The time of an invocation: more than all calls and waits of a history take, whatever the jitter, so that an attempt's time
/// is up when the history says so and not by chance.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(3600);

/// An attempt at a batch that has not ended.
pub(crate) struct Attempt {
    // Before the runtime, so that its timers are dropped before their clock.
    invocation: Pin<Box<dyn Future<Output = BatchAnswer>>>,
    clock: Runtime,
    connection: Connection,
    pub(crate) number: u64,
    pub(crate) batch: Range<usize>,
    /// The key of its latest request.
    pub(crate) key: String,
}

impl Attempt {
    pub(crate) fn start(number: u64, batch: Range<usize>, event: KinesisEvent, began: UnixMillis) -> Self {
        let connection = Connection::default();
        let handler = Handler::new(connection.clone(), EventFormat::Envelope);
        let mut context = Context::default();
        // Now with one timeout, now with another: deployments change it.
        let time = if number.is_multiple_of(3) { 2 * TIMEOUT } else { TIMEOUT };
        context.deadline = u64::try_from(began.0).unwrap() + time.as_millis() as u64;
        context.request_id = number.to_string();
        let invocation = Box::pin(async move { handler.handle_at(event, context, began).await.unwrap() });
        let clock = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        Self { invocation, clock, connection, number, batch, key: String::new() }
    }

    /// Runs until it waits for S3 again or has an answer. Time that it waits for passes at once.
    pub(crate) fn run(&mut self) -> Option<BatchAnswer> {
        let Self { invocation, clock, connection, .. } = self;
        clock.block_on(std::future::poll_fn(|context| match invocation.as_mut().poll(context) {
            Poll::Ready(answer) => Poll::Ready(Some(answer)),
            Poll::Pending if connection.request.borrow().is_some() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }))
    }

    /// Lets all of its time pass.
    pub(crate) fn time_out(&mut self) {
        self.clock.block_on(tokio::time::advance(3 * TIMEOUT));
    }

    /// Takes the request that it waits for.
    pub(crate) fn take_request(&mut self) -> Option<Request> {
        let request = self.connection.request.borrow_mut().take();
        match &request {
            Some(Request::Put(write, _)) => self.key.clone_from(&write.key),
            Some(Request::Head(key, _)) => self.key.clone_from(key),
            None => {}
        }
        request
    }
}
