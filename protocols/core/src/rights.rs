//! Which topics a client may publish to, subscribe to and read: patterns, compared level by level.
//!
//! ```text
//!   pattern    plants / {device} / + / #          levels: exact, the client's own, any one, all the rest
//! ```
//!
//! # Invariants
//!
//! - **Nothing a client says becomes part of a pattern.** A placeholder is a whole level and is compared with what the registry
//!   knows of the device, byte by byte: a device called `#` or `a/b` gets no more by it.
//! - **A filter is allowed only if one pattern covers it**: whatever the filter matches, that pattern matches. Checked by
//!   `a_covered_filter_matches_nothing_outside`.
//! - **Nothing given is nothing allowed**: empty rules deny everything.
//! - **No allocation to decide**, and time in the length of topic and patterns. Checked by `examples/rights_speed.rs`.
//!
//! # Deliberately absent
//!
//! Where rules are kept, and when they are asked (`node/service`).

use std::{fmt, sync::Arc};

use crate::{
    Text,
    topic::{self, levels},
};

/// Patterns of one list. Each publish may be compared with all of them.
pub const PATTERNS_MAX: usize = 64;
/// Bytes of a pattern.
pub const PATTERN_BYTES_MAX: usize = 512;

/// Who a client is to patterns: a device, as its tenant's registry knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// Its name in the tenant.
    pub device: Text,
    /// Which device of that name.
    pub born: u64,
    /// What sort of thing it is; without one `{type}` is no level of any topic.
    pub kind: Option<Text>,
    /// `device` or `gateway`.
    pub class: &'static str,
    /// In the place of its tenant's.
    pub own: Option<Rules>,
}

/// Why a text is no pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It is no topic filter.
    #[error("it is no topic filter: + and # fill a level, # the last one")]
    Filter,
    /// Braces that are no placeholder.
    #[error("a placeholder fills a level: {{device}}, {{type}} or {{class}}")]
    Placeholder,
    /// `$share/…`: rights are about what is shared.
    #[error("give the filter without $share and the share's name")]
    Shared,
    /// It has more than [`PATTERN_BYTES_MAX`].
    #[error("it has more than {PATTERN_BYTES_MAX} bytes")]
    TooLarge,
    /// A list has more than [`PATTERNS_MAX`].
    #[error("a list has more than {PATTERNS_MAX} patterns")]
    TooMany,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Level {
    Exact(Text),
    Device,
    Type,
    Class,
    /// `+`
    Any,
    /// `#`
    Rest,
}

