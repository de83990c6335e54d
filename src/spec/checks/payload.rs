//! What a lab without a pack says of its machines: files, who waits for whom, what healthy is.

use super::super::raw::{FileTable, FileText, GuestPath, in_file_order};
use super::super::rules::View;
use super::super::{At, Endpoint, Finding, NodeRole, PackSettings, known};
use super::wrong;
use crate::probe;
use crate::units::Name;

/// What a file's template sees.
const SEEN: [&str; 4] = ["lab", "networks", "node", "nodes"];

/// A circle is found once, at the machine of it that stands first in the file.
pub fn circle_of_waiting(v: &View<'_>) -> Vec<Finding> {
    let awaited = |name: &str| v.file.nodes.get(name).map_or(&[][..], |n| &n.after);
    let waits_for_itself = |name: &At<Name>| {
        let (mut seen, mut todo) = (Vec::new(), awaited(name).to_vec());
        while let Some(next) = todo.pop() {
            if !seen.contains(&next.value) {
                todo.extend_from_slice(awaited(&next));
                seen.push(next.value);
            }
        }
        seen.contains(&name.value)
    };
    let finding = |name: &At<Name>| {
        wrong(format!("`{}` waits for itself", name.value))
            .on(&awaited(name)[0], "by this, or by what that waits for")
            .help("take a name out of an `after`")
    };
    let mut waiting = in_file_order(&v.file.nodes).into_iter().map(|(name, _)| name);
    waiting
        .find(|name| waits_for_itself(name))
        .map(finding)
        .into_iter()
        .collect()
}

/// The files that are written as tables, each with its path.
fn tables<'a>(v: &View<'a>) -> impl Iterator<Item = (&'a At<GuestPath>, &'a FileTable)> {
    let files = v.file.nodes.values().map(|n| &n.files);
    let all = files.chain([&v.file.defaults.files]).flatten();
    all.filter_map(|(path, file)| match file {
        FileText::Plain(_) => None,
        FileText::Table(table) => Some((path, table)),
    })
}

pub fn file_without_text(v: &View<'_>) -> Vec<Finding> {
    let wrongs = tables(v).filter(|(_, t)| t.text.is_some() == t.template.is_some());
    let finding = |(path, table): (&At<GuestPath>, &FileTable)| {
        let (seen, help) = match table.text {
            Some(_) => ("both `text` and `template`", "leave one of them out"),
            None => (
                "neither `text` nor `template`",
                "add `text = \"…\"`, empty where it is to be empty",
            ),
        };
        wrong(format!("`{}` has {seen}", path.value.as_str()))
            .on(path, "this file")
            .help(help)
    };
    wrongs.map(finding).collect()
}

pub fn bad_template(v: &View<'_>) -> Vec<Finding> {
    let templates = tables(v).filter_map(|(path, t)| Some((path, t.template.as_ref()?)));
    let finding = |(path, template): (&At<GuestPath>, &At<String>)| {
        let path = path.value.as_str();
        match probe::template_names(template) {
            Err((line, why)) => Some(
                wrong(format!("the template of `{path}` cannot be read: {why}"))
                    .on(template, format!("in line {line} of it")),
            ),
            Ok(names) => {
                let strange = names.into_iter().find(|n| !SEEN.contains(&n.as_str()))?;
                Some(
                    wrong(format!("the template of `{path}` asks for `{strange}`"))
                        .on(template, "no template sees that")
                        .help(known(&strange, SEEN)),
                )
            }
        }
    };
    templates.filter_map(finding).collect()
}

pub fn bad_health(v: &View<'_>) -> Vec<Finding> {
    let Some(health) = &v.file.health else {
        return Vec::new();
    };
    let mut findings = Vec::new();
    if health.must.is_empty() {
        findings.push(
            wrong("nothing must hold")
                .on(&health.must, "an empty list")
                .help("add what the probes' answers must be, like `must = [\"web.a.status == 0\"]`"),
        );
    }
    for must in &health.must.value {
        match probe::names(must) {
            Err(why) => findings.push(wrong(format!("this is no expression: {why}")).on(must, "cannot be read")),
            Ok(names) => findings.extend(names.iter().filter_map(|name| strange(v, must, name))),
        }
    }
    findings
}

