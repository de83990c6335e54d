//! `mutations`: the catalogue of misconfigurations of a lab.

use super::target::LabArg;
use super::{Ended, output};
use crate::files::Home;
use crate::mutation::{self, Mutation};
use crate::verify::Verdict;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the misconfigurations that a lab can be brought up with
    Ls(LsArgs),
    /// Show one: what is changed, what finds it, what shows it, how it is mended
    Show(ShowArgs),
}

#[derive(Debug, clap::Args)]
struct LsArgs {
    /// The lab (as for the other verbs)
    #[arg(default_value = "ccr")]
    lab: String,
    /// Print the catalogue as JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ShowArgs {
    /// Its id
    id: String,
    /// The lab (as for the other verbs)
    #[arg(long, default_value = "ccr")]
    lab: String,
    /// Print it as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(home: &Home, args: Args) -> Ended {
    match args.verb {
        Verb::Ls(a) => ls(home, &a),
        Verb::Show(a) => show(home, &a),
    }
}

fn ls(home: &Home, args: &LsArgs) -> Ended {
    let all = mutation::catalogue(&super::target::source(home, &LabArg::of(&args.lab))?)?;
    if args.json {
        output::json(&all)?;
        return Ok(0);
    }
    if all.is_empty() {
        output::text_out(&format!("{} has no misconfigurations", args.lab))?;
        return Ok(0);
    }
    output::text_out(&format!("{:<5} {:<9}  {:<38}  TITLE", "ID", "SEVERITY", "FOUND BY"))?;
    for m in all {
        output::text_out(&format!(
            "{:<5} {:<9}  {:<38}  {}",
            m.id,
            m.severity,
            m.found_by(),
            m.title
        ))?;
    }
    Ok(0)
}

fn show(home: &Home, args: &ShowArgs) -> Ended {
    let source = super::target::source(home, &LabArg::of(&args.lab))?;
    let all = mutation::catalogue(&source)?;
    let mutation = mutation::named(&all, &args.id)?;
    if args.json {
        output::json(mutation)?;
    } else {
        output::text_out(&text(mutation))?;
    }
    Ok(0)
}

fn text(m: &Mutation) -> String {
    let verdict = |v: Verdict| format!("{v:?}").to_lowercase();
    let shown = m.shown.as_ref().map_or_else(
        || "no scenario".to_owned(),
        |s| {
            format!(
                "{}, whose verdict is then {}: {}",
                s.scenario,
                verdict(s.verdict),
                s.why
            )
        },
    );
    let removed: String = m.remove.iter().map(|path| format!("  without {path}\n")).collect();
    let lab: String = m.lab.to_string().lines().map(|l| format!("  {l}\n")).collect();
    let healthy = match (&m.refused, m.healthy) {
        (Some(why), _) => format!("never up: {why}"),
        (None, true) => "yes: it shows later".into(),
        (None, false) => "no".into(),
    };
    format!(
        "{} {}\n\nseverity   {}\nsource     {}\nfound by   {}\nhealthy    {healthy}\nshown by   {shown}\nremedy     {}\n\n{}\n\nIn the lab file:\n{removed}{}",
        m.id,
        m.title,
        m.severity,
        m.source,
        m.found_by(),
        m.remedy,
        m.lesson.trim(),
        lab.trim_end()
    )
}
