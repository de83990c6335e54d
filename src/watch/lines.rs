//! A view in lines of text: what each part of the screen says. Shape and word first, colour third.

use crate::picture::text::{event_text, one_line};
use crate::picture::{CableState, ClientsState, NodePicture, Role, sentence};
use crate::spec::NodeRole;
use crate::verify::merged::witness_in_force;
use crate::view::{Line as Told, Link, View, is_news};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use std::time::Duration;

pub(super) const SOFT: Style = Style::new().add_modifier(Modifier::DIM);
const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const DOUBT: Style = Style::new().fg(Color::Yellow);
const GOOD: Style = Style::new().fg(Color::Green);

/// Text of others, on one line.
fn text(of: impl AsRef<str>) -> Span<'static> {
    Span::raw(one_line(of.as_ref()))
}

fn styled(of: impl AsRef<str>, style: Style) -> Span<'static> {
    text(of).style(style)
}

/// A word that takes `width` columns at least.
fn wide(word: &str, width: usize) -> String {
    let word = one_line(word);
    let more = width.saturating_sub(word.chars().count());
    word + &" ".repeat(more)
}

/// Seconds behind the view's begin.
fn at(view: &View, t_us: u64) -> String {
    format!("{:.1} s", (t_us as f64 - view.from_us as f64) / 1e6)
}

fn ago(us: u64) -> String {
    let seconds = Duration::from_micros(us).as_secs();
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

fn role_style(role: Role) -> Style {
    match role {
        Role::Active => GOOD.add_modifier(Modifier::BOLD),
        Role::Passive | Role::Runs => Style::new(),
        Role::Apart | Role::Fenced | Role::Frozen | Role::Unknown => DOUBT,
        Role::NoQuorum | Role::Silent | Role::Off => BAD,
    }
}

/// Which lab, its clock, whether what is shown is still so.
pub(super) fn title(view: &View, now_us: u64) -> Line<'static> {
    let mut spans = vec![styled(&view.name, BOLD), text(format!("  {}  ", view.title))];
    spans.push(text(format!("{}  ", at(view, now_us))));
    spans.push(match &view.link {
        Link::Asking => styled("asking …", SOFT),
        Link::Live => styled("live", GOOD),
        Link::Silent(since, why) => styled(
            format!("NOT LIVE since {}: {why}; the networks are dark", at(view, *since)),
            BAD,
        ),
        Link::Down => styled("THE LAB IS DOWN: this is how it was", BAD),
        Link::Replay => styled("a run that ended", SOFT),
    });
    Line::from(spans)
}

/// The picture in a sentence, and what is wrong by the last look.
pub(super) fn summary(view: &View) -> Vec<Line<'static>> {
    let mut lines = vec![Line::from(styled(sentence(&view.picture, view.from_us), BOLD))];
    match view.picture.unhealthy.as_deref() {
        None => lines.push(Line::from(styled("health is not known yet", SOFT))),
        Some([]) => lines.push(Line::from(styled("healthy", GOOD))),
        Some(all) => lines.push(Line::from(styled(format!("not healthy: {}", all.join("; ")), DOUBT))),
    }
    for (from, to) in &view.picture.dark {
        let dark = format!("the networks were dark from {} to {}", at(view, *from), at(view, *to));
        lines.push(Line::from(styled(dark, DOUBT)));
    }
    lines
}

/// Each machine: what it is, its votes as it counts them.
pub(super) fn nodes(view: &View) -> Vec<Line<'static>> {
    let width = view.picture.nodes.keys().map(|n| n.chars().count()).max().unwrap_or(0);
    let row = |(name, node): (&String, &NodePicture)| {
        let style = role_style(node.role);
        let mut spans = vec![
            Span::styled(format!("{} ", node.role.mark()), style),
            styled(wide(name, width), BOLD),
            Span::styled(format!(" {:<10}", node.role.word()), style),
        ];
        let since = match node.since_us < view.from_us {
            true => "from before".to_owned(),
            false => format!("since {}", at(view, node.since_us)),
        };
        spans.push(styled(format!("{since:<14}"), SOFT));
        spans.push(text(node_facts(node)));
        Line::from(spans)
    };
    // Members first, in the order of the lab file.
    let lab = view.lab.nodes.iter();
    let (members, others): (Vec<_>, Vec<_>) = lab.partition(|n| n.role == Some(NodeRole::Member));
    let named = members.into_iter().chain(others);
    let mut lines: Vec<Line<'static>> = named
        .filter_map(|n| view.picture.nodes.get_key_value(n.name.as_str()))
        .map(row)
        .collect();
    lines.extend(service(view));
    lines
}

