//! Metrics in memory for tests: what was put, what there is to read, and calls that fail on demand.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use shared::metric::Metric;
use shared::timestamp::UnixMillis;

use crate::cloudwatch::{Datum, Metrics, MetricsError, Query};

/// A value to be read.
#[derive(Debug, Clone)]
pub(crate) struct Value {
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    pub(crate) dimensions: Vec<(String, String)>,
    pub(crate) at: UnixMillis,
    pub(crate) value: f64,
}

#[derive(Debug, Default)]
pub(crate) struct MemoryMetrics {
    /// In the order in which they were put.
    pub(crate) data: RefCell<Vec<Datum>>,
    pub(crate) values: RefCell<Vec<Value>>,
    /// Calls so far: requests that CloudWatch would bill.
    pub(crate) calls: Cell<usize>,
    /// The call, counted from 1, from which on all fail.
    pub(crate) fails_from: Cell<Option<usize>>,
}

impl MemoryMetrics {
    /// What CloudWatch would show of a metric: its last value.
    pub(crate) fn last(&self, metric: Metric) -> Option<f64> {
        self.data.borrow().iter().rev().find(|datum| datum.metric == metric).map(|datum| datum.value)
    }

    fn call(&self, operation: &'static str) -> Result<(), MetricsError> {
        self.calls.set(self.calls.get() + 1);
        match self.fails_from.get() {
            Some(first) if self.calls.get() >= first => Err(MetricsError::new(operation, "injected".into())),
            _ => Ok(()),
        }
    }
}

impl Metrics for &MemoryMetrics {
    async fn put(&self, data: &[Datum]) -> Result<(), MetricsError> {
        self.call("PutMetricData")?;
        assert!(data.len() <= 1_000 && data.iter().all(|datum| datum.value.is_finite()), "CloudWatch refuses {data:?}");
        self.data.borrow_mut().extend_from_slice(data);
        Ok(())
    }

    async fn read(&self, query: &Query) -> Result<Vec<(UnixMillis, f64)>, MetricsError> {
        self.call("GetMetricData")?;
        let mut periods = BTreeMap::new();
        for value in self.values.borrow().iter() {
            let is_asked_for = value.namespace == query.namespace
                && value.name == query.name
                && value.dimensions == query.dimensions
                && value.at >= query.from
                && value.at < query.to;
            if is_asked_for {
                let period = i64::try_from(query.period.as_millis()).unwrap();
                let at = UnixMillis(value.at.0 - value.at.0 % period);
                periods.entry(at).or_insert_with(Vec::new).push(value.value);
            }
        }
        Ok(periods.into_iter().map(|(at, values)| (at, statistic(&query.statistic, &values))).collect())
    }
}

/// Values of one period as one.
fn statistic(name: &str, values: &[f64]) -> f64 {
    match name {
        "Sum" => values.iter().sum(),
        "Average" => values.iter().sum::<f64>() / values.len() as f64,
        "Maximum" => values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        "Minimum" => values.iter().copied().fold(f64::INFINITY, f64::min),
        other => panic!("{other} is not played"),
    }
}
