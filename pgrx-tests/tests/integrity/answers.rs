//! What is said of all findings together: report, assertion, exceptions, diagnosis.
