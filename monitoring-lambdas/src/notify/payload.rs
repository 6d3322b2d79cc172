//! What is posted to a webhook. Pure. A message quotes text that others wrote, so nothing in it may act as markup, such as a
//! mention or a link that leads elsewhere than it says.

use http::Uri;
use serde_json::{Value, json};

use super::message::TO_DO;
use super::recipient::Format;

/// The most characters of a Slack message: Slack silently truncates longer ones.
/// <https://docs.slack.dev/changelog/2018-truncating-really-long-messages>
pub(crate) const MAX_TEXT_CHARACTERS: usize = 40_000;
/// The most bytes of a card. Teams drops messages of more than about 28 KB, and has been seen to drop those of more than 21.
/// <https://learn.microsoft.com/en-us/connectors/teams/#known-issues-and-limitations-with-actions>
pub(crate) const MAX_CARD_BYTES: usize = 20_000;

/// The body of the POST.
pub(crate) fn body(format: Format, text: &str) -> String {
    match format {
        Format::Text => slack_message(text),
        Format::AdaptiveCard => card_message(text),
    }
    .to_string()
}

/// Slack always reads `&`, `<` and `>` as markup; `*`, `_`, `~` and backticks only if `mrkdwn` is on.
/// <https://docs.slack.dev/messaging/formatting-message-text>
fn slack_message(text: &str) -> Value {
    let lines = text.split('\n').map(escape).collect();
    let lines = fitting(lines, MAX_TEXT_CHARACTERS, str::to_owned, |line| line.chars().count() + 1);
    json!({"text": lines.join("\n"), "mrkdwn": false})
}

fn escape(line: &str) -> String {
    line.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// <https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using>
fn card_message(text: &str) -> Value {
    let frame = message_with_card(Vec::new()).to_string().len();
    let left_out = |line: &str| paragraph(line, "None");
    message_with_card(fitting(paragraphs(text), MAX_CARD_BYTES - frame, left_out, |one| one.to_string().len() + 1))
}

fn message_with_card(body: Vec<Value>) -> Value {
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive",
            "contentUrl": null,
            "content": {
                "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
                "type": "AdaptiveCard",
                "version": "1.4",
                "msteams": {"width": "Full"},
                "body": body,
            },
        }],
    })
}

/// Each line that is not empty; an empty line becomes space above the next.
fn paragraphs(text: &str) -> Vec<Value> {
    let mut spacing = "None";
    let mut paragraphs = Vec::new();
    for line in text.split('\n') {
        if line.is_empty() {
            spacing = "Medium";
        } else {
            paragraphs.push(paragraph(line, spacing));
            spacing = "None";
        }
    }
    paragraphs
}

/// A line as a TextRun, which has no Markdown, unlike a TextBlock.
/// <https://learn.microsoft.com/en-us/adaptive-cards/schema-explorer/text-run>
fn paragraph(line: &str, spacing: &str) -> Value {
    let mut run = json!({"type": "TextRun", "text": without_functions(line)});
    if let Some(url) = runbook_entry(line) {
        run["selectAction"] = json!({"type": "Action.OpenUrl", "url": url});
    }
    json!({"type": "RichTextBlock", "spacing": spacing, "inlines": [run]})
}

/// `{{DATE(…)}}` and `{{TIME(…)}}` would be replaced by a date and a time; there are no other functions.
fn without_functions(line: &str) -> String {
    line.replace("{DATE(", "{ DATE(").replace("{TIME(", "{ TIME(")
}

/// The address in the line that says what to do, if there is one: `RUNBOOK_URL` may be a path.
fn runbook_entry(line: &str) -> Option<&str> {
    let url = line.strip_prefix(TO_DO)?;
    is_web_address(url).then_some(url)
}

/// Whether something is an address that a browser opens as a page.
pub(crate) fn is_web_address(url: &str) -> bool {
    url.parse().is_ok_and(|uri: Uri| matches!(uri.scheme_str(), Some("https" | "http")))
}