/// A topic filter whose levels may be placeholders.
#[derive(Clone, PartialEq, Eq)]
pub struct Pattern {
    text: Text,
    levels: Arc<[Level]>,
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    ///
    /// [`PatternError`].
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        if text.len() > PATTERN_BYTES_MAX {
            return Err(PatternError::TooLarge);
        }
        if !topic::is_filter(text.as_bytes()) {
            return Err(PatternError::Filter);
        }
        if topic::share(text.as_bytes()).is_some() {
            return Err(PatternError::Shared);
        }
        let level = |level: &str| match level {
            "+" => Ok(Level::Any),
            "#" => Ok(Level::Rest),
            "{device}" => Ok(Level::Device),
            "{type}" => Ok(Level::Type),
            "{class}" => Ok(Level::Class),
            braces if braces.contains(['{', '}']) => Err(PatternError::Placeholder),
            exact => Ok(Level::Exact(Text::from(exact))),
        };
        let levels = text.split('/').map(level).collect::<Result<_, _>>()?;
        Ok(Self { text: Text::from(text), levels })
    }

    /// As it was written.
    #[must_use]
    pub fn text(&self) -> &Text {
        &self.text
    }

    /// Whether it matches a topic name.
    #[must_use]
    pub fn matches(&self, who: Option<&Who>, name: &[u8]) -> bool {
        if self.is_shy_of(name) {
            return false;
        }
        let mut names = levels(name);
        for level in &*self.levels {
            if *level == Level::Rest {
                return true;
            }
            match names.next() {
                Some(name) if level.fits(who, name) => {}
                Some(_) | None => return false,
            }
        }
        names.next().is_none()
    }

    /// Whether it matches all that a filter matches. Says no where only several patterns together would.
    #[must_use]
    pub fn covers(&self, who: Option<&Who>, filter: &[u8]) -> bool {
        if self.is_shy_of(filter) {
            return false;
        }
        let mut asked = levels(filter);
        for level in &*self.levels {
            if *level == Level::Rest {
                return true;
            }
            match asked.next() {
                None | Some(b"#") => return false,
                Some(b"+") if *level == Level::Any => {}
                Some(b"+") => return false,
                Some(asked) if level.fits(who, asked) => {}
                Some(_) => return false,
            }
        }
        asked.next().is_none()
    }

    /// Whether there may be a topic name that both match.
    #[must_use]
    pub fn overlaps(&self, who: Option<&Who>, filter: &[u8]) -> bool {
        let dollar = |level: Option<&Level>| match level {
            Some(Level::Exact(text)) => text.as_bytes().starts_with(b"$"),
            Some(_) | None => false,
        };
        let wild = filter.starts_with(b"+") || filter.starts_with(b"#");
        if self.is_shy_of(filter) || wild && dollar(self.levels.first()) {
            return false;
        }
        let (mut own, mut asked) = (self.levels.iter(), levels(filter));
        loop {
            match (own.next(), asked.next()) {
                (None, None) | (Some(Level::Rest), _) | (_, Some(b"#")) => return true,
                (Some(level), Some(asked)) if asked == b"+" || level.fits(who, asked) => {}
                (Some(_), Some(_)) | (None, Some(_)) | (Some(_), None) => return false,
            }
        }
    }

    /// A wildcard in front stands for no level that begins with `$` (MQTT 4.7.2), and neither does a device's name.
    fn is_shy_of(&self, topic: &[u8]) -> bool {
        topic.starts_with(b"$") && !matches!(self.levels.first(), Some(Level::Exact(_)))
    }
}

impl Level {
    /// Whether one level of a name is such a level. Of a filter: `+` and `#` are not.
    fn fits(&self, who: Option<&Who>, level: &[u8]) -> bool {
        let own = |of: Option<&[u8]>| of == Some(level);
        match self {
            Self::Exact(text) => text.as_bytes() == level,
            Self::Device => own(who.map(|who| who.device.as_bytes())),
            Self::Type => own(who.and_then(|who| who.kind.as_ref()).map(Text::as_bytes)),
            Self::Class => own(who.map(|who| who.class.as_bytes())),
            Self::Any | Self::Rest => true,
        }
    }
}

/// What may be published and subscribed to. The lists are patterns; what is denied is taken from what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rules(Arc<Lists>);

/// The lists of [`Rules`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lists {
    /// Topics that may be published to.
    pub publish: Vec<Pattern>,
    /// Topics that may be subscribed to and read.
    pub subscribe: Vec<Pattern>,
    /// Topics that may not be published to all the same.
    pub deny_publish: Vec<Pattern>,
    /// Topics that may not be read all the same. A filter that is wider than them is granted, and brings what is left.
    pub deny_subscribe: Vec<Pattern>,
}

impl Rules {
    /// Rules of these lists.
    ///
    /// # Errors
    ///
    /// [`PatternError::TooMany`].
    pub fn of(lists: Lists) -> Result<Self, PatternError> {
        let Lists { publish, subscribe, deny_publish, deny_subscribe } = &lists;
        let longest = [publish, subscribe, deny_publish, deny_subscribe].map(Vec::len);
        if longest.into_iter().any(|patterns| patterns > PATTERNS_MAX) {
            return Err(PatternError::TooMany);
        }
        Ok(Self(Arc::new(lists)))
    }

    /// Everything below a device's own name: what a device may whose tenant says nothing.
    ///
    /// # Panics
    ///
    /// Never: it is a pattern.
    #[must_use]
    pub fn own_subtree() -> Self {
        let own = || vec![Pattern::parse("{device}/#").expect("it is a pattern")];
        Self(Arc::new(Lists { publish: own(), subscribe: own(), ..Lists::default() }))
    }

    /// The lists.
    #[must_use]
    pub fn lists(&self) -> &Lists {
        &self.0
    }

