//! Rows whose parent is gone: finding, repairing, keeping what was removed.
