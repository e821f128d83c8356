//! ThingsBoard, and IndustryOS, which is the same: telemetry, attributes, calls, packages, over MQTT, HTTP, CoAP, LwM2M.
//!
//! ```text
//!   what was said
//!     connect, credentials   who a device is
//!     naming                 what a certificate calls it
//!     topics, filters, mqtt  MQTT's addresses, and its reasons
//!     http, query            HTTP's addresses and answers
//!     coap                   CoAP's
//!   what it means, whatever it came by
//!     requests               what the core is asked, and what it says
//!     payloads               bytes to requests, answers to bytes: JSON or protobuf, as the profile says
//!     values, decimal, json  what is kept of a value
//!     attributes, calls, claim, provision, ota, checksum, gateway
//!     profile, proto         a profile, its schemas
//!     limits, meters         rate limits, and who has how much left of them
//!     sparkplug              Sparkplug B over MQTT, all of it: topics, payloads, a node's life
//!   what integrators see     rest
//! ```
//!
//! # Invariants
//!
//! - **The transport is not known below its files.** Payloads, attributes and calls are the same by all of them; only
//!   `connect`, `topics`, `filters`, `mqtt`, `sparkplug`, `http` and `coap` know an address. Checked by reading.
//! - **No clock, no chance.** Times and ids are arguments. Checked by `chaos-tests/tidy`.
//!
//! The README beside this file lists all addresses.
//!
//! # Deliberately absent
//!
//! Sessions, subscriptions and what waits for a device: they belong to the core. SNMP, where the platform asks.

pub mod attributes;
pub mod calls;
pub mod checksum;
pub mod claim;
pub mod coap;
pub mod connect;
pub mod credentials;
pub mod decimal;
pub mod export;
pub mod filters;
pub mod gateway;
pub mod http;
pub mod invalid;
pub mod json;
pub mod limits;
pub mod mail;
pub mod meters;
pub mod mqtt;
pub mod naming;
pub mod ota;
pub mod payloads;
pub mod profile;
pub mod proto;
pub mod provision;
pub mod query;
pub mod requests;
pub mod rest;
pub mod sparkplug;
pub mod topics;
pub mod values;
