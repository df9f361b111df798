//! Isolation proven by behaviour.
