//! The text of messages. Pure: the same incident makes the same text.

use shared::timestamp::UnixMillis;

use super::alarm::{About, Watched};
use super::chart::Chart;
use super::config::Parents;
use super::formatting;
use super::incident::{Episode, Incident, Kind};
use super::line::one_line;
use super::reporter::Reporter;

/// The most characters of a subject: SNS takes 100 ASCII characters.
/// <https://docs.aws.amazon.com/sns/latest/api/API_Publish.html>
pub(crate) const MAX_SUBJECT_CHARACTERS: usize = 100;
/// The most alarms that a message describes; others are only named.
pub(crate) const MAX_DESCRIBED: usize = 5;
/// The most names in a line; others are counted.
pub(crate) const MAX_NAMED: usize = 20;
/// The beginning of the line that links to the runbook.
pub(crate) const TO_DO: &str = "What to do: ";

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Text {
    /// At most [`MAX_SUBJECT_CHARACTERS`] printable ASCII characters.
    pub(crate) subject: String,
    /// Lines as [`one_line`] makes them, with empty ones between blocks.
    pub(crate) text: String,
}

/// Lines that belong together.
type Block = Vec<String>;

impl Text {
    fn new(subject: String, blocks: &[Block]) -> Self {
        let joined = |block: &Block| block.iter().map(|line| one_line(line)).collect::<Vec<_>>().join("\n");
        Self { subject, text: blocks.iter().map(joined).collect::<Vec<_>>().join("\n\n") }
    }

    /// Adds a line at the end.
    pub(crate) fn add_line(&mut self, line: &str) {
        self.text.push('\n');
        self.text.push_str(&one_line(line));
    }
}

/// Where the message comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Origin<'a> {
    /// The deployment.
    pub(crate) stack: &'a str,
    /// The runbook's address, without the `#`.
    pub(crate) runbook: &'a str,
}

/// Writes a message about an incident.
pub(crate) fn compose(kind: Kind, incident: &Incident, now: UnixMillis, parents: &Parents, origin: Origin<'_>) -> Text {
    let site = Site::new(incident.reporter.as_ref(), origin);
    match kind {
        Kind::Opened => opened(incident, parents, &site),
        Kind::Update => update(incident, parents, &site),
        Kind::Reminder => reminder(incident, now, parents, &site),
        Kind::Resolved => resolved(incident, &site),
    }
}

/// Where an incident's alarms are.
struct Site<'a> {
    name: String,
    /// As the last of the places.
    place: String,
    /// What follows a subject's first word: an alarm's name alone does not say where it is.
    heading: String,
    /// Only of metrics that notify can read.
    has_charts: bool,
    runbook: &'a str,
}

impl<'a> Site<'a> {
    fn new(reporter: Option<&Reporter>, origin: Origin<'a>) -> Self {
        let Origin { stack, runbook } = origin;
        let Some(reporter) = reporter else {
            let (name, place) = (stack.to_owned(), format!("stack {stack}"));
            return Self { name, place, heading: String::new(), has_charts: true, runbook };
        };
        let (name, heading) = (reporter.to_string(), format!(" in {} {}", reporter.account, reporter.region));
        Self { place: name.clone(), name, heading, has_charts: false, runbook }
    }

    fn heading(&self, what: &str) -> String {
        format!("{what}{}", self.heading)
    }
}

fn opened(incident: &Incident, parents: &Parents, site: &Site<'_>) -> Text {
    let alarms: Vec<_> = parents.unannounced(incident).collect();
    let mut blocks = described(&alarms, actual, site);
    blocks.extend(quiet(incident, parents));
    Text::new(subject(&site.heading("ALARM"), &alarms), &blocks)
}

fn update(incident: &Incident, parents: &Parents, site: &Site<'_>) -> Text {
    let alarms: Vec<_> = parents.unannounced(incident).collect();
    let since = formatting::moment(incident.opened_at);
    let head = format!("{} more in {}, in the incident since {since}.", counted(alarms.len()), site.name);
    let mut blocks = vec![vec![head]];
    blocks.extend(described(&alarms, actual, site));
    let announced: Vec<_> = incident.on().filter(|(_, episode)| episode.announced).map(|(name, _)| name).collect();
    if !announced.is_empty() {
        blocks.push(vec![format!("Still on: {}", listed(&announced))]);
    }
    blocks.extend(quiet(incident, parents));
    Text::new(subject(&site.heading("MORE ALARMS"), &alarms), &blocks)
}

