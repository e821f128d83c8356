//! Why an endpoint did not answer.

use thiserror::Error;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum Unanswered {
    /// This node asks nobody.
    #[error("this node asks nobody outside")]
    Disabled,
    /// It is no URL that may be asked.
    #[error("the URL can't be asked")]
    Url,
    /// There is no such method.
    #[error("the method can't be used")]
    Method,
    /// A header can't be sent, or there are too many.
    #[error("a header can't be sent")]
    Header,
    /// No address of the host may be asked.
    #[error("no address of the host may be asked")]
    Address,
    /// Too many requests are under way, of its tenant or of the node.
    #[error("too many requests are under way")]
    Busy,
    /// The host's name has no address.
    #[error("the host's name is not known")]
    Lookup,
    /// Nobody is there.
    #[error("nobody answers there")]
    Connect,
    /// Whoever is there did not take the connection in time.
    #[error("connecting took too long")]
    ConnectTimeout,
    /// TLS did not come about: a certificate that is not trusted, most often.
    #[error("TLS did not come about")]
    Tls,
    /// The answer was not there in time. The request may have been taken.
    #[error("the answer took too long")]
    Timeout,
    /// The connection broke off, or what came is no HTTP. The request may have been taken.
    #[error("the connection broke off")]
    Broken,
    /// The answer is too large. The request was taken.
    #[error("the answer is too large")]
    TooLarge,
}

impl Unanswered {
    /// All of them, by number.
    pub const ALL: [Self; 13] = [
        Self::Disabled,
        Self::Url,
        Self::Method,
        Self::Header,
        Self::Address,
        Self::Busy,
        Self::Lookup,
        Self::Connect,
        Self::ConnectTimeout,
        Self::Tls,
        Self::Timeout,
        Self::Broken,
        Self::TooLarge,
    ];

    /// For metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Url => "url",
            Self::Method => "method",
            Self::Header => "header",
            Self::Address => "address",
            Self::Busy => "busy",
            Self::Lookup => "lookup",
            Self::Connect => "connect",
            Self::ConnectTimeout => "connect_timeout",
            Self::Tls => "tls",
            Self::Timeout => "timeout",
            Self::Broken => "broken",
            Self::TooLarge => "too_large",
        }
    }

    /// Whether this node refused to ask, so that nobody outside saw anything of it.
    #[must_use]
    pub fn is_refusal(self) -> bool {
        match self {
            Self::Disabled
            | Self::Url
            | Self::Method
            | Self::Header
            | Self::Address
            | Self::Busy => true,
            Self::Lookup
            | Self::Connect
            | Self::ConnectTimeout
            | Self::Tls
            | Self::Timeout
            | Self::Broken
            | Self::TooLarge => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn numbers_and_names_are_their_own() {
        for (number, one) in Unanswered::ALL.into_iter().enumerate() {
            assert_eq!(one as usize, number, "{one:?}");
        }
        let names: BTreeSet<_> = Unanswered::ALL.map(Unanswered::name).into();
        assert_eq!(names.len(), Unanswered::ALL.len());
    }
}
