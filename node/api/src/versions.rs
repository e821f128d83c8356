//! Versions as entity tags: `ETag: "17"`, `If-Match: "17"`, `If-None-Match: *`.

use axum::{
    extract::FromRequestParts,
    http::{
        HeaderMap, HeaderValue,
        header::{ETAG, IF_MATCH, IF_NONE_MATCH},
        request::Parts,
    },
};

use crate::Problem;

/// On which version a write depends: the `if_version` of commands.
#[derive(Debug)]
pub(crate) struct IfVersion(pub(crate) Option<u64>);

fn parse(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    if let Some(none) = headers.get(IF_NONE_MATCH) {
        return match none.as_bytes() {
            b"*" => Ok(Some(0)),
            _ => Err(Problem::malformed("If-None-Match takes only *")),
        };
    }
    let Some(wanted) = headers.get(IF_MATCH) else { return Ok(None) };
    let version = wanted.to_str().ok().and_then(|text| {
        text.strip_prefix('"')?
            .strip_suffix('"')?
            .parse::<u64>()
            .ok()
            .filter(|version| *version > 0)
    });
    version.map(Some).ok_or_else(|| Problem::malformed("If-Match takes one ETag as it was sent"))
}

/// Which versions whoever reads has already: `If-None-Match` of a GET.
#[derive(Debug)]
pub(crate) struct Known(Option<String>);

impl Known {
    /// Whether a version is among them, so that nothing has to be sent.
    pub(crate) fn has(&self, version: u64) -> bool {
        let Some(tags) = &self.0 else { return false };
        let tag = format!("\"{version}\"");
        tags.split(',')
            .map(str::trim)
            .any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
    }
}

impl<S: Sync> FromRequestParts<S> for Known {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let tags = parts.headers.get(IF_NONE_MATCH);
        Ok(Self(tags.and_then(|tags| tags.to_str().ok()).map(str::to_owned)))
    }
}

impl<S: Sync> FromRequestParts<S> for IfVersion {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parse(&parts.headers).map(Self)
    }
}

/// A version as a header.
pub(crate) fn etag(version: u64) -> [(axum::http::HeaderName, HeaderValue); 1] {
    let value = HeaderValue::from_str(&format!("\"{version}\"")).expect("digits and quotes");
    [(ETAG, value)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_version_is_not_sent_it_again() {
        let known = |tags: &str| Known(Some(tags.to_owned())).has(17);
        for tags in ["\"17\"", "*", "W/\"17\"", "\"3\", \"17\""] {
            assert!(known(tags), "{tags}");
        }
        for tags in ["", "17", "\"171\"", "\"1\", \"7\""] {
            assert!(!known(tags), "{tags}");
        }
        assert!(!Known(None).has(17));
    }

    #[test]
    fn conditions_read_as_versions() {
        #[rustfmt::skip]
        let table = [
            (None,                           Some(None)),
            (Some((IF_MATCH, "\"17\"")),     Some(Some(17))),
            (Some((IF_NONE_MATCH, "*")),     Some(Some(0))),
            (Some((IF_MATCH, "17")),         None),
            (Some((IF_MATCH, "\"0\"")),      None),
            (Some((IF_MATCH, "*")),          None),
            (Some((IF_NONE_MATCH, "\"1\"")), None),
        ];
        for (header, expected) in table {
            let headers =
                header.iter().cloned().map(|(name, value)| (name, HeaderValue::from_static(value)));
            assert_eq!(parse(&headers.collect()).ok(), expected, "{header:?}");
        }
    }
}
