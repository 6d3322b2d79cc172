//! A line of a message. It quotes text from outside (names, object keys, reasons, user agents): whatever that is, it stays one
//! line of bounded length in which everything is visible, in its order.

/// The most characters of a line.
const MAX_LINE_CHARACTERS: usize = 800;

/// The line for a message: a longer one ends in `…`, and `�` replaces what is invisible.
pub(crate) fn one_line(line: &str) -> String {
    let mut characters = line.chars().map(|character| if is_hidden(character) { '\u{fffd}' } else { character });
    let mut text: String = characters.by_ref().take(MAX_LINE_CHARACTERS).collect();
    if characters.next().is_some() {
        text.pop();
        text.push('…');
    }
    text
}

/// Whether a character breaks the line, reorders its neighbours, or has no width.
/// <https://www.unicode.org/reports/tr36/#Bidirectional_Text_Spoofing>
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("events/dt=2026-11-21/hour=09/", "events/dt=2026-11-21/hour=09/")]
    #[case("one\ntwo\r\nthree", "one�two��three")]
    #[case("tab\tbell\u{7}null\0next\u{85}", "tab�bell�null�next�")]
    #[case("line\u{2028}paragraph\u{2029}", "line�paragraph�")]
    #[case("\u{202e}cod.exe", "�cod.exe")]
    #[case("zero\u{200b}width\u{feff}", "zero�width�")]
    #[case("Café 日本 ▁▇·… 🎬", "Café 日本 ▁▇·… 🎬")]
    fn invisible_characters_are_marked(#[case] line: &str, #[case] expected: &str) {
        assert_eq!(one_line(line), expected);
    }

    #[rstest]
    #[case(MAX_LINE_CHARACTERS, false)]
    #[case(MAX_LINE_CHARACTERS + 1, true)]
    fn a_long_line_ends_in_an_ellipsis(#[case] characters: usize, #[case] is_cut: bool) {
        let line = one_line(&"é".repeat(characters));
        assert_eq!((line.chars().count(), line.ends_with('…')), (MAX_LINE_CHARACTERS, is_cut));
    }

    proptest! {
        #[test]
        fn any_text_becomes_one_line(text in any::<String>()) {
            let line = one_line(&text);
            prop_assert!(line.chars().count() <= MAX_LINE_CHARACTERS && !line.chars().any(is_hidden));
            prop_assert_eq!(one_line(&line), line.clone());
        }
    }
}
