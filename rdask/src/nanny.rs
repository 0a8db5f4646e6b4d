//! nanny

pub mod cache;
pub mod child;
pub mod probe;
