//! A hypervisor in memory: parses our XML, behaves like libvirt where the rest of the tool could notice, fails on request.
//!
//! For tests of this and other rooms; nothing in the tool itself makes one.

use super::{Described, Domain, DomainEvent, DomainState, Hypervisor, Listener, edit};
use crate::error::{Error, IoContext, Problem, Result};
use crate::files::SOCKET_PATH_MAX;
use crate::lock::lock;
use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

/// A call of [`Hypervisor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// [`Hypervisor::create`].
    Create,
    /// [`Hypervisor::list`].
    List,
    /// [`Hypervisor::lookup`].
    Lookup,
    /// [`Hypervisor::xml`].
    Xml,
    /// [`Hypervisor::suspend`].
    Suspend,
    /// [`Hypervisor::resume`].
    Resume,
    /// [`Hypervisor::destroy`].
    Destroy,
    /// [`Hypervisor::set_link`].
    SetLink,
    /// [`Hypervisor::monitor`].
    Monitor,
    /// [`Hypervisor::agent`].
    Agent,
    /// [`Hypervisor::snapshot`].
    Snapshot,
    /// [`Hypervisor::restore`].
    Restore,
}

/// What a domain looks like now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FakeDomain {
    /// Its description, with its present disks and carriers.
    pub described: Described,
    /// Its state.
    pub state: DomainState,
    /// An invented process id, another one for every start.
    pub pid: u32,
    /// Carrier of NICs that libvirt does not know, by id.
    pub unmanaged_links: BTreeMap<String, bool>,
    xml: String,
}

type Answer = Box<dyn FnMut(&str, &str) -> Result<String> + Send>;

#[derive(Default)]
struct State {
    domains: BTreeMap<String, FakeDomain>,
    calls: Vec<(Kind, String)>,
    failures: Vec<(Kind, usize)>,
    pids: u32,
    agent: Option<Answer>,
}

/// The fake. Share it with `Arc`.
#[derive(Default)]
pub struct Fake {
    state: Mutex<State>,
    listeners: RwLock<Vec<Listener>>,
}

impl std::fmt::Debug for Fake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Fake")
            .field("domains", &self.lock().domains)
            .finish_non_exhaustive()
    }
}

impl Fake {
    /// Without domains.
    pub fn new() -> Self {
        Self::default()
    }

    /// The `nth` call of this kind from now on fails (1: the next one); the call before and after it work.
    pub fn fail(&self, kind: Kind, nth: usize) {
        self.lock().failures.push((kind, nth));
    }

    /// Every call so far with the domain's name (empty for `list`), failed ones included.
    pub fn calls(&self) -> Vec<(Kind, String)> {
        self.lock().calls.clone()
    }

    /// No call fails any more.
    pub fn mend(&self) {
        self.lock().failures.clear();
    }

    /// A domain as it is now.
    pub fn domain(&self, name: &str) -> Option<FakeDomain> {
        self.lock().domains.get(name).cloned()
    }

    /// A domain's process dies by itself.
    pub fn crash(&self, name: &str) {
        let gone = self.lock().domains.remove(name).is_some();
        if gone {
            self.tell(name, "stopped", "failed");
        }
    }

    /// What guest agents answer: `f(domain, command)`. Without it they know `guest-ping` only.
    pub fn on_agent(&self, f: impl FnMut(&str, &str) -> Result<String> + Send + 'static) {
        self.lock().agent = Some(Box::new(f));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn tell(&self, name: &str, what: &str, detail: &str) {
        let event = DomainEvent {
            name: name.into(),
            what: what.into(),
            detail: detail.into(),
            monotonic_us: crate::event::monotonic_us(),
        };
        for f in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            f(event.clone());
        }
    }

    fn start(&self, kind: Kind, xml: &str, paused: bool) -> Result<()> {
        let described = Described::parse(xml)?;
        let name = described.name.clone();
        let mut state = self.called(kind, &name)?;
        if state.domains.contains_key(&name) {
            return Err(failed(kind, &name, "a domain of this name runs already"));
        }
        if let Some(long) = described
            .datagrams()
            .flat_map(|d| [d.local.path, d.remote.path])
            .find(|p| p.len() >= SOCKET_PATH_MAX)
        {
            return Err(failed(kind, &name, format!("UNIX socket path '{long}' is too long")));
        }
        let ports = |d: &Described| {
            d.devices
                .interface
                .iter()
                .map(|i| i.source.local.port)
                .collect::<Vec<_>>()
        };
        let taken: Vec<u16> = state.domains.values().flat_map(|d| ports(&d.described)).collect();
        if let Some(port) = ports(&described).iter().find(|p| taken.contains(p)) {
            return Err(failed(
                kind,
                &name,
                format!("can't bind 127.0.0.1:{port}: Address already in use"),
            ));
        }
        state.pids += 1;
        let down = described.unmanaged_down();
        let unmanaged_links = down.map(|id| (id.to_owned(), false)).collect();
        let domain = FakeDomain {
            described,
            state: if paused {
                DomainState::Paused
            } else {
                DomainState::Running
            },
            pid: 1_000_000 + state.pids,
            unmanaged_links,
            xml: xml.to_owned(),
        };
        state.domains.insert(name.clone(), domain);
        drop(state);
        self.tell(
            &name,
            "started",
            if kind == Kind::Restore { "restored" } else { "booted" },
        );
        Ok(())
    }

