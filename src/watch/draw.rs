//! The screen: parts of a view above each other, or in two columns where there is room.

use super::lines;
use super::screen::{Screen, Scrub};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Clear, Gauge, Paragraph};

/// From this width on there are two columns.
const TWO: u16 = 132;

/// A part of the screen.
struct Part {
    name: &'static str,
    lines: Vec<Line<'static>>,
}

impl Part {
    fn height(&self) -> u16 {
        self.lines.len() as u16 + 1
    }

    fn draw(self, frame: &mut Frame<'_>, area: Rect) {
        let heading = Span::styled(format!(" {} ", self.name), Style::new().add_modifier(Modifier::BOLD));
        let block = Block::new()
            .borders(Borders::TOP)
            .border_style(lines::SOFT)
            .title(heading);
        frame.render_widget(Paragraph::new(self.lines).block(block), area);
    }
}

/// Draws all of it. What has no room is left out from below.
pub(super) fn draw(frame: &mut Frame<'_>, screen: &Screen) {
    let view = &screen.view;
    let now_us = screen.now_us;
    let area = frame.area();
    let summary = lines::summary(view);
    let foot = if screen.scrub.is_some() { 2 } else { 1 };
    let [head, body, bottom] = Layout::vertical([
        Constraint::Length(1 + summary.len() as u16),
        Constraint::Min(0),
        Constraint::Length(foot),
    ])
    .areas(area);
    let mut top = vec![lines::title(view, now_us)];
    top.extend(summary);
    frame.render_widget(Paragraph::new(top), head);
    footer(frame, screen, bottom);
    let part = |name, lines: Vec<Line<'static>>| Part { name, lines };
    let mut left = vec![
        part("Machines", lines::nodes(view)),
        part("Cables", lines::cables(view)),
    ];
    let copies = lines::copies(view);
    if !copies.is_empty() {
        left.push(part("Copies", copies));
    }
    let clients = part("Clients", lines::clients(view, now_us));
    let faults = part("Faults in force", lines::faults(view, now_us));
    if area.width >= TWO {
        let [a, b] = Layout::horizontal([Constraint::Percentage(52), Constraint::Percentage(48)])
            .spacing(2)
            .areas(body);
        left.push(clients);
        column(frame, left, a);
        events(frame, screen, vec![faults], b);
    } else {
        left.extend([clients, faults]);
        events(frame, screen, left, body);
    }
    if screen.help {
        help(frame, area, screen.scrub.is_some());
    }
}

/// Parts above each other; the area that is left below them.
fn column(frame: &mut Frame<'_>, parts: Vec<Part>, mut area: Rect) -> Rect {
    for part in parts {
        let height = part.height().min(area.height);
        let here = Rect { height, ..area };
        area = Rect {
            y: area.y + height,
            height: area.height - height,
            ..area
        };
        if height > 1 {
            part.draw(frame, here);
        }
    }
    area
}

/// Parts, and the newest events in all the room below. They have three lines at least where the screen has them.
fn events(frame: &mut Frame<'_>, screen: &Screen, parts: Vec<Part>, area: Rect) {
    let least = 4.min(area.height);
    let above = Rect {
        height: area.height - least,
        ..area
    };
    let left = column(frame, parts, above);
    let area = Rect {
        y: left.y,
        height: left.height + least,
        ..area
    };
    let most = usize::from(area.height.saturating_sub(1));
    let lines = lines::events(&screen.view, most, screen.back);
    let name = if screen.back == 0 {
        "Events"
    } else {
        "Events (older; End for the newest)"
    };
    Part { name, lines }.draw(frame, area);
}

fn footer(frame: &mut Frame<'_>, screen: &Screen, area: Rect) {
    let keys = match &screen.scrub {
        None => "q leaves   ? keys   ↑↓ events".to_owned(),
        Some(s) => {
            let next = if s.scenarios > 1 { "   s next scenario" } else { "" };
            let play = if s.playing { "Space stops" } else { "Space plays" };
            format!("q leaves   ? keys   ←→ a second   n/p next, previous moment   {play}{next}")
        }
    };
    let line = Paragraph::new(Line::styled(keys, lines::SOFT));
    match &screen.scrub {
        None => frame.render_widget(line, area),
        Some(scrub) => {
            let [bar, below] = Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).areas(area);
            frame.render_widget(place(scrub, screen.now_us), bar);
            frame.render_widget(line, below);
        }
    }
}

/// Where in the run it is.
fn place(scrub: &Scrub, now_us: u64) -> Gauge<'static> {
    let (from, to) = (scrub.extent.from_us, scrub.extent.to_us);
    let part = (now_us.clamp(from, to) - from) as f64 / (to - from).max(1) as f64;
    let seconds = |us: u64| us as f64 / 1e6;
    let what = scrub.moment.as_deref().map(|m| format!("  {m}")).unwrap_or_default();
    let label = format!(
        "{:.1} of {:.1} s{what}",
        seconds(now_us.saturating_sub(from)),
        seconds(to - from)
    );
    Gauge::default().ratio(part).label(label).use_unicode(true)
}

fn help(frame: &mut Frame<'_>, area: Rect, replay: bool) {
    let mut rows = vec![
        ("q, Esc, Ctrl-C", "leave; the lab stays as it is"),
        ("↑ ↓", "older and newer events"),
        ("?", "these keys"),
    ];
    if replay {
        rows.extend([
            ("← →", "a second back, on"),
            ("PgUp PgDn", "ten seconds back, on"),
            ("Home End", "the begin, the end"),
            ("n p", "next, previous moment: a fault, a heal, a takeover"),
            ("Space", "play, stop"),
            ("s S", "next, previous scenario of the run"),
        ]);
    } else {
        rows.push(("End", "the newest events again"));
    }
    let lines: Vec<Line<'static>> = rows
        .iter()
        .map(|(k, what)| Line::from(format!(" {k:<15} {what} ")))
        .collect();
    let (width, height) = (72.min(area.width), (lines.len() as u16 + 2).min(area.height));
    let here = Rect {
        x: area.x + (area.width - width) / 2,
        y: area.y + (area.height - height) / 2,
        width,
        height,
    };
    frame.render_widget(Clear, here);
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" Keys ")), here);
}
