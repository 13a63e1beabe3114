//! Durable small files: atomic replacement, locks, tolerant readers.