/// What is wrong with a name that an expression asks for: `PROBE` or `PROBE.NODE.…`.
fn strange(v: &View<'_>, must: &At<String>, name: &str) -> Option<Finding> {
    let probes = &v.lab.health.as_ref()?.probes;
    let (probe, rest) = name.split_once('.').unwrap_or((name, ""));
    let Some(found) = probes.iter().find(|p| p.probe.name == probe) else {
        let names = probes.iter().map(|p| p.probe.name.as_str());
        return Some(
            wrong(format!("there is no probe `{probe}`"))
                .on(must, "asks for it")
                .help(known(probe, names)),
        );
    };
    let node = rest.split('.').next().filter(|n| !n.is_empty())?;
    if found.on.iter().any(|n| n.as_str() == node) || is_method(node) {
        return None;
    }
    Some(
        wrong(format!("the probe `{probe}` is not asked on `{node}`"))
            .on(must, "asks for its answer there")
            .help(known(node, found.on.iter().map(Name::as_str))),
    )
}

/// Whether a name is what an expression calls on a table, not an entry of it.
fn is_method(name: &str) -> bool {
    ["items", "keys", "values", "get"].contains(&name)
}

pub fn moving_addresses(v: &View<'_>) -> Vec<Finding> {
    let Some((runtime, pack)) = v.runtime() else {
        return Vec::new();
    };
    let kind = &runtime.kind;
    let ends = [("cluster", &runtime.cluster), ("service", &runtime.service)];
    let finding = |(what, end): (&str, &Option<At<Endpoint>>)| match (end, pack.moving_addresses) {
        (None, true) => Some(
            wrong(format!("the runtime has no `{what}`"))
                .on(kind, "moves its address")
                .help(format!("add `{what} = {{ name = \"…\", address = \"…\" }}`")),
        ),
        (Some(end), false) => Some(
            wrong(format!("`{}` moves no address", kind.value))
                .on(end, "nothing would answer there")
                .help(format!("leave `{what}` out")),
        ),
        _ => None,
    };
    ends.into_iter().filter_map(finding).collect()
}

/// The roles that the pack has.
fn roles(pack: &PackSettings) -> Vec<NodeRole> {
    match pack.roles.is_empty() {
        true => vec![NodeRole::Member, NodeRole::Hub],
        false => pack.roles.keys().copied().collect(),
    }
}

pub fn role_of_another_pack(v: &View<'_>) -> Vec<Finding> {
    let Some((runtime, pack)) = v.runtime() else {
        return Vec::new();
    };
    let (kind, roles) = (&runtime.kind, roles(pack));
    let word = |role: &NodeRole| format!("{role:?}").to_lowercase();
    let nodes = in_file_order(&v.file.nodes).into_iter();
    let strange = nodes.filter_map(|(name, n)| Some((name, n.role?)).filter(|(_, role)| !roles.contains(role)));
    let finding = |(name, role): (&At<Name>, NodeRole)| {
        wrong(format!("`{}` has no role `{}`", kind.value, word(&role)))
            .on(name, "has it")
            .help(format!(
                "its roles: {}",
                roles.iter().map(word).collect::<Vec<_>>().join(", ")
            ))
    };
    strange.map(finding).collect()
}

pub fn role_count(v: &View<'_>) -> Vec<Finding> {
    let Some((runtime, pack)) = v.runtime() else {
        return Vec::new();
    };
    let kind = &runtime.kind;
    let counted = pack.roles.iter().filter_map(|(role, count)| Some((*role, (*count)?)));
    let finding = |(role, wanted): (NodeRole, usize)| {
        let there = v.lab.with_role(role).count();
        let word = format!("{role:?}").to_lowercase();
        (there != wanted).then(|| {
            wrong(format!("{there} machines have the role `{word}`")).on(kind, format!("is made for {wanted}"))
        })
    };
    counted.filter_map(finding).collect()
}

pub fn health_of_a_runtime(v: &View<'_>) -> Vec<Finding> {
    let (Some(health), Some(runtime)) = (&v.file.health, &v.file.runtime) else {
        return Vec::new();
    };
    let kind = &runtime.kind;
    let finding = wrong(format!("the pack `{}` says what healthy means", kind.value));
    let finding = match health.must.first() {
        Some(must) => finding.on(must, "so this cannot"),
        None => finding,
    };
    vec![
        finding
            .on(kind, "the runtime")
            .help("leave `[health]` out, or the runtime"),
    ]
}
