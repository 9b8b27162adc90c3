//! Writes the sample traces of `traces/` anew. Run it from the root of the checkout; without a change to
//! the generator it writes the same bytes.

mod samples;

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("traces");
    for (name, text) in samples::all() {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}
