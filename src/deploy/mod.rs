//! Runtime packs: what a runtime is made of, how it gets into machines, how it is asked. The engine knows the contract, never the
//! runtime (docs/packs.md).
//!
//! `pack` is the contract's types, `render` fills in templates, `install` brings everything into a machine in two round trips,
//! `operate` asks the runtime and parses nothing but JSON.

mod check;
mod contract;
mod install;
mod mapping;
mod operate;
mod orders;
mod pack;
mod probing;
mod render;
mod secrets;
#[cfg(test)]
mod tests;

pub use check::check;
pub use contract::{Class, Contract, Held, HeldList, Map, ProbeSpec, Said};
pub use install::{Artifacts, DeployReport, deploy, early, early_digest, open_files};
pub use operate::{Answer, Watched, dump, follow_events, operate, status, watch};
pub use orders::{BadArgument, Done, OrderSpec, Orders, Parameter, Takes};
pub use pack::{
    Driver, FileSpec, LinkSpec, Pack, Part, Places, PlacesSpec, ProgramSpec, Role, SharePlace, StepSpec, Workload,
    WorkloadSpec, names,
};
pub use probing::probe;
pub use render::{RenderedFile, RenderedStep};
pub use secrets::Secrets;
