//! Tests of whole clusters: real `moorline` processes, real disks, real sockets, clients of our own and of others.
//!
//! One binary, so that it links once. Tests that only talk to a cluster share one ([`harness::scenarios`]); tests that
//! hurt a cluster have their own.
//!
//! # Invariants
//!
//! - **Nothing outlives a test.** A node ends when its handle drops, and by itself when its standard input closes.
//! - **Every wait has a deadline**, and says what it waited for ([`harness::wait`]).
//! - **Ports come from the OS**, on a loopback address of the cluster's own, so that a client's outgoing connection never
//!   takes the port of a node that is down.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(clippy::wildcard_enum_match_arm, reason = "a test waits for one packet of many")]

mod abuse;
mod access_keys;
mod audit;
mod backup;
mod bulk;
mod canaries;
mod clocks;
mod cluster_tls;
mod credentials;
mod delivery;
mod disks;
mod doctor;
mod drogue;
mod drogue_applications;
mod drogue_certificates;
mod drogue_hashes;
mod drogue_mends;
mod drogue_outward;
mod events;
mod explain;
mod failures;
mod fostrom;
mod harness;
mod isolation;
mod levels;
mod losant;
mod losant_certificates;
mod losant_limits;
mod losant_rest;
mod losant_values;
mod mail_everywhere;
mod members;
mod mixed;
mod moved;
mod once;
mod operating;
mod presence;
mod quorum;
mod quotas;
mod registry;
mod reload;
mod retained;
mod rights;
mod sessions;
mod shares;
mod single;
mod space;
mod storm;
mod supervised;
mod thingsboard;
mod thingsboard_calls;
mod thingsboard_chain;
mod thingsboard_gateway;
mod thingsboard_http;
mod thingsboard_limits;
mod thingsboard_many;
mod thingsboard_own_calls;
mod thingsboard_packages;
mod thingsboard_profiles;
mod thingsboard_rest;
mod thingsboard_socket;
mod thingsboard_sparkplug;
mod tls;
mod watson;
mod watson_certificates;
mod watson_gateways;
mod watson_http;
mod watson_managed;
mod watson_quickstart;
mod watson_rest;
mod webhooks;
mod wills;
