//! Recordings and traces of others, beside the checkout where they are at hand. A user's clone does not
//! have them, so a test that needs them skips with a message, unless TAILCAST_REQUIRE_SHARED=1.

use std::path::PathBuf;

/// The folder `part` of the shared material, or none with a message.
///
/// # Panics
/// If it is absent while `TAILCAST_REQUIRE_SHARED=1`.
#[expect(clippy::disallowed_methods, reason = "what is at hand is told by the environment")]
#[expect(clippy::print_stderr, reason = "a skipped test must say so")]
pub(crate) fn shared(part: &str) -> Option<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared").join(part);
    if folder.exists() {
        return Some(folder);
    }
    let required = std::env::var("TAILCAST_REQUIRE_SHARED").is_ok_and(|value| value == "1");
    assert!(!required, "TAILCAST_REQUIRE_SHARED=1, but there is no {}", folder.display());
    eprintln!("skipped: {} is not here", folder.display());
    None
}
