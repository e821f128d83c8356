//! Topic filters, matched level by level. Slow and obvious on purpose: it judges a fast matcher.

/// Whether a topic filter matches a topic (MQTT 5.0, 4.7).
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('+') || filter.starts_with('#')) {
        return false;
    }
    let mut levels = topic.split('/');
    for want in filter.split('/') {
        if want == "#" {
            return true;
        }
        match levels.next() {
            Some(level) if want == "+" || want == level => {}
            Some(_) | None => return false,
        }
    }
    levels.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_match_as_the_specification_says() {
        #[rustfmt::skip]
        let table = [
            ("a/b",     "a/b",    true),
            ("a/b",     "a/b/c",  false),
            ("a/b/c",   "a/b",    false),
            ("a/+",     "a/b",    true),
            ("a/+",     "a/",     true),
            ("a/+",     "a",      false),
            ("a/#",     "a",      true),
            ("a/#",     "a/b/c",  true),
            ("a/#",     "ab",     false),
            ("#",       "a/b",    true),
            ("#",       "$SYS/a", false),
            ("+/a",     "$SYS/a", false),
            ("$SYS/#",  "$SYS/a", true),
            ("+/+",     "/a",     true),
        ];
        for (filter, topic, expected) in table {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }
}
