//! Tests of real machines: the built tool, a real kernel, real networks. One after the other, in any order, each by itself: it begins
//! with no lab, or with one that comes back from the checkpoint that its first `up` kept (a boot takes half a minute under emulation),
//! and ends with a look for leaks.
//!
//! `scripts/test machines` builds what they need. Names given as arguments choose; `--skip` leaves out.

#[path = "../another/mod.rs"]
mod another;
mod bare;
mod ccr;
mod full_disk;
mod mutations;
mod soak;
mod tool;

use libtest_mimic::{Arguments, Failed, Trial};
use std::sync::Arc;
use tool::{Lab, Tool, same};

fn main() {
    let mut args = Arguments::from_args();
    // Each test looks for leaks of everything.
    args.test_threads = Some(1);
    let tool = Arc::new(Tool::find());
    let soak = std::env::var_os("FAILOVERLAB_SOAK");
    let soak = soak.map_or(Vec::new(), |_| [soak::TRIALS, mutations::SOAK].concat());
    let trial = |(name, test): (&'static str, Test)| {
        let tool = tool.clone();
        Trial::test(name, move || test.run(&tool).map_err(Failed::from))
    };
    let full_disk = {
        let tool = tool.clone();
        Trial::ignorable_test(full_disk::NAME, move || full_disk::test(&tool).map_err(Failed::from))
    };
    let bare = bare::TRIALS.iter().copied().map(trial).chain([full_disk]);
    let rest = [ccr::TRIALS, &soak].concat().into_iter().map(trial);
    let trials = bare.chain(rest).collect();
    if !args.list {
        // The home stays: a run that was cut off has left its labs there, and every look for leaks would find them.
        tool.clean_up();
    }
    let conclusion = libtest_mimic::run(&args, trials);
    tool.clean_up();
    conclusion.exit();
}

/// A test: fails with what was seen.
#[derive(Debug, Clone, Copy)]
pub enum Test {
    /// It brings up what it needs.
    Alone(fn(&Tool) -> Result<(), String>),
    /// The lab of this name is up. Nothing of it is left afterwards.
    With(&'static str, fn(&Tool) -> Result<(), String>),
}

impl Test {
    fn run(self, tool: &Tool) -> Result<(), String> {
        match self {
            Self::Alone(test) => {
                test(tool).inspect_err(|_| tool.clean_up())?;
                same("leaks", tool.leaks(&[]), Vec::new())
            }
            Self::With(lab, test) => {
                let lab = Lab::up(tool, lab, &[])?;
                test(tool)?;
                lab.down()
            }
        }
    }
}