fn node_facts(node: &NodePicture) -> String {
    let votes = node.votes.as_ref().map(|v| {
        let enough = if v.have.len() >= v.needed as usize {
            ""
        } else {
            ", too few"
        };
        format!("votes {} of {} ({}){enough}", v.have.len(), v.total, v.have.join(", "))
    });
    let member = node.kind == Some(NodeRole::Member);
    let votes = votes.or_else(|| member.then(|| "votes not known".to_owned()));
    let hub = node
        .hub
        .as_ref()
        .map(|h| format!("{} queued, {} in dumpster", h.queued, h.dumpster));
    let epoch = node.epoch.filter(|_| member).map(|e| format!("epoch {e}"));
    let parts = [votes, epoch, hub, node.error.clone()];
    parts.into_iter().flatten().collect::<Vec<_>>().join("  ")
}

fn service(view: &View) -> Vec<Line<'static>> {
    let p = &view.picture;
    let mut lines = Vec::new();
    if let Some(runtime) = &view.lab.runtime {
        let s = &p.service;
        let state = s.state.map_or("not known".to_owned(), |s| format!("{s:?}"));
        let epoch = s.epoch.map(|e| format!(", epoch {e}")).unwrap_or_default();
        let intent = s
            .intent
            .map(|i| format!(", wanted {}", format!("{i:?}").to_lowercase()));
        let on = s.active.as_deref().unwrap_or("nobody");
        let name = runtime.service.as_ref().map_or(runtime.kind.as_str(), |s| &s.name);
        let said = format!("service {name}: {state} on {on}{epoch}{}", intent.unwrap_or_default());
        lines.push(Line::from(text(said)));
    }
    if let Some(w) = &p.witness {
        let held = p
            .held_by
            .as_deref()
            .map(|n| format!(", held by {n}"))
            .unwrap_or_default();
        let said = match witness_in_force(w) {
            Some((path, health)) => format!("witness {path}: {health}{held}"),
            None => format!("witness {}: not in force{held}", w.configured),
        };
        lines.push(Line::from(text(said)));
    }
    lines
}

/// Each network: every cable in both directions, and the heartbeats that do not arrive.
pub(super) fn cables(view: &View) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let width = view
        .lab
        .networks
        .iter()
        .map(|n| n.name.as_str().len())
        .max()
        .unwrap_or(0);
    for network in &view.lab.networks {
        let mut row = vec![styled(wide(&network.name, width + 2), BOLD)];
        let mut odd = Vec::new();
        for node in view.lab.nodes.iter().filter(|n| n.address(&network.name).is_some()) {
            row.push(text(format!("{} ", node.name)));
            let mut ways = Vec::new();
            for (direction, arrow) in [("out", '→'), ("in", '←')] {
                let key = format!("{}/{}/{direction}", node.name, network.name);
                let (mark, style) = match view.picture.cables.get(&key) {
                    None => ("?", DOUBT),
                    Some(c) if c.state == CableState::Whole => (c.state.mark(), SOFT),
                    Some(c) => {
                        let dropped = c.dropped.map(|n| format!(", {n} dropped")).unwrap_or_default();
                        let what = if c.what.is_empty() {
                            c.state.word().to_owned()
                        } else {
                            c.what.join(", ")
                        };
                        ways.push(format!("{direction} {what}{dropped}"));
                        (c.state.mark(), BAD)
                    }
                };
                row.push(Span::styled(format!("{arrow}{mark}"), style));
            }
            if !ways.is_empty() {
                odd.push(format!("{}: {}", node.name, ways.join("; ")));
            }
            row.push(Span::raw("   "));
        }
        lines.push(Line::from(row));
        lines.extend(odd.into_iter().map(|o| Line::from(styled(format!("  {o}"), BAD))));
    }
    for (path, up) in &view.picture.paths {
        match up {
            Some(true) => {}
            Some(false) => lines.push(Line::from(styled(format!("no heartbeats on {path}"), BAD))),
            None => lines.push(Line::from(styled(format!("heartbeats on {path}: not known"), SOFT))),
        }
    }
    lines
}

