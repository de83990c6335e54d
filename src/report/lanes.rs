//! Lanes of states: who was what, when.

use super::svg::{BAR, GAP, Line, Rect, Scale, SvgPath, THIN, Text, Timeline, WIDTH, round};
use crate::event::{Event, Severity};
use crate::picture::text::{fault_target, is_quiet};
use crate::picture::{ClientsState, NOTICEABLE_US, Role, Shape, Stretch, Track, Tracks};
use crate::spec::Lab;
use crate::verify::{FaultRecord, History};
use ccr_contract::status::{CopyStatus, ServiceState, WitnessHealth};

/// Of a stretch: from when until when, for who points at it.
fn when<T>(scale: Scale, s: &Stretch<T>) -> String {
    format!(
        "from {:.2} s to {:.2} s",
        scale.seconds(s.from_us),
        scale.seconds(s.to_us)
    )
}

fn place<T>(scale: Scale, s: &Stretch<T>, y: f64, h: f64) -> Rect {
    let (x, to) = (scale.x(s.from_us), scale.x(s.to_us));
    Rect {
        x,
        y,
        w: round(to - x).max(1.0),
        h,
        t: scale.times(&[s.from_us, s.to_us]),
        ..Rect::default()
    }
}

/// Characters of a fault's name in the drawing at most.
const FAULT: usize = 48;

/// The name of a fault, and what it hits.
pub(super) fn fault_text(f: &FaultRecord) -> String {
    let text = format!("{} {}", f.kind, fault_target(f));
    match text.char_indices().nth(FAULT) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

/// Faults: filled where their effect is proven, else hatched.
pub(super) fn faults(t: &mut Timeline, scale: Scale, history: &History, mut y: f64) -> f64 {
    for f in &history.faults {
        let (from, to) = (scale.x(f.begin_us), scale.x(f.end_us.unwrap_or(scale.0.to_us)));
        t.label(y, BAR, "fault");
        let (class, mark, said) = match f.effective {
            Some(true) => ("fault", "●", "proven"),
            Some(false) => ("fault unproven", "△", "without effect"),
            None => ("fault unproven", "○", "not proven"),
        };
        let text = format!("{mark} {}", fault_text(f));
        let times = scale.times(&[f.begin_us, f.end_us.unwrap_or(scale.0.to_us)]);
        t.rects.push(Rect {
            x: from,
            y,
            w: round(to - from).max(3.0),
            h: BAR,
            class: class.to_owned(),
            tip: format!("{}, {said}, from {:.2} s", fault_text(f), scale.seconds(f.begin_us)),
            t: times.clone(),
        });
        // Where the bar is too short for its text, it stands beside it, where there is room.
        let width = super::svg::LETTER * text.chars().count() as f64 + 12.0;
        let inside = if f.effective == Some(true) { "onbar" } else { "onpale" };
        let (x, class) = match (to - from > width, to.max(from + 3.0) + width < WIDTH) {
            (true, _) => (from + 8.0, inside),
            (false, true) => (to.max(from + 3.0) + 6.0, "beside"),
            (false, false) => (from - 6.0, "before"),
        };
        t.texts.push(Text {
            x: round(x),
            y: y + 14.0,
            class,
            word: Some(text.clone()),
            text,
            t: times,
            lane: "fault".to_owned(),
            dx: 8.0,
            inside,
        });
        y += BAR + GAP;
    }
    y
}

/// When the networks were dark.
pub(super) fn dark(t: &mut Timeline, scale: Scale, tracks: &Tracks, y: f64) -> f64 {
    let shown = |(from, to): &(u64, u64)| *to > scale.0.from_us && *from < scale.0.to_us;
    let dark: Vec<_> = tracks.dark.iter().filter(|d| shown(d)).collect();
    if dark.is_empty() {
        return y;
    }
    t.label(y, THIN, "networks");
    for (from_us, to_us) in dark {
        let s = Stretch {
            from_us: *from_us,
            to_us: *to_us,
            what: (),
        };
        let mut rect = place(scale, &s, y, THIN);
        rect.class = "role struck off".to_owned();
        rect.tip = format!("the networks were dark {}", when(scale, &s));
        t.bar("networks", rect, "✕", "dark", "onpale");
    }
    y + THIN + GAP
}

/// The name of a shape in the style sheet.
fn shape_word(shape: Shape) -> &'static str {
    match shape {
        Shape::Filled => "filled",
        Shape::Outline => "outline",
        Shape::Hatched => "hatched",
        Shape::Bars => "bars",
        Shape::Dotted => "dotted",
        Shape::Struck => "struck",
    }
}

