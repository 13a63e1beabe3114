//! Every format Flannel reads or writes.
