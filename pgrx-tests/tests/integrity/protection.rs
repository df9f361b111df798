//! What protects a table, and tables that nothing protects.
