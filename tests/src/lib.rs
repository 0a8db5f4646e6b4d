//! End-to-end tests of rdask live in `it/`.
