//! Patterns of names: `pump-*`. Of devices in the scope of a token, and of what a webhook wants.

/// In a pattern: anything, also nothing.
const ANYTHING: u8 = b'*';

/// Whether a text fits a pattern. Looks at each place at most once for each `*`.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at_pattern, mut at_text) = (0, 0);
    // Where the last `*` was, and how much it stands for.
    let mut star: Option<(usize, usize)> = None;
    while at_text < text.len() {
        match pattern.get(at_pattern) {
            Some(&ANYTHING) => {
                star = Some((at_pattern + 1, at_text));
                at_pattern += 1;
            }
            Some(byte) if *byte == text[at_text] => {
                at_pattern += 1;
                at_text += 1;
            }
            Some(_) | None => {
                let Some((behind, taken)) = star else { return false };
                star = Some((behind, taken + 1));
                (at_pattern, at_text) = (behind, taken + 1);
            }
        }
    }
    pattern[at_pattern..].iter().all(|byte| *byte == ANYTHING)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        #[rustfmt::skip]
        let table = [
            ("pump-1", "pump-1", true), ("pump-1", "pump-2", false), ("pump-1", "pump-10", false),
            ("pump-*", "pump-", true), ("pump-*", "pump-1", true), ("pump-*", "valve-1", false),
            ("*", "", true), ("*", "anything", true), ("", "", true), ("", "x", false),
            ("*-1", "pump-1-1", true), ("a*b*c", "a-b-b-c", true), ("a*b*c", "a-c-b", false), ("**x", "x", true),
            // Nothing else means anything.
            (".*", "pump", false), ("pump-?", "pump-1", false), ("[a-z]", "a", false), ("#", "x", false),
        ];
        for (pattern, text, expected) in table {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn many_stars_take_no_longer() {
        let (pattern, text) = ("*a".repeat(100), "a".repeat(99) + "b");
        assert!(!fits(&pattern, &text.repeat(20)));
    }
}
