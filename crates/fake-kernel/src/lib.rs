//! Test support: a kernel in memory that behaves as measured.
