//! Subnet leases: the store trait, allocation, and the embedded file store.
