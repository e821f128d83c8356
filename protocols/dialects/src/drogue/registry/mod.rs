//! Applications and devices as the registry's API says them (§3.2, §3.9).
//!
//! | file | what |
//! |---|---|
//! | `device.rs` | what of a device is kept with it, and its sections that count |
//! | `credentials.rs` | passwords, users and keys of a device |
//! | `labels.rs` | selectors |
//! | `resource.rs` | devices and applications as they are shown and written |
//! | `patch.rs` | JSON patches and merge patches |
//! | `route.rs` | paths, methods and parameters of the API |

pub mod credentials;
pub mod device;
pub mod labels;
pub mod patch;
pub mod resource;
pub mod route;
