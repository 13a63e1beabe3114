//! The bare program that plugins are measured against, started as a runtime starts a plugin.

fn main() -> anyhow::Result<()> {
    conformance_floor::run()
}
