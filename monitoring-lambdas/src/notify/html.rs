//! The HTML form of mails. Pure. What a message quotes was written by others: all of it is escaped, and nothing is loaded from
//! anywhere. Mail programs ignore style sheets, so styles are inline; colours are the program's own, light or dark.

use super::message::TO_DO;
use super::payload::is_web_address;

/// The most bytes of a page: Gmail cuts off mails of more than about 102 KB.
pub(crate) const MAX_PAGE_BYTES: usize = 100_000;

const FONT: &str = "font:15px/1.5 -apple-system,'Segoe UI',Roboto,Arial,sans-serif";
/// Long names break rather than widen the page.
const WRAP: &str = "overflow-wrap:anywhere";

/// Text as it may stand between tags and in quoted attributes.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

/// A page of blocks that are HTML, those that fit.
pub(crate) fn page(title: &str, blocks: &[String]) -> String {
    let title = escape(title);
    let head = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta name=\"color-scheme\" content=\"light dark\"><meta name=\"supported-color-schemes\" content=\"light dark\">\
         <title>{title}</title></head>\n\
         <body style=\"margin:0;padding:16px;{FONT};{WRAP}\"><div style=\"max-width:600px;margin:0 auto\">\n\
         <h1 style=\"font-size:20px;line-height:1.3;margin:0 0 12px\">{title}</h1>\n"
    );
    let tail = "</div></body></html>\n";
    let left_out = "<p>… more, too much for one mail</p>\n";
    let mut html = head;
    for block in blocks {
        if html.len() + block.len() + left_out.len() + tail.len() > MAX_PAGE_BYTES {
            html.push_str(left_out);
            break;
        }
        html.push_str(block);
        html.push('\n');
    }
    html + tail
}

/// A notice: its text with a paragraph a line, and a link to the runbook.
pub(crate) fn notice(subject: &str, text: &str) -> String {
    let blocks: Vec<String> = text.split("\n\n").map(|block| block.split('\n').map(paragraph).collect()).collect();
    let blocks: Vec<String> =
        blocks.into_iter().map(|block| format!("<div style=\"margin:0 0 16px\">{block}</div>")).collect();
    page(subject, &blocks)
}

fn paragraph(line: &str) -> String {
    let style = if line.starts_with("- ") { "margin:0 0 0 12px" } else { "margin:0" };
    format!("<p style=\"{style}\">{}</p>", content(line))
}

fn content(line: &str) -> String {
    if let Some(url) = line.strip_prefix(TO_DO).filter(|url| is_web_address(url)) {
        let url = escape(url);
        return format!("<b>{}</b><a href=\"{url}\">{url}</a>", escape(TO_DO));
    }
    match line.split_once(": ").filter(|_| !line.starts_with("- ")) {
        Some((label, value)) => format!("<b>{}:</b> {}", escape(label), escape(value)),
        None => escape(line),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a browser shows of a page's body, and the tags that it has.
    pub(crate) fn shown(html: &str) -> (String, Vec<String>) {
        let body = &html[html.find("<body").unwrap()..];
        let (mut text, mut tags) = (String::new(), Vec::new());
        let mut rest = body;
        while let Some((before, after)) = rest.split_once('<') {
            text.push_str(before);
            let (tag, next) = after.split_once('>').unwrap();
            tags.push(tag.split(' ').next().unwrap().to_owned());
            rest = next;
        }
        let unescaped = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
        (unescaped.replace("&amp;", "&"), tags)
    }

    #[test]
    fn the_runbook_alone_is_linked() {
        let text = "ALARM in prod: It is wrong.\nWhat to do: https://git.example.com/RUNBOOK.md#it\n- What to do: https://evil.example";
        let html = notice("ALARM: prod-it", text);
        assert_eq!(html.matches("<a ").count(), 1);
        assert!(html.contains("<a href=\"https://git.example.com/RUNBOOK.md#it\">"));
        assert!(!notice("s", "What to do: javascript:alert(1)").contains("<a "));
        assert!(!notice("s", "What to do: docs/RUNBOOK.md#it").contains("<a "));
    }

    #[test]
    fn a_page_loads_nothing() {
        let html = notice("<script src=//evil.example>", "<img src=\"https://evil.example/x\" onerror='a'> & style");
        let (_, tags) = shown(&html);
        assert!(
            tags.iter()
                .all(|tag| ["body", "/body", "div", "/div", "h1", "/h1", "p", "/p", "b", "/b", "/html"]
                    .contains(&&**tag))
        );
        assert!(!html.contains("<img") && !html.contains("<script") && !html.contains("url("));
    }

    #[test]
    fn a_page_that_is_too_long_says_so() {
        let blocks = |count: usize| vec!["x".repeat(999); count];
        assert!(!page("t", &blocks(98)).contains("too much"));
        let html = page("t", &blocks(200));
        assert!(html.len() <= MAX_PAGE_BYTES && html.contains("too much for one mail") && html.ends_with("</html>\n"));
    }

    proptest! {
        #[test]
        fn any_text_is_shown_as_it_is(text in "[^\\n\\r]{0,200}") {
            let (shown, tags) = shown(&notice("s", &format!("- {text}")));
            prop_assert!(shown.contains(&text), "{}", shown);
            prop_assert_eq!(tags.iter().filter(|tag| *tag == "p").count(), 1);
        }
    }
}
