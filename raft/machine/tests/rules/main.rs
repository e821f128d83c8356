//! What each command does, and that replicas agree: one module per subject.

#![allow(clippy::unwrap_used, reason = "a failed test says where")]

mod audit;
mod calls;
mod calls_model;
mod dedupe;
mod devices;
mod documents;
mod events;
mod events_model;
mod forget;
mod growth;
mod harness;
mod isolation;
mod levels;
mod mail;
mod mail_events;
mod mail_model;
mod members;
mod meta;
mod once;
mod placement;
mod presence;
mod queues;
mod replicas;
mod restore;
mod retained;
mod series;
mod sessions;
mod shares;
mod subscriptions;
mod tenants;
mod values;
mod values_model;
mod wills;