    /// Whether a topic name may be published to.
    #[must_use]
    pub fn may_publish(&self, who: Option<&Who>, name: &[u8]) -> bool {
        let any = |list: &[Pattern]| list.iter().any(|pattern| pattern.matches(who, name));
        any(&self.0.publish) && !any(&self.0.deny_publish)
    }

    /// Whether what was published to a topic name may be read.
    #[must_use]
    pub fn may_read(&self, who: Option<&Who>, name: &[u8]) -> bool {
        let any = |list: &[Pattern]| list.iter().any(|pattern| pattern.matches(who, name));
        any(&self.0.subscribe) && !any(&self.0.deny_subscribe)
    }

    /// Whether a filter may match what is denied.
    #[must_use]
    pub fn denies_part_of(&self, who: Option<&Who>, filter: &[u8]) -> bool {
        let filter = topic::share(filter).map_or(filter, |(_, inner)| inner);
        self.0.deny_subscribe.iter().any(|pattern| pattern.overlaps(who, filter))
    }

    /// Whether a filter may be subscribed to. What it matches beyond what may be read is not delivered; a share gets nothing
    /// of it, since what one member may not read another would miss: such a filter is refused.
    #[must_use]
    pub fn may_subscribe(&self, who: Option<&Who>, filter: &[u8]) -> bool {
        let (shared, filter) = match topic::share(filter) {
            Some((_, inner)) => (true, inner),
            None => (false, filter),
        };
        let denied = |pattern: &Pattern| match shared {
            true => pattern.overlaps(who, filter),
            false => pattern.covers(who, filter),
        };
        self.0.subscribe.iter().any(|pattern| pattern.covers(who, filter))
            && !self.0.deny_subscribe.iter().any(denied)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pump() -> Who {
        Who {
            device: Text::from("pump-1"),
            born: 7,
            kind: Some(Text::from("pump")),
            class: "device",
            own: None,
        }
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::parse(text).unwrap()
    }

    #[test]
    fn a_pattern_matches_what_its_levels_say() {
        #[rustfmt::skip]
        let table = [
            ("{device}/#", "pump-1", true),        ("{device}/#", "pump-1/a/b", true),
            ("{device}/#", "pump-10/a", false),    ("{device}/#", "pump-1x", false),
            ("{device}/#", "{device}/a", false),   ("{device}/#", "+/a", false),
            ("t/{type}/+", "t/pump/x", true),      ("t/{type}/+", "t/valve/x", false),
            ("{class}", "device", true),           ("{class}", "gateway", false),
            ("#", "a/b", true),                    ("#", "$SYS/a", false),
            ("$SYS/#", "$SYS/a", true),            ("+/a", "$SYS/a", false),
            ("a/+", "a/b", true),                  ("a/+", "a", false),
            ("a/#", "a", true),                    ("a", "a/b", false),
        ];
        for (text, name, expected) in table {
            let found = pattern(text).matches(Some(&pump()), name.as_bytes());
            assert_eq!(found, expected, "{text} on {name}");
        }
        assert!(!pattern("{device}/#").matches(None, b"pump-1"), "nobody has a name");
    }

    #[test]
    fn a_name_is_never_a_wildcard() {
        for name in ["#", "+", "a/b", "${tenant}", ".*", "^", "(?i)", "$SYS", "", "{device}"] {
            let who = Who { device: Text::from(name), ..pump() };
            let own = pattern("{device}/#");
            for other in ["other/x", "a/c", "$SYS/x", "x"] {
                assert!(!own.matches(Some(&who), other.as_bytes()), "{name} on {other}");
            }
            for filter in ["#", "+/#", "+/x", "$SYS/#", "a/+", "a/#"] {
                assert!(!own.covers(Some(&who), filter.as_bytes()), "{name} covers {filter}");
            }
        }
    }

    #[test]
    fn a_filter_is_covered_by_one_pattern_or_not_at_all() {
        #[rustfmt::skip]
        let table = [
            ("{device}/#", "pump-1/#", true),      ("{device}/#", "pump-1/+/x", true),
            ("{device}/#", "pump-1", true),        ("{device}/#", "+/x", false),
            ("{device}/#", "#", false),            ("#", "#", true),
            ("#", "+/+", true),                    ("#", "$SYS/#", false),
            ("a/+", "a/+", true),                  ("a/+", "a/#", false),
            ("a/+", "a/b", true),                  ("a/+/c", "a/b/+", false),
            ("a/+/#", "a/#", false),               ("$SYS/#", "$SYS/broker/#", true),
            ("a/b", "a/+", false),                 ("a/b", "a/b/c", false),
        ];
        for (text, filter, expected) in table {
            let found = pattern(text).covers(Some(&pump()), filter.as_bytes());
            assert_eq!(found, expected, "{text} covers {filter}");
        }
    }

    #[test]
    fn rules_take_what_is_denied_from_what_is_allowed() {
        let list = |texts: &[&str]| texts.iter().map(|text| pattern(text)).collect::<Vec<_>>();
        let rules = Rules::of(Lists {
            publish: list(&["#"]),
            subscribe: list(&["#"]),
            deny_publish: list(&["alarms/#"]),
            deny_subscribe: list(&["secret/+/key"]),
        })
        .unwrap();
        let publish = |name: &str| rules.may_publish(None, name.as_bytes());
        let read = |name: &str| rules.may_read(None, name.as_bytes());
        let subscribe = |filter: &str| rules.may_subscribe(None, filter.as_bytes());
        assert!(publish("a") && !publish("alarms") && !publish("alarms/x") && !publish("$SYS/a"));
        assert!(read("secret/a") && !read("secret/a/key"));
        assert!(subscribe("#") && !subscribe("secret/a/key") && !subscribe("secret/+/key"));
        assert!(subscribe("secret/#"), "it brings what is left");
        assert!(!subscribe("$share/g/#") && !subscribe("$share/g/secret/#"), "a share would not");
        assert!(subscribe("$share/g/plain/#") && !subscribe("$share/g/$SYS/#"));
        let none = Rules::default();
        assert!(!none.may_publish(None, b"a") && !none.may_read(None, b"a"));
        assert!(!none.may_subscribe(None, b"a"), "nothing given is nothing allowed");
    }

    #[test]
    fn what_is_no_pattern_is_refused() {
        for (text, why) in [
            ("", PatternError::Filter),
            ("a/#/b", PatternError::Filter),
            ("a+", PatternError::Filter),
            ("x{device}", PatternError::Placeholder),
            ("{tenant}/#", PatternError::Placeholder),
            ("{device", PatternError::Placeholder),
            ("$share/g/a", PatternError::Shared),
        ] {
            assert_eq!(Pattern::parse(text), Err(why), "{text}");
        }
        let long = "a".repeat(PATTERN_BYTES_MAX + 1);
        assert_eq!(Pattern::parse(&long), Err(PatternError::TooLarge));
        let many = vec![pattern("a"); PATTERNS_MAX + 1];
        let lists = Lists { publish: many, ..Lists::default() };
        assert_eq!(Rules::of(lists), Err(PatternError::TooMany));
    }

    fn topics(levels: &'static str) -> impl Strategy<Value = String> {
        prop::collection::vec(prop::sample::select(levels.split(' ').collect::<Vec<_>>()), 1..5)
            .prop_map(|levels| levels.join("/"))
    }

    proptest! {
        #[test]
        fn a_covered_filter_matches_nothing_outside(
            text in topics("a b + # {device} {type} $x"),
            filter in topics("a b + # pump-1 pump $x"),
            name in topics("a b pump-1 pump $x"),
        ) {
            prop_assume!(topic::is_filter(filter.as_bytes()));
            let Ok(pattern) = Pattern::parse(&text) else { return Ok(()) };
            let who = pump();
            let (own, name) = (pattern.matches(Some(&who), name.as_bytes()), name.as_bytes());
            let both = own && topic::matches(filter.as_bytes(), name);
            if pattern.covers(Some(&who), filter.as_bytes()) && topic::matches(filter.as_bytes(), name) {
                prop_assert!(own, "{text} covers {filter}, and not {name:?}");
            }
            if both {
                prop_assert!(pattern.overlaps(Some(&who), filter.as_bytes()));
            }
            // Without placeholders a pattern is a filter.
            if !text.contains('{') {
                prop_assert_eq!(own, topic::matches(text.as_bytes(), name));
            }
        }
    }
}
