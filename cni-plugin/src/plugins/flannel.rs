//! The plugin `flannel`: turns the node's subnet file into the configuration of another plugin, and remembers it.

mod cmd;
mod conf;
mod note;
mod state;

pub(crate) use cmd::{add, check, del, gc, status};