    /// Notes the call and fails where that was asked for.
    fn called(&self, kind: Kind, name: &str) -> Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        state.calls.push((kind, name.to_owned()));
        let mut fails = false;
        state.failures.retain_mut(|(k, nth)| {
            if *k == kind {
                *nth = nth.saturating_sub(1);
                fails |= *nth == 0;
            }
            *k != kind || *nth > 0
        });
        if fails {
            return Err(failed(kind, name, "the fake was told to fail"));
        }
        Ok(state)
    }
}

impl State {
    fn get(&mut self, kind: Kind, name: &str) -> Result<&mut FakeDomain> {
        self.domains
            .get_mut(name)
            .ok_or_else(|| failed(kind, name, "libvirt has no such domain"))
    }
}

fn failed(kind: Kind, name: &str, seen: impl std::fmt::Display) -> Error {
    Error::Operation(Problem::new(format!("{kind:?}").to_lowercase()).on(name).observed(seen))
}

impl FakeDomain {
    fn domain(&self) -> Domain {
        Domain {
            name: self.described.name.clone(),
            state: self.state,
            pid: Some(self.pid),
            label: self.described.label().map(str::to_owned),
        }
    }

    /// Carrier of a lab port.
    pub fn link_up(&self, mac: &str) -> Option<bool> {
        self.described.carriers().get(mac).copied()
    }

    /// The XML that it was started with, with its present disks and carriers.
    fn live_xml(&self) -> Result<String> {
        let original = Described::parse(&self.xml)?;
        let disks: BTreeMap<&str, &str> = original
            .devices
            .disk
            .iter()
            .zip(&self.described.devices.disk)
            .map(|(was, is)| (was.source.file.as_str(), is.source.file.as_str()))
            .collect();
        let mut reader = quick_xml::Reader::from_str(&self.xml);
        let mut writer = quick_xml::Writer::new(Vec::new());
        let mut mac = String::new();
        loop {
            let event = reader
                .read_event()
                .tried("read the machine's description", &self.described.name)?;
            let event = match event {
                Event::Eof => break,
                // The carriers that libvirt does not know stand beside the label: written anew below it.
                Event::Start(e) if e.local_name().as_ref() == "lab" => {
                    let now = edit::label(&self.described.metadata.lab.clone().unwrap_or_default())?;
                    let end = e.to_end().into_owned();
                    reader
                        .read_to_end(end.name())
                        .tried("read the machine's description", &self.described.name)?;
                    writer.get_mut().extend(now.into_bytes());
                    continue;
                }
                Event::Empty(e) => {
                    let value = |key| {
                        let attribute = e.try_get_attribute(key).ok().flatten()?;
                        attribute
                            .normalized_value(XmlVersion::Implicit1_0)
                            .ok()
                            .map(std::borrow::Cow::into_owned)
                    };
                    match e.name().as_ref() {
                        "source" => match value("file").and_then(|f| disks.get(f.as_str()).copied()) {
                            Some(now) => Event::Empty(BytesStart::new("source").with_attributes([("file", now)])),
                            None => Event::Empty(e),
                        },
                        "mac" => {
                            mac = value("address").unwrap_or_default();
                            Event::Empty(e)
                        }
                        "link" => {
                            let state = if self.link_up(&mac) == Some(false) {
                                "down"
                            } else {
                                "up"
                            };
                            Event::Empty(BytesStart::new("link").with_attributes([("state", state)]))
                        }
                        _ => Event::Empty(e),
                    }
                }
                other => other,
            };
            writer
                .write_event(event)
                .tried("write the machine's description", &self.described.name)?;
        }
        String::from_utf8(writer.into_inner()).tried("write the machine's description", &self.described.name)
    }
}

impl Hypervisor for Fake {
    fn create(&self, xml: &str, paused: bool) -> Result<()> {
        self.start(Kind::Create, xml, paused)
    }

    fn list(&self) -> Result<Vec<Domain>> {
        Ok(self
            .called(Kind::List, "")?
            .domains
            .values()
            .map(FakeDomain::domain)
            .collect())
    }

    fn lookup(&self, name: &str) -> Result<Option<Domain>> {
        Ok(self
            .called(Kind::Lookup, name)?
            .domains
            .get(name)
            .map(FakeDomain::domain))
    }