/// The lines that fit and, if not all do, one that says how many are left out.
fn fitting<T>(mut lines: Vec<T>, limit: usize, line: impl Fn(&str) -> T, size: impl Fn(&T) -> usize) -> Vec<T> {
    let left_out = |count: usize| line(&format!("… {count} more lines, too many for one message"));
    let mut room = limit.saturating_sub(size(&left_out(lines.len())));
    let fits = |one: &T| room.checked_sub(size(one)).inspect(|left| room = *left).is_some();
    let count = lines.iter().map(fits).take_while(|fits| *fits).count();
    if count < lines.len() {
        let last = left_out(lines.len() - count);
        lines.truncate(count);
        lines.push(last);
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    /// What Slack shows of its text.
    fn shown_by_slack(text: &str) -> String {
        assert!(!text.contains(['<', '>']), "{text}");
        let shown = text.replace("&lt;", "<").replace("&gt;", ">");
        assert_eq!(shown.matches('&').count(), shown.matches("&amp;").count(), "{text}");
        shown.replace("&amp;", "&")
    }

    fn parsed(format: Format, text: &str) -> Value {
        serde_json::from_str(&body(format, text)).unwrap()
    }

    fn card(text: &str) -> Value {
        parsed(Format::AdaptiveCard, text)["attachments"][0]["content"].take()
    }

    /// The lines of a card, none of which is anything but a TextRun.
    fn shown_by_teams(text: &str) -> Vec<String> {
        let run = |element: &Value| {
            assert_eq!(
                (&element["type"], &element["inlines"][0]["type"]),
                (&json!("RichTextBlock"), &json!("TextRun"))
            );
            assert_eq!(element["inlines"].as_array().unwrap().len(), 1);
            element["inlines"][0]["text"].as_str().unwrap().to_owned()
        };
        card(text)["body"].as_array().unwrap().iter().map(run).collect()
    }

    const HOSTILE: &str = "- events/<!channel> <https://evil.example|broken.jsonl.bz2>: R&D &lt; *b* _i_ ~s~ `c`";

    #[test]
    fn slack_shows_mentions_and_links_as_text() {
        let expected =
            "- events/&lt;!channel&gt; &lt;https://evil.example|broken.jsonl.bz2&gt;: R&amp;D &amp;lt; *b* _i_ ~s~ `c`";
        assert_eq!(parsed(Format::Text, HOSTILE), json!({"text": expected, "mrkdwn": false}));
    }

    #[test]
    fn a_card_has_the_form_that_teams_workflows_accept() {
        let text = "ALARM in prod: [Landed](https://evil.example) **objects** <at>all</at>\n\nWhat to do: https://git.example.com/RUNBOOK.md#it";
        let run = |text: &str| json!({"type": "TextRun", "text": text});
        let line = |spacing: &str, run: Value| json!({"type": "RichTextBlock", "spacing": spacing, "inlines": [run]});
        let (first, last) = (text.lines().next().unwrap(), text.lines().last().unwrap());
        let mut linked = run(last);
        linked["selectAction"] = json!({"type": "Action.OpenUrl", "url": "https://git.example.com/RUNBOOK.md#it"});
        let card = json!({
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard",
            "version": "1.4",
            "msteams": {"width": "Full"},
            "body": [line("None", run(first)), line("Medium", linked)],
        });
        let content_type = "application/vnd.microsoft.card.adaptive";
        let attachment = json!({"contentType": content_type, "contentUrl": null, "content": card});
        assert_eq!(parsed(Format::AdaptiveCard, text), json!({"type": "message", "attachments": [attachment]}));
    }

    #[rstest]
    #[case("{{DATE(2026-11-21T09:00:00Z, SHORT)}}", "{{ DATE(2026-11-21T09:00:00Z, SHORT)}}")]
    #[case("{{{TIME(2026-11-21T09:00:00Z)}}", "{{{ TIME(2026-11-21T09:00:00Z)}}")]
    #[case("{{other}} DATE(1)", "{{other}} DATE(1)")]
    fn no_text_becomes_a_date(#[case] line: &str, #[case] expected: &str) {
        assert_eq!(shown_by_teams(line), [expected]);
    }

    #[rstest]
    #[case("What to do: https://git.example.com/RUNBOOK.md#it", Some("https://git.example.com/RUNBOOK.md#it"))]
    #[case("What to do: docs/RUNBOOK.md#it", None)]
    #[case("What to do: javascript:alert(1)", None)]
    #[case("What to do: https://git.example.com/a b#it", None)]
    #[case("- What to do: https://evil.example", None)]
    fn only_the_runbook_is_linked(#[case] line: &str, #[case] url: Option<&str>) {
        assert_eq!(runbook_entry(line), url);
    }

    #[rstest]
    #[case(Format::Text, MAX_TEXT_CHARACTERS)]
    #[case(Format::AdaptiveCard, MAX_CARD_BYTES)]
    fn text_that_is_too_long_ends_with_the_number_of_lines_left_out(#[case] format: Format, #[case] limit: usize) {
        let text = vec!["<".repeat(200); 500].join("\n");
        let body = body(format, &text);
        assert!(body.len() <= limit + 100 && body.len() > limit / 2, "{}", body.len());
        let lines = match format {
            Format::Text => body.matches("\\n").count(),
            Format::AdaptiveCard => body.matches("RichTextBlock").count() - 1,
        };
        assert!(body.contains(&format!("… {} more lines, too many for one message", 500 - lines)), "{lines}");
    }

    proptest! {
        #[test]
        fn any_text_is_shown_as_it_is(text in any::<String>()) {
            let message = parsed(Format::Text, &text);
            prop_assert_eq!(shown_by_slack(message["text"].as_str().unwrap()), text.clone());
            let lines: Vec<_> = text.split('\n').filter(|line| !line.is_empty()).collect();
            prop_assert_eq!(shown_by_teams(&text), lines);
        }

        #[test]
        fn any_length_fits(line in "[<&\"\\\\é🎬a-z]{0,800}", lines in 0usize..150) {
            let text = vec![line; lines].join("\n");
            prop_assert!(body(Format::AdaptiveCard, &text).len() <= MAX_CARD_BYTES);
            let message = parsed(Format::Text, &text);
            prop_assert!(message["text"].as_str().unwrap().chars().count() <= MAX_TEXT_CHARACTERS);
        }
    }
}
