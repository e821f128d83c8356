//! Bodies of failures of the REST API.

use serde_json::{Value, json};

/// Codes of failures. The numbers are the vendor's: programs look at them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ErrorCode {
    /// Something failed.
    General = 2,
    /// User name or password are wrong, or there is no token.
    Authentication = 10,
    /// The token was good once.
    TokenExpired = 11,
    /// The password was good once.
    CredentialsExpired = 15,
    /// Not for this user.
    PermissionDenied = 20,
    /// The body can't be what it is.
    InvalidArguments = 30,
    /// A parameter can't be what it is.
    BadRequestParams = 31,
    /// There is no such thing.
    ItemNotFound = 32,
    /// A limit on requests is reached.
    TooManyRequests = 33,
    /// A limit on updates is reached.
    TooManyUpdates = 34,
    /// Somebody else has changed it.
    VersionConflict = 35,
    /// Not in this subscription.
    SubscriptionViolation = 40,
    /// The tenant has as many as it may.
    EntitiesLimit = 41,
    /// The password is too weak.
    PasswordViolation = 45,
    /// Storage failed.
    Database = 46,
}

impl ErrorCode {
    /// The status it comes with.
    #[must_use]
    pub fn status(self) -> u16 {
        match self {
            Self::General | Self::Database => 500,
            Self::Authentication
            | Self::TokenExpired
            | Self::CredentialsExpired
            | Self::PasswordViolation => 401,
            Self::PermissionDenied | Self::SubscriptionViolation | Self::EntitiesLimit => 403,
            Self::InvalidArguments | Self::BadRequestParams => 400,
            Self::ItemNotFound => 404,
            Self::TooManyRequests | Self::TooManyUpdates => 429,
            Self::VersionConflict => 409,
        }
    }

    /// What people are told when nobody knows better.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::General => "Internal server error",
            Self::Authentication => "Authentication failed",
            Self::TokenExpired => "Token has expired",
            Self::CredentialsExpired => "User password expired!",
            Self::PermissionDenied => "You don't have permission to perform this operation!",
            Self::InvalidArguments => "Invalid arguments",
            Self::BadRequestParams => "Invalid request parameters",
            Self::ItemNotFound => "Requested item wasn't found!",
            Self::TooManyRequests => "Too many requests for current tenant!",
            Self::TooManyUpdates => "Too many updates!",
            Self::VersionConflict => "The entity was changed by somebody else",
            Self::SubscriptionViolation => "Not allowed by the subscription",
            Self::EntitiesLimit => "The tenant's limit of entities is reached",
            Self::PasswordViolation => "The password does not meet the policy",
            Self::Database => "Storage failed",
        }
    }

    /// The body.
    #[must_use]
    pub fn body(self, message: &str, now_ms: i64) -> Value {
        json!({
            "status": self.status(),
            "message": message,
            "errorCode": self as u8,
            "timestamp": now_ms,
        })
    }
}