/// The name of its colour in the style sheet.
fn colour(role: Role) -> &'static str {
    match role {
        Role::Active => "active",
        Role::Passive | Role::Runs => "passive",
        Role::Apart | Role::NoQuorum | Role::Fenced => "apart",
        Role::Frozen => "frozen",
        Role::Silent | Role::Off | Role::Unknown => "off",
    }
}

/// What each node was.
pub(super) fn roles(t: &mut Timeline, scale: Scale, tracks: &Tracks, mut y: f64) -> f64 {
    for (node, track) in &tracks.roles {
        t.label(y, BAR, node);
        for s in &track.0 {
            let role = s.what;
            let mut rect = place(scale, s, y, BAR);
            rect.class = format!("role {} {}", shape_word(role.shape()), colour(role));
            rect.tip = format!("{node}: {} {}", role.word(), when(scale, s));
            let class = if role == Role::Active { "onbar" } else { "onpale" };
            // Behind its word.
            let dx = super::svg::LETTER * (role.word().len() + 2) as f64 + 8.0;
            if role.shape() == Shape::Struck && rect.w > dx {
                let middle = round(y + BAR / 2.0);
                t.lines.push(Line {
                    x1: rect.x + dx,
                    y1: middle,
                    x2: rect.x + rect.w,
                    y2: middle,
                    class: "strike",
                    t: rect.t.clone(),
                    dx,
                });
            }
            t.bar(node, rect, role.mark(), role.word(), class);
        }
        y += BAR + GAP;
    }
    y
}

/// The votes, as each member counted them.
pub(super) fn votes(t: &mut Timeline, scale: Scale, tracks: &Tracks, mut y: f64) -> f64 {
    for (node, track) in &tracks.votes {
        t.label(y, THIN, &format!("votes {node}"));
        for s in &track.0 {
            let mut rect = place(scale, s, y, THIN);
            let (class, mark) = match s.what.enough() {
                Some(true) => ("role outline passive", ""),
                Some(false) => ("role hatched apart", "⊘"),
                None => ("role nothing", ""),
            };
            let who = s
                .what
                .votes
                .as_ref()
                .map_or_else(String::new, |v| format!(" ({})", v.have.join(", ")));
            rect.class = class.to_owned();
            rect.tip = format!("{node} counts {}{who} {}", s.what.text(), when(scale, s));
            t.bar(&format!("votes of {node}"), rect, mark, &s.what.text(), "onpale");
        }
        y += THIN + 4.0;
    }
    if tracks.votes.is_empty() { y } else { y + 4.0 }
}

/// A state of the service, and who serves, in words.
pub(super) fn service_text((state, active): &(Option<ServiceState>, Option<String>)) -> String {
    match (state, active) {
        (None, _) => "not known".to_owned(),
        (Some(state), Some(active)) => format!("{state:?} on {active}"),
        (Some(state), None) => format!("{state:?}"),
    }
}

fn any<T>(track: &Track<T>, known: impl Fn(&T) -> bool) -> bool {
    track.0.iter().any(|s| known(&s.what))
}

/// The service.
pub(super) fn service(t: &mut Timeline, scale: Scale, tracks: &Tracks, y: f64) -> f64 {
    if !any(&tracks.service, |(state, _)| state.is_some()) {
        return y;
    }
    t.label(y, THIN, "service");
    for s in &tracks.service.0 {
        let (class, mark, text) = match s.what.0 {
            Some(ServiceState::Online) => ("role filled active", "■", "onbar"),
            Some(ServiceState::PartiallyOnline | ServiceState::OnlinePending | ServiceState::OfflinePending) => {
                ("role hatched apart", "…", "onpale")
            }
            Some(ServiceState::Offline | ServiceState::Failed) => ("role struck off", "✕", "onpale"),
            None => ("role dotted off", "?", "onpale"),
        };
        let mut rect = place(scale, s, y, THIN);
        rect.class = class.to_owned();
        rect.tip = format!("{} {}", service_text(&s.what), when(scale, s));
        t.bar("service", rect, mark, &service_text(&s.what), text);
    }
    y + THIN + 4.0
}

