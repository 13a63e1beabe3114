//! The report in the forms in which people and programs read it.

mod html;
mod json;
mod junit;
mod table;

pub(super) use html::html;
pub(super) use json::json;
pub(super) use junit::junit;
pub(super) use table::table;

#[cfg(test)]
mod tests;
