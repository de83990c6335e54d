//! Tests of real machines: the built tool, a real kernel, real networks. One after the other, each on what the one before
//! left (a boot takes half a minute under emulation); the last one of each lab takes it down and looks for leftovers.
//!
//! `scripts/test machines` builds what they need. Names given as arguments choose; `--skip` leaves out.

mod bare;
mod ccr;
mod soak;
mod tool;

use libtest_mimic::{Arguments, Failed, Trial};
use std::sync::Arc;
use tool::Tool;

fn main() {
    let mut args = Arguments::from_args();
    // Each test stands on the one before.
    args.test_threads = Some(1);
    let tool = Arc::new(Tool::find());
    let soak = std::env::var_os("FAILOVERLAB_SOAK").map_or(&[][..], |_| soak::TRIALS);
    let trials = [bare::TRIALS, ccr::TRIALS, soak]
        .concat()
        .into_iter()
        .map(|(name, test)| {
            let tool = tool.clone();
            Trial::test(name, move || test(&tool).map_err(Failed::from))
        })
        .collect();
    let conclusion = libtest_mimic::run(&args, trials);
    tool.clean_up();
    conclusion.exit();
}

/// A test: fails with what was seen.
pub type Test = fn(&Tool) -> Result<(), String>;