fn reminder(incident: &Incident, now: UnixMillis, parents: &Parents, site: &Site<'_>) -> Text {
    let alarms: Vec<_> = incident.on().filter(|(name, _)| !parents.quiets(name, incident)).collect();
    let after = formatting::duration(formatting::between(incident.opened_at, now));
    let head = format!("STILL ON after {after} in {}: {}.", site.name, counted(alarms.len()));
    let mut blocks = vec![vec![head]];
    blocks.extend(described(&alarms, newest, site));
    blocks.extend(quiet(incident, parents));
    Text::new(subject(&site.heading("STILL ON"), &alarms), &blocks)
}

fn resolved(incident: &Incident, site: &Site<'_>) -> Text {
    let alarms: Vec<_> = incident.alarms.iter().map(|(name, episode)| (name.as_str(), episode)).collect();
    let over_at = incident.over_at().unwrap_or(incident.opened_at);
    let lasted = formatting::duration(formatting::between(incident.opened_at, over_at));
    let is_over = if alarms.iter().any(|(_, episode)| episode.disowned) {
        "no alarm that this group gets is on any more"
    } else if alarms.iter().all(|(_, episode)| episode.deleted) {
        if alarms.len() == 1 { "the alarm was deleted" } else { "all alarms were deleted" }
    } else {
        "no alarm is on any more"
    };
    let mut lines = vec![format!("RESOLVED after {lasted} in {}: {is_over}.", site.name)];
    lines.extend(alarms.iter().take(MAX_NAMED).flat_map(|(name, episode)| ended(name, episode, site)));
    if let Some(more) = alarms.len().checked_sub(MAX_NAMED).filter(|more| *more > 0) {
        lines.push(format!("- and {more} more"));
    }
    Text::new(subject(&site.heading("RESOLVED"), &alarms), &[lines])
}

/// A line for an alarm that is over; more if no message named it before.
fn ended(name: &str, episode: &Episode, site: &Site<'_>) -> Block {
    let until = episode.until.unwrap_or(episode.since);
    let lasted = formatting::duration(formatting::between(episode.since, until));
    let (from, to) = (formatting::moment(episode.since), formatting::moment(until));
    let mut lines = vec![match (episode.disowned, episode.deleted) {
        (true, _) => format!("- {name}: on since {from}; from {to} this group no longer gets it"),
        (false, true) => format!("- {name}: on since {from}; at {to} the alarm was deleted"),
        (false, false) => format!("- {name}: on for {lasted}, from {from} to {to}"),
    }];
    if !episode.announced {
        lines.extend(block(name, episode, actual, site));
    }
    lines
}

/// A block for each of the first alarms, and the names of the rest.
fn described(alarms: &[(&str, &Episode)], actual: Actual, site: &Site<'_>) -> Vec<Block> {
    let (first, rest) = alarms.split_at(alarms.len().min(MAX_DESCRIBED));
    let mut blocks: Vec<_> = first.iter().map(|(name, episode)| block(name, episode, actual, site)).collect();
    if !rest.is_empty() {
        let names: Vec<_> = rest.iter().map(|(name, _)| *name).collect();
        blocks.push(vec![format!("And {}: {}", counted(rest.len()), listed(&names))]);
    }
    blocks
}

/// What, where, since when, expected and actual, the last values, and what to do.
fn block(name: &str, episode: &Episode, actual: Actual, site: &Site<'_>) -> Block {
    let about = &episode.about;
    let what = if about.description.is_empty() { name } else { &about.description };
    let mut lines = vec![format!("ALARM in {}: {what}", site.name)];
    lines.push(format!("Where: {}", place(about.watched.as_ref(), &site.place)));
    lines.push(format!("Since: {}", formatting::moment(episode.since)));
    lines.extend(about.watched.as_ref().map(expected));
    lines.push(format!("Actual: {}", actual(episode)));
    lines.extend(about.details.iter().map(|detail| format!("- {detail}")));
    lines.extend(chart(episode).filter(|_| site.has_charts));
    lines.push(format!("Alarm: {name}"));
    let anchor = about.anchor.as_deref().unwrap_or("alarms");
    lines.push(format!("{TO_DO}{}#{anchor}", site.runbook));
    lines
}

/// The metric's resources, and the deployment.
fn place(watched: Option<&Watched>, site: &str) -> String {
    let dimensions = watched.into_iter().flat_map(|watched| &watched.dimensions);
    let mut places: Vec<_> = dimensions.map(|(name, value)| format!("{} {value}", resource(name))).collect();
    places.push(site.to_owned());
    places.join(", ")
}