    fn xml(&self, name: &str) -> Result<String> {
        self.called(Kind::Xml, name)?.get(Kind::Xml, name)?.live_xml()
    }

    fn suspend(&self, name: &str) -> Result<()> {
        self.called(Kind::Suspend, name)?.get(Kind::Suspend, name)?.state = DomainState::Paused;
        self.tell(name, "suspended", "paused");
        Ok(())
    }

    fn resume(&self, name: &str) -> Result<()> {
        self.called(Kind::Resume, name)?.get(Kind::Resume, name)?.state = DomainState::Running;
        self.tell(name, "resumed", "unpaused");
        Ok(())
    }

    fn destroy(&self, name: &str) -> Result<()> {
        let gone = self.called(Kind::Destroy, name)?.domains.remove(name).is_some();
        if gone {
            self.tell(name, "stopped", "destroyed");
        }
        Ok(())
    }

    fn set_link(&self, name: &str, mac: &str, up: bool) -> Result<()> {
        let mut state = self.called(Kind::SetLink, name)?;
        let domain = state.get(Kind::SetLink, name)?;
        let port = domain
            .described
            .devices
            .interface
            .iter_mut()
            .find(|i| i.mac.address == mac);
        if let Some(port) = port {
            port.link.get_or_insert_default().state = if up { "up" } else { "down" }.into();
            return Ok(());
        }
        let id = domain.described.unmanaged_nic(mac).map(str::to_owned);
        let id = id.ok_or_else(|| failed(Kind::SetLink, name, "no port has this MAC"))?;
        domain.unmanaged_links.insert(id, up);
        if let Some(label) = &mut domain.described.metadata.lab {
            label.note_carrier(mac, up);
        }
        Ok(())
    }

    fn monitor(&self, name: &str, _: &str) -> Result<String> {
        self.called(Kind::Monitor, name)?.get(Kind::Monitor, name)?;
        Ok(r#"{"return":{}}"#.into())
    }

    fn agent(&self, name: &str, command: &str, _: Duration) -> Result<String> {
        let mut state = self.called(Kind::Agent, name)?;
        if state.get(Kind::Agent, name)?.state != DomainState::Running {
            return Err(failed(Kind::Agent, name, "the guest agent does not answer"));
        }
        let answer = match &mut state.agent {
            Some(f) => f(name, command)?,
            None if command.contains("guest-ping") => r#"{"return":{}}"#.into(),
            None => r#"{"error":{"class":"CommandNotFound","desc":"The command has not been found"}}"#.into(),
        };
        super::refused("ask the guest agent", name, &answer)?;
        Ok(answer)
    }

    fn snapshot(&self, name: &str, memory: &Path, disks: &[(String, PathBuf)]) -> Result<()> {
        let mut state = self.called(Kind::Snapshot, name)?;
        let domain = state.get(Kind::Snapshot, name)?;
        if domain.state != DomainState::Paused {
            return Err(failed(Kind::Snapshot, name, "the domain is not suspended"));
        }
        edit::snapshot(&domain.described, disks)?;
        if let Some((_, missing)) = disks.iter().find(|(_, p)| !p.is_file()) {
            let seen = format!("missing existing file for disk: {}", missing.display());
            return Err(failed(Kind::Snapshot, name, seen));
        }
        fs_err::write(memory, domain.live_xml()?).tried("save the machine's memory", name)?;
        for disk in &mut domain.described.devices.disk {
            let Some((_, overlay)) = disks.iter().find(|(t, _)| *t == disk.target.dev) else {
                continue;
            };
            disk.source.file = overlay.display().to_string();
        }
        Ok(())
    }

    fn restore(&self, memory: &Path, xml: &str) -> Result<()> {
        let name = Described::parse(xml)?.name;
        let saved = fs_err::read_to_string(memory).tried("restore the machine", &name)?;
        let (saved, wanted) = (Described::parse(&saved)?, Described::parse(xml)?);
        let shape = |d: &Described| {
            let macs: Vec<_> = d.carriers().into_keys().collect();
            let disks: Vec<_> = d.devices.disk.iter().map(|d| d.target.clone()).collect();
            (
                // The same port over the other kind of cable is another device: QEMU refuses its state.
                d.datagrams().count(),
                d.name.clone(),
                d.uuid.clone(),
                d.memory.clone(),
                d.vcpu.clone(),
                macs,
                disks,
            )
        };
        if shape(&saved) != shape(&wanted) {
            return Err(failed(
                Kind::Restore,
                &name,
                "the description differs from the saved machine's",
            ));
        }
        self.start(Kind::Restore, xml, true)
    }

    fn listen(&self, f: Listener) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(f);
    }
}

#[cfg(test)]
mod tests;
