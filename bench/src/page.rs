//! The parts of docs/PERFORMANCE.md that the bench writes: what stands between their marks. The rest is a person's.

/// A part of the page, by its mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Conditions,
    Costs,
    Bars,
    Growth,
}

impl Part {
    fn mark(self) -> &'static str {
        match self {
            Self::Conditions => "conditions",
            Self::Costs => "costs",
            Self::Bars => "bars",
            Self::Growth => "growth",
        }
    }
}

/// A page that a part can't be written to.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the page has no line {0:?}")]
pub(crate) struct NoMark(String);

/// The page with this in the part's place.
pub(crate) fn replace(page: &str, part: Part, content: &str) -> Result<String, NoMark> {
    let (begin, end) =
        (format!("<!-- bench: {} -->\n", part.mark()), format!("<!-- bench: end of {} -->\n", part.mark()));
    let missing = |mark: &str| NoMark(mark.trim_end().to_owned());
    let (before, rest) = page.split_once(&begin).ok_or_else(|| missing(&begin))?;
    let (_, after) = rest.split_once(&end).ok_or_else(|| missing(&end))?;
    Ok(format!("{before}{begin}\n{}\n\n{end}{after}", content.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = "a\n<!-- bench: bars -->\nold\n<!-- bench: end of bars -->\nz\n";

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let once = replace(PAGE, Part::Bars, "new\n").unwrap();
        assert_eq!(once, "a\n<!-- bench: bars -->\n\nnew\n\n<!-- bench: end of bars -->\nz\n");
        assert_eq!(replace(&once, Part::Bars, "new").unwrap(), once);
    }

    #[test]
    fn a_page_without_marks_is_left_alone() {
        let missing = replace(PAGE, Part::Costs, "new").unwrap_err();
        assert_eq!(missing.to_string(), "the page has no line \"<!-- bench: costs -->\"");
        let cut = PAGE.replace("end of", "");
        assert!(replace(&cut, Part::Bars, "new").is_err());
    }
}