fn resource(dimension: &str) -> &str {
    match dimension {
        "FunctionName" => "function",
        "BucketName" => "bucket",
        "StreamName" => "stream",
        "Key" => "partitions",
        "EventSourceMappingUUID" => "mapping",
        other => other,
    }
}

fn expected(watched: &Watched) -> String {
    let unit = formatting::unit(&watched.namespace, watched.name());
    let expected = formatting::expected(&watched.comparison, watched.threshold, unit);
    let period = formatting::duration(std::time::Duration::from_secs(watched.period));
    match &watched.calculated {
        Some(calculated) => format!("Expected: {calculated} {expected}, of {period}"),
        None => format!("Expected: {} {expected}, as {} of {period}", watched.metric, watched.statistic),
    }
}

/// Which value is shown as the actual one: the one that triggered the alarm, or the newest.
type Actual = fn(&Episode) -> String;

/// The newest value, else the one that triggered the alarm.
fn newest(episode: &Episode) -> String {
    let watched = episode.about.watched.as_ref().filter(|watched| watched.calculated.is_none());
    let last = episode.chart.as_ref().and_then(Chart::last);
    match watched.zip(last) {
        Some((watched, number)) => formatting::value(number, formatting::unit(&watched.namespace, &watched.metric)),
        None => actual(episode),
    }
}

/// The value in CloudWatch's reason, else the newest value, else the reason itself.
fn actual(episode: &Episode) -> String {
    let About { reason, watched, .. } = &episode.about;
    let unit = watched.as_ref().and_then(|watched| formatting::unit(&watched.namespace, watched.name()));
    if let Some(number) = number_in(reason) {
        return formatting::value(number, unit);
    }
    if reason.contains("no datapoints were received") {
        return "nothing was measured".into();
    }
    let is_charted = watched.as_ref().is_none_or(|watched| watched.calculated.is_none());
    match episode.chart.as_ref().and_then(Chart::last).filter(|_| is_charted) {
        Some(number) => formatting::value(number, unit),
        None => reason.clone(),
    }
}

/// `… datapoints [3.0 (21/11/26 09:35:00), 0.0 (…)] was greater …`: the newest comes first.
fn number_in(reason: &str) -> Option<f64> {
    let (_, values) = reason.split_once('[')?;
    values.split([' ', ',', ']']).next()?.parse().ok()
}

fn chart(episode: &Episode) -> Option<String> {
    let watched = episode.about.watched.as_ref()?;
    let of = if watched.calculated.is_some() { format!(" of {}", watched.metric) } else { String::new() };
    let Some(chart) = &episode.chart else { return Some(format!("Last values{of}: CloudWatch did not say")) };
    let Some((least, most)) = chart.range() else { return Some(format!("Last values{of}: {} (none)", chart.line())) };
    let unit = formatting::unit(&watched.namespace, &watched.metric);
    let period = formatting::duration(std::time::Duration::from_secs(watched.period));
    let (least, most, until) =
        (formatting::grouped(least), formatting::value(most, unit), formatting::moment(chart.until));
    Some(format!("Last values{of}: {} ({least} to {most}; {period} each, to {until})", chart.line()))
}

/// The alarms that are not announced because their parent is on.
fn quiet(incident: &Incident, parents: &Parents) -> Option<Block> {
    let names: Vec<_> = incident.on().map(|(name, _)| name).filter(|name| parents.quiets(name, incident)).collect();
    (!names.is_empty()).then(|| vec![format!("Also on, most likely because of it: {}", listed(&names))])
}

fn counted(count: usize) -> String {
    if count == 1 { "1 alarm".into() } else { format!("{count} alarms") }
}

fn listed(names: &[&str]) -> String {
    let (first, rest) = names.split_at(names.len().min(MAX_NAMED));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", first.join(", "))
}

fn subject(what: &str, alarms: &[(&str, &Episode)]) -> String {
    let first = alarms.first().map_or("", |(name, _)| name);
    let more = if alarms.len() > 1 { format!(" and {} more", alarms.len() - 1) } else { String::new() };
    let room = MAX_SUBJECT_CHARACTERS.saturating_sub(what.len() + 2 + more.len());
    let printable = |character: char| if character.is_ascii_graphic() || character == ' ' { character } else { '?' };
    let name: String = first.chars().map(printable).take(room).collect();
    format!("{what}: {name}{more}")
}

#[cfg(test)]
mod tests;
