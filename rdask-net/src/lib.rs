//! rdask
