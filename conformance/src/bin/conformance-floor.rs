//! The bare program that plugins are measured against; see `bench::floor` of the library.

fn main() -> anyhow::Result<()> {
    conformance::bench::floor()
}
