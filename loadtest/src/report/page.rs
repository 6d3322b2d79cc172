//! What every page of ours has in common.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::figures::Figure;

const STYLE: &str = include_str!("style.css");

/// A whole page.
pub(crate) fn page(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (title) }
                style { (PreEscaped(STYLE)) }
            }
            body { (body) }
        }
    };
    page.into_string()
}

/// A plot under its title and its legend.
pub(crate) fn figure(figure: &Figure) -> Markup {
    html! {
        figure {
            figcaption {
                (figure.title)
                @for (colour, label) in &figure.legend {
                    span.legend { i style=(format!("background:{colour}")) {} (label) }
                }
            }
            // Made here from numbers and our own texts: there is nothing in it to escape.
            (PreEscaped(&figure.svg))
        }
    }
}
