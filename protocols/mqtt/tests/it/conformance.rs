//! Statements of the standard that no other test is about.
