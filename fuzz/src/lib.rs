//! What the fuzz targets do with their bytes. The tests of cni-plugin replay the corpora with the same code.

mod calls;
pub mod place;

pub use calls::run;
