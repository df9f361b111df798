//! Roles that could get past row security, and the server they meet.
