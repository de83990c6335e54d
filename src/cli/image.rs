//! `image`: build, list and remove base images.

use super::progress::Terminal;
use super::target::{LabArg, source};
use super::{Ended, interruptible, output};
use crate::event::Journal;
use crate::files::Home;
use crate::image::{Store, short};
use crate::lab::desired;
use crate::lab::record::LabRecord;
use std::sync::{Arc, Mutex};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Build the image of a lab's machines, unless it is there
    Build {
        #[command(flatten)]
        lab: LabArg,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// List the images in the cache
    Ls {
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove an image that no lab uses
    Rm {
        /// The beginning of its digest, or its name for all of that name
        image: String,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn run(home: &Home, args: Args) -> Ended {
    match args.verb {
        Verb::Build { lab, json } => build(home, &lab, json),
        Verb::Ls { json } => ls(home, json),
        Verb::Rm { image, json } => rm(home, &image, json),
    }
}

fn build(home: &Home, lab: &LabArg, json: bool) -> Ended {
    let lab = desired::read(&source(home, lab)?)?.lab;
    let (store, key) = desired::image_key(home, &lab)?;
    let interrupted = interruptible()?;
    Home::private_dir(&home.cache)?;
    let journal = Journal::in_memory();
    let terminal = Arc::new(Mutex::new(Terminal::new()));
    journal.listen(move |e| {
        terminal.lock().expect("no bar panics").show(e);
        true
    });
    let image = store.ensure(&key, &journal, &interrupted)?;
    if json {
        output::json(&image)?;
    } else {
        output::text_out(&format!("{} {}", image.name, short(&image.digest)))?;
    }
    Ok(0)
}

fn ls(home: &Home, json: bool) -> Ended {
    let all = Store::new(home.images()).list()?;
    if json {
        output::json(&all)?;
    } else if all.is_empty() {
        output::text_out("no image has been built")?;
    } else {
        output::text_out(&format!(
            "{:<13} {:<12} {:>9} {:>9}  BEYOND THE RECIPE",
            "DIGEST", "NAME", "MiB", "PACKAGES"
        ))?;
        for i in all {
            let (digest, mib, extra) = (short(&i.digest), i.bytes >> 20, i.extra.join(" "));
            output::text_out(&format!(
                "{digest:<13} {:<12} {mib:>9} {:>9}  {extra}",
                i.name.as_str(),
                i.packages
            ))?;
        }
    }
    Ok(0)
}

fn rm(home: &Home, image: &str, json: bool) -> Ended {
    let labs = home.instances()?;
    let user = |digest: &str| {
        let uses = |name: &String| {
            let record = LabRecord::load(&home.lab(name).record()).ok().flatten();
            // A record that cannot be read may well use it.
            record.is_none_or(|r| r.desired.image.digest == digest)
        };
        labs.iter().find(|l| uses(l)).cloned()
    };
    let removed = Store::new(home.images()).rm(image, user)?;
    if json {
        output::json(&removed)?;
    } else {
        output::text_out(&format!(
            "removed {}",
            removed.iter().map(|d| short(d)).collect::<Vec<_>>().join(", ")
        ))?;
    }
    Ok(0)
}
