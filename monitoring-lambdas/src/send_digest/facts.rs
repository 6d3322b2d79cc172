//! What a digest is made of. A fact that could not be read is an error's text in its place.

use std::collections::{BTreeMap, BTreeSet};

use shared::timestamp::{UnixMillis, UtcDate, UtcHour};

use crate::check_size::Found;
use crate::manifest::{Incomplete, Success, Totals};

/// A fact, or why it could not be read.
pub(crate) type Known<T> = Result<T, String>;

/// A UTC day.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Facts {
    pub(crate) date: UtcDate,
    /// All 24, in order.
    pub(crate) hours: Vec<HourFact>,
    pub(crate) sizes: Known<Sizes>,
    pub(crate) balance: Known<DayBalance>,
    pub(crate) turned_away: Known<TurnedAway>,
    pub(crate) incidents: Known<Incidents>,
    /// `None` where AWS publishes no estimate.
    pub(crate) month_usd: Known<Option<f64>>,
}

/// Requests of which nothing is stored, so that nothing else counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct TurnedAway {
    /// Without a known write key.
    pub(crate) unknown: f64,
    /// Over its limit.
    pub(crate) limited: f64,
    /// Of all requests.
    pub(crate) requests: f64,
}

impl TurnedAway {
    /// Whether so many are more than a scanner's, by the alarm's share.
    pub(crate) fn is_notable(self, count: f64) -> bool {
        100.0 * count > self.requests
    }
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct HourFact {
    pub(crate) hour: UtcHour,
    pub(crate) state: HourState,
}

/// How far an hour got.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HourState {
    Sealed(Box<Success>),
    /// It was due and not whole.
    Incomplete(Incomplete),
    /// Neither of the two.
    Unsealed,
    /// Neither, and before the first hour that anything landed in.
    BeforeFirst,
    /// Neither, and not due when the digest was made.
    NotDue,
    Unreadable(String),
}

/// What check-size's rules say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sizes {
    /// Of the date, if all of its hours are sealed.
    pub(crate) date: Option<Vec<Found>>,
    /// The violations of sealed hours.
    pub(crate) hours: Vec<(UtcHour, Found)>,
}

/// The sums of the hours that could be balanced, as check-completeness balances them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct DayBalance {
    pub(crate) hours: usize,
    pub(crate) accepted: f64,
    pub(crate) landed: f64,
    pub(crate) lost_events: f64,
    pub(crate) doubled_events: f64,
    pub(crate) lost_records: f64,
    pub(crate) doubled_records: f64,
    pub(crate) unknown_events: f64,
}

/// Incidents that were going on at some time of the day, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Incidents {
    pub(crate) all: Vec<IncidentFact>,
    /// Files that were not read, for their number or their content.
    pub(crate) unread: usize,
}

/// An incident, of all groups that had it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct IncidentFact {
    pub(crate) from: UnixMillis,
    /// `None` while it goes on.
    pub(crate) until: Option<UnixMillis>,
    pub(crate) alarms: BTreeSet<String>,
    pub(crate) groups: BTreeSet<String>,
}

impl Facts {
    pub(crate) fn sealed(&self) -> impl Iterator<Item = (UtcHour, &Success)> {
        self.hours.iter().filter_map(|fact| match &fact.state {
            HourState::Sealed(success) => Some((fact.hour, success.as_ref())),
            HourState::Incomplete(_) | HourState::Unsealed | HourState::Unreadable(_) => None,
            HourState::BeforeFirst | HourState::NotDue => None,
        })
    }

    /// How many hours should be sealed.
    pub(crate) fn due(&self) -> usize {
        let is_due = |fact: &&HourFact| !matches!(fact.state, HourState::BeforeFirst | HourState::NotDue);
        self.hours.iter().filter(is_due).count()
    }

    /// The sums of the hours that are sealed.
    pub(crate) fn totals(&self) -> Totals {
        totals(&self.hours)
    }
}

/// The sums of the hours that are sealed.
pub(crate) fn totals(hours: &[HourFact]) -> Totals {
    let mut totals = Totals::default();
    for fact in hours {
        if let HourState::Sealed(success) = &fact.state {
            totals.add_hour(&success.totals);
        }
    }
    totals
}

impl Incidents {
    /// One for those that began at the same moment with the same alarms: each group has a file of its own.
    pub(crate) fn merged(found: impl IntoIterator<Item = IncidentFact>, unread: usize) -> Self {
        let mut merged: BTreeMap<(UnixMillis, BTreeSet<String>), IncidentFact> = BTreeMap::new();
        for one in found {
            let key = (one.from, one.alarms.clone());
            match merged.get_mut(&key) {
                Some(known) => {
                    known.groups.extend(one.groups);
                    known.until = known.until.zip(one.until).map(|(known, other)| known.max(other));
                }
                None => drop(merged.insert(key, one)),
            }
        }
        Self { all: merged.into_values().rev().collect(), unread }
    }
}
