//! Kernel change notices over an asynchronous multicast connection.
