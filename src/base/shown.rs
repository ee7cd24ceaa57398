//! Escapes untrusted text for terminals: file names and messages may contain characters that move the cursor, change colours or
//! reverse the text.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a character controls the terminal or the layout: Unicode's control characters (including ESC, the 8-bit CSI and line
/// breaks), line and paragraph separators, and overrides of the writing direction (UAX #9).
fn is_control(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escape(text: &str, is_control: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&is_control) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            c if !is_control(c) => shown.push(c),
            '\n' => shown.push_str("\\n"),
            '\r' => shown.push_str("\\r"),
            '\t' => shown.push_str("\\t"),
            c => {
                let _ = write!(shown, "\\u{:04x}", u32::from(c));
            }
        }
    }
    Cow::Owned(shown)
}

/// Text on one line, with control characters escaped as in JSON: `\n`, `\u001b`.
pub fn escaped(text: &str) -> Cow<'_, str> {
    escape(text, is_control)
}

/// Text of several lines, such as JSON, with control characters escaped except line breaks and tabs. JSON keeps its meaning.
pub fn visible(text: &str) -> Cow<'_, str> {
    escape(text, |c| is_control(c) && c != '\n' && c != '\t')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_acts_is_escaped_and_the_rest_stays() {
        let name = "a\u{1b}[2J\u{9b}31m\u{7f}\r\n\t\u{202e}4pm.exe é 日本 \u{200f}שלום \\n";
        assert_eq!(
            escaped(name),
            "a\\u001b[2J\\u009b31m\\u007f\\r\\n\\t\\u202e4pm.exe é 日本 \u{200f}שלום \\n"
        );
        assert!(matches!(escaped("plain -name.mp4"), Cow::Borrowed(_)));
        let json = serde_json::to_string_pretty(&serde_json::json!({ "name": name })).unwrap();
        let shown = visible(&json);
        assert_eq!(shown.lines().count(), 3);
        assert!(!shown.contains(['\u{9b}', '\u{202e}', '\u{7f}']));
        let read: serde_json::Value = serde_json::from_str(&shown).unwrap();
        assert_eq!(read["name"], name);
    }
}
