//! Ways around a protected table.