/// What is known of the witness, in words.
pub(super) fn witness_text((health, held_by): &(Option<WitnessHealth>, Option<String>)) -> String {
    let health = match health {
        Some(WitnessHealth::Ok) => "ok",
        Some(WitnessHealth::Failed) => "failed",
        Some(WitnessHealth::Unknown) => "not probed",
        None => "not known",
    };
    match held_by {
        Some(node) => format!("{health}, held by {node}"),
        None => health.to_owned(),
    }
}

/// The witness.
pub(super) fn witness(t: &mut Timeline, scale: Scale, tracks: &Tracks, y: f64) -> f64 {
    if !any(&tracks.witness, |(health, held_by)| {
        health.is_some() || held_by.is_some()
    }) {
        return y + 4.0;
    }
    t.label(y, THIN, "witness");
    for s in &tracks.witness.0 {
        let (class, mark, text) = match &s.what {
            (_, Some(_)) => ("role filled active", "■", "onbar"),
            (Some(WitnessHealth::Ok), None) => ("role outline passive", "○", "onpale"),
            (Some(WitnessHealth::Failed), None) => ("role hatched apart", "⊘", "onpale"),
            _ => ("role dotted off", "?", "onpale"),
        };
        let mut rect = place(scale, s, y, THIN);
        rect.class = class.to_owned();
        rect.tip = format!("witness {} {}", witness_text(&s.what), when(scale, s));
        t.bar("witness", rect, mark, &witness_text(&s.what), text);
    }
    y + THIN + GAP
}

/// The epoch in which the service is.
pub(super) fn epochs(t: &mut Timeline, scale: Scale, tracks: &Tracks, y: f64) -> f64 {
    if !any(&tracks.epoch, Option::is_some) {
        return y;
    }
    t.label(y, THIN, "epoch");
    for s in &tracks.epoch.0 {
        let mut rect = place(scale, s, y, THIN);
        let (class, word) = match s.what {
            Some(epoch) => ("role outline passive", epoch.to_string()),
            None => ("role nothing", String::new()),
        };
        rect.class = class.to_owned();
        rect.tip = format!("epoch {word} {}", when(scale, s));
        t.bar("epoch", rect, "", &word, "onpale");
    }
    y + THIN + 4.0
}

/// What operators ordered: a tick for each, its words behind it where there is room.
pub(super) fn orders(t: &mut Timeline, scale: Scale, tracks: &Tracks, y: f64) -> f64 {
    if tracks.orders.is_empty() {
        return y;
    }
    t.label(y, THIN, "orders");
    for (i, (t_us, text)) in tracks.orders.iter().enumerate() {
        // Its words have the room until the next one.
        let until = tracks.orders.get(i + 1).map_or(scale.0.to_us, |(next, _)| *next);
        let s = Stretch {
            from_us: *t_us,
            to_us: until,
            what: (),
        };
        let mut rect = place(scale, &s, y, THIN);
        rect.class = "role nothing".to_owned();
        rect.tip = format!("{text}, ordered at {:.3} s", scale.seconds(*t_us));
        t.lines.push(Line {
            x1: rect.x,
            y1: y,
            x2: rect.x,
            y2: y + THIN,
            class: "order",
            t: scale.times(&[*t_us]),
            dx: 0.0,
        });
        t.bar("ordered", rect, "▸", text, "onpale");
    }
    y + THIN + GAP
}

/// Heartbeats that did not arrive: a lane for each direction of each network in which that was so for a
/// second and more.
pub(super) fn paths(t: &mut Timeline, scale: Scale, tracks: &Tracks, mut y: f64) -> f64 {
    let unheard = |track: &Track<Option<bool>>| {
        let away = track.0.iter().filter(|s| s.what == Some(false));
        away.map(|s| s.to_us - s.from_us).sum::<u64>() >= NOTICEABLE_US
    };
    let shown: Vec<_> = tracks.paths.iter().filter(|(_, track)| unheard(track)).collect();
    for (path, track) in &shown {
        let (network, way) = path.split_once('/').unwrap_or(("", path));
        let way = way.replace('>', " → ");
        t.label(y, THIN, &way);
        for s in &track.0 {
            let (class, mark, word) = match s.what {
                Some(true) => ("role outline passive", "○", format!("{network}: heard")),
                Some(false) => ("role hatched apart", "✕", format!("{network}: not heard")),
                None => ("role dotted off", "?", format!("{network}: not known")),
            };
            let mut rect = place(scale, s, y, THIN);
            rect.class = class.to_owned();
            rect.tip = format!("heartbeats {way}, {word} {}", when(scale, s));
            t.bar(&format!("heartbeats {way}"), rect, mark, &word, "onpale");
        }
        y += THIN + 4.0;
    }
    if shown.is_empty() { y } else { y + 4.0 }
}

