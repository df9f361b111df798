//! Keys, indexes, sequences, privileges and conventions.