/// Each copy with its queues.
pub(super) fn copies(view: &View) -> Vec<Line<'static>> {
    let active = view.picture.service.active.as_deref();
    let row = |(key, c): (&String, &ccr_contract::status::Copy)| {
        let status = format!("{:?}", c.status);
        let original = active == Some(c.node.as_str());
        let style = if status == "Healthy" || original {
            Style::new()
        } else {
            DOUBT
        };
        let mut spans = vec![styled(wide(key, 14), BOLD)];
        if original {
            let said = format!(" the original, {} generations", c.generated);
            spans.push(styled(said, SOFT));
        } else {
            spans.push(styled(format!(" {status:<13}"), style));
            let queues = format!("copy queue {}  replay queue {}", c.copy_queue, c.replay_queue);
            let at = format!(
                "  {} of {} inspected, {} replayed",
                c.inspected, c.generated, c.replayed
            );
            spans.extend([text(queues), styled(at, SOFT)]);
        }
        if let Some(error) = &c.error {
            spans.push(styled(format!("  {error}"), BAD));
        }
        Line::from(spans)
    };
    view.picture.copies.iter().map(row).collect()
}

/// The clients, as far as they are known.
pub(super) fn clients(view: &View, now_us: u64) -> Vec<Line<'static>> {
    let c = &view.picture.clients;
    let seconds = |us: u64| format!("{:.1} s", us as f64 / 1e6);
    let (said, style) = match c.state {
        ClientsState::Idle if view.link != Link::Replay => {
            ("not seen from here: `verify` keeps their journal".to_owned(), SOFT)
        }
        ClientsState::Idle => ("none asks".to_owned(), SOFT),
        ClientsState::Connected => ("answered".to_owned(), GOOD),
        ClientsState::Lost => (format!("WAIT for {}", seconds(now_us.saturating_sub(c.since_us))), BAD),
        ClientsState::Restored => (format!("answered again after {}", seconds(c.waited_us)), GOOD),
    };
    let mut first = vec![styled(said, style)];
    if let Some(by) = &c.last {
        first.push(text(format!("  last by {} in epoch {}", by.node, by.epoch)));
    }
    let mut lines = vec![Line::from(first)];
    if c.acked + c.failed + c.unknown + c.waiting > 0 {
        let counts = format!(
            "{} answered, {} waiting, {} refused, {} not known; longest wait {}",
            c.acked,
            c.waiting,
            c.failed,
            c.unknown,
            seconds(c.longest_us)
        );
        lines.push(Line::from(text(counts)));
    }
    lines
}

/// The faults in force.
pub(super) fn faults(view: &View, now_us: u64) -> Vec<Line<'static>> {
    let row = |(id, f): (&u64, &crate::picture::FaultPicture)| {
        let since = format!(
            "since {}, for {}",
            at(view, f.begin_us),
            ago(now_us.saturating_sub(f.begin_us))
        );
        Line::from(vec![
            Span::styled(format!("{} ", f.mark()), BAD),
            styled(format!("{id} {} {}", f.kind, f.on), BOLD),
            styled(format!("  {since}, {}", f.effect()), SOFT),
        ])
    };
    let lines: Vec<Line<'static>> = view.picture.faults.iter().map(row).collect();
    match lines.is_empty() {
        true => vec![Line::from(styled("none", SOFT))],
        false => lines,
    }
}

/// The newest events that a person wants to see, oldest first; `back` of the newest are left out.
pub(super) fn events(view: &View, most: usize, back: usize) -> Vec<Line<'static>> {
    let wanted = view.lines.iter().rev().filter(|l| match l {
        Told::Event(e) => is_news(e),
        Told::Gap(..) => true,
    });
    let mut lines: Vec<Line<'static>> = wanted.skip(back).take(most).map(|l| told(view, l)).collect();
    lines.reverse();
    lines
}

/// How many events there are for [`events`].
pub(super) fn event_count(view: &View) -> usize {
    let wanted = |l: &&Told| !matches!(l, Told::Event(e) if !is_news(e));
    view.lines.iter().filter(wanted).count()
}

fn told(view: &View, line: &Told) -> Line<'static> {
    use crate::event::Severity;
    let e = match line {
        Told::Gap(from, to) => return Line::from(styled(format!("events {from} to {to} are missing"), BAD)),
        Told::Event(e) => e,
    };
    let (mark, style) = match e.severity {
        Severity::Error => ("✗", BAD),
        Severity::Warning => ("!", DOUBT),
        _ => (" ", Style::new()),
    };
    let id = e.id.map(|i| format!(" [{i}]")).unwrap_or_default();
    Line::from(vec![
        styled(format!("{:>9} ", at(view, e.t_us)), SOFT),
        Span::styled(mark, style),
        text(format!(" {} ", wide(e.node.as_deref().unwrap_or("-"), 6))),
        styled(format!("{}{id} ", e.kind), style),
        styled(event_text(e), SOFT),
    ])
}