/// What each copy was.
pub(super) fn copies(t: &mut Timeline, scale: Scale, tracks: &Tracks, mut y: f64) -> f64 {
    for (copy, track) in &tracks.copies {
        let node = copy.rsplit('/').next().unwrap_or(copy);
        t.label(y, THIN, &format!("copy {node}"));
        for s in &track.0 {
            let (class, mark) = match s.what {
                Some(CopyStatus::Healthy) => ("role outline passive", "○"),
                Some(CopyStatus::Failed | CopyStatus::ServiceDown) => ("role hatched failed", "✕"),
                Some(CopyStatus::Stopped | CopyStatus::Suspended) => ("role bars frozen", "‖"),
                Some(_) => ("role hatched apart", "…"),
                None => ("role nothing", ""),
            };
            let word = copy_text(&s.what);
            let mut rect = place(scale, s, y, THIN);
            rect.class = class.to_owned();
            rect.tip = format!("copy {copy}: {word} {}", when(scale, s));
            t.bar(&format!("copy {copy}"), rect, mark, &word, "onpale");
        }
        y += THIN + 4.0;
    }
    if tracks.copies.is_empty() { y } else { y + 4.0 }
}

/// The status of a copy, in words; nothing where there is none.
pub(super) fn copy_text(status: &Option<CopyStatus>) -> String {
    status.map_or_else(String::new, |s| format!("{s:?}"))
}

/// Whether the store answers the clients.
pub(super) fn clients(t: &mut Timeline, scale: Scale, tracks: &Tracks, y: f64) -> f64 {
    if !any(&tracks.clients, |c| *c != ClientsState::Idle) {
        return y;
    }
    t.label(y, THIN, "clients");
    for s in &tracks.clients.0 {
        let seconds = (s.to_us - s.from_us) as f64 / 1e6;
        let (class, mark, word) = match s.what {
            ClientsState::Idle => ("role nothing", "", String::new()),
            ClientsState::Connected => ("role outline passive", "○", "answered".to_owned()),
            ClientsState::Restored => ("role outline passive", "◉", "answered again".to_owned()),
            ClientsState::Lost => ("role hatched failed", "✕", format!("no answer for {seconds:.2} s")),
        };
        let mut rect = place(scale, s, y, THIN);
        rect.class = class.to_owned();
        rect.tip = format!("clients: {} {}", s.what.word(), when(scale, s));
        t.bar("clients", rect, mark, &word, "onpale");
    }
    y + THIN + GAP
}

/// What the nodes told: a tick for each, with a whisker as long as its time may be off.
pub(super) fn events(t: &mut Timeline, scale: Scale, lab: &Lab, history: &History, mut y: f64) -> f64 {
    const HEIGHT: f64 = 16.0;
    let mut any = false;
    for node in &lab.nodes {
        let of_node = |e: &&Event| e.t_us >= history.from_us && e.node.as_deref() == Some(node.name.as_str());
        let events: Vec<&Event> = history.events.iter().filter(of_node).filter(|e| !is_quiet(e)).collect();
        if events.is_empty() {
            continue;
        }
        any = true;
        t.label(y, HEIGHT, &format!("events {}", node.name));
        t.rule(y + HEIGHT, "base");
        for e in events {
            let x = scale.x(e.t_us);
            let skew = e.skew_us.unwrap_or(0);
            let (low_us, high_us) = (e.t_us.saturating_sub(skew), e.t_us + skew);
            let (low, high) = (scale.x(low_us), scale.x(high_us));
            let whisker = format!("M{low} {}H{high}", y + HEIGHT - 2.0);
            let (shape, class) = match e.severity {
                Severity::Error => (format!("M{x} {}m-4 0l8 8m0-8l-8 8", y + 2.0), "event error"),
                Severity::Warning => (format!("M{x} {}l4.5 8h-9z", y + 2.0), "event warning"),
                _ => (format!("M{x} {}v9", y + 4.0), "event info"),
            };
            t.paths.push(SvgPath {
                d: format!("{shape}{whisker}"),
                class: class.to_owned(),
                tip: format!("{} {} at {:.3} s ± {skew} µs", node.name, e.kind, scale.seconds(e.t_us)),
                t: scale.times(&[e.t_us, low_us, high_us]),
                event: true,
            });
        }
        y += HEIGHT + 4.0;
    }
    if any { y + 4.0 } else { y }
}
