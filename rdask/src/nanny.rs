//! nanny

pub mod child;
pub mod probe;
