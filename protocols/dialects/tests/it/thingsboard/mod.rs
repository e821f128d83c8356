//! ThingsBoard by tables: every topic, URL and payload of its specification, and what is refused.

mod attributes;
mod calls;
mod claim;
mod connect;
mod credentials;
mod decimal;
mod filters;
mod json;
mod limits;
mod mqtt;
mod ota;
mod support;
mod topics;
mod values;
