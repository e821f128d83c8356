//! Topic names and filters: what is well-formed (MQTT 4.7), and the naive matcher that the trie is checked against.

/// Longest topic name or filter in bytes that the wire allows (MQTT 1.5.4).
pub const TOPIC_BYTES_MAX: usize = 65_535;

/// Whether `name` may be published to: not empty, no wildcard, no U+0000.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    !name.is_empty()
        && name.len() <= TOPIC_BYTES_MAX
        && !name.iter().any(|byte| matches!(byte, b'+' | b'#' | 0))
}

/// Whether `filter` may be subscribed to: not empty, no U+0000, `+` fills its level, `#` fills the last one.
/// A `$share/…` filter is a plain filter to this function; [`share`] tells them apart.
#[must_use]
pub fn is_filter(filter: &[u8]) -> bool {
    if filter.is_empty() || filter.len() > TOPIC_BYTES_MAX || filter.contains(&0) {
        return false;
    }
    let mut levels = levels(filter).peekable();
    while let Some(level) = levels.next() {
        let fits = match level {
            b"+" => true,
            b"#" => levels.peek().is_none(),
            other => !other.iter().any(|byte| matches!(byte, b'+' | b'#')),
        };
        if !fits {
            return false;
        }
    }
    true
}

/// Whether a filter has a wildcard, and so may match more than one name.
#[must_use]
pub fn has_wildcard(filter: &[u8]) -> bool {
    filter.iter().any(|byte| matches!(byte, b'+' | b'#'))
}

/// The levels of a name or filter: `a//b` has three, the middle one empty.
pub fn levels(topic: &[u8]) -> impl Iterator<Item = &[u8]> {
    topic.split(|&byte| byte == b'/')
}

/// Splits `$share/group/filter`; `None` for a filter that is not shared.
#[must_use]
pub fn share(filter: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = filter.strip_prefix(b"$share/")?;
    let slash = rest.iter().position(|&byte| byte == b'/')?;
    Some((&rest[..slash], &rest[slash + 1..]))
}

/// Whether a well-formed `filter` matches a well-formed `name` (MQTT 4.7): the slow, obvious way.
///
/// Wildcards in the first level do not match a name that begins with `$` (4.7.2).
#[must_use]
pub fn matches(filter: &[u8], name: &[u8]) -> bool {
    if name.starts_with(b"$") && (filter.starts_with(b"+") || filter.starts_with(b"#")) {
        return false;
    }
    let mut names = levels(name);
    for level in levels(filter) {
        if level == b"#" {
            return true;
        }
        match names.next() {
            Some(name) if level == b"+" || level == name => {}
            _ => return false,
        }
    }
    names.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_standard_says() {
        #[rustfmt::skip]
        let table: [(&str, &str, bool); 20] = [
            ("a", "a", true),            ("a", "b", false),          ("a", "a/b", false),
            ("a/#", "a", true),          ("a/#", "a/b/c", true),     ("a/#", "ab", false),
            ("#", "a/b", true),          ("#", "$SYS/x", false),     ("$SYS/#", "$SYS/x", true),
            ("+", "a", true),            ("+", "/a", false),         ("/+", "/a", true),
            ("+/+", "/a", true),         ("+/x", "$SYS/x", false),   ("a/+/c", "a//c", true),
            ("a/+", "a", false),         ("a/b", "a/b/", false),     ("été/+", "été/1", true),
            ("a/+/#", "a/b", true),      ("a/+/#", "a", false),
        ];
        for (filter, name, expected) in table {
            assert_eq!(matches(filter.as_bytes(), name.as_bytes()), expected, "{filter} on {name}");
        }
    }

    #[test]
    fn nothing_is_normalised() {
        // Composed and decomposed, case, empty levels, dots, a byte order mark, escapes.
        let pairs = [
            ("\u{e9}", "e\u{301}"),
            ("A", "a"),
            ("a/b", "a//b"),
            ("a", "/a"),
            ("a", "a/"),
            ("a/b", "a/./b"),
            ("a", "\u{feff}a"),
            ("a b", "a%20b"),
            ("a", "a "),
        ];
        for (one, other) in pairs {
            for (filter, name) in [(one, other), (other, one)] {
                assert!(!matches(filter.as_bytes(), name.as_bytes()), "{filter:?} on {name:?}");
                assert!(matches(name.as_bytes(), name.as_bytes()));
            }
        }
    }

    #[test]
    fn ill_formed_names_and_filters_are_seen() {
        for filter in ["", "a#", "a/#/b", "a+", "+a", "a\0b", "#/"] {
            assert!(!is_filter(filter.as_bytes()), "{filter:?}");
        }
        for filter in ["/", "//", "+", "#", "a/+/b/#", "$share/g/a"] {
            assert!(is_filter(filter.as_bytes()), "{filter:?}");
        }
        for name in ["", "a/+", "#", "a\0"] {
            assert!(!is_name(name.as_bytes()), "{name:?}");
        }
    }

    #[test]
    fn shared_filters_are_split() {
        assert_eq!(share(b"$share/g/a/b"), Some((&b"g"[..], &b"a/b"[..])));
        assert_eq!(share(b"$share/g"), None);
        assert_eq!(share(b"a/b"), None);
    }
}
