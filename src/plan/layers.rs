//! From which of the checkpoints that `up` kept a lab comes up, and why.

use super::Inputs;
use crate::spec::Lab;
use crate::units::Name;
use serde::{Deserialize, Serialize};

/// What a checkpoint that `up` keeps has behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Layer {
    /// The machines have booted; nothing of what they run is there.
    Booted,
    /// What they run is deployed, and all is well.
    Healthy,
}

impl Layer {
    /// Its word, also the beginning of such a checkpoint's name.
    pub fn word(self) -> &'static str {
        match self {
            Layer::Booted => "booted",
            Layer::Healthy => "healthy",
        }
    }

    /// Name of the checkpoint of this layer of a lab with these inputs.
    pub fn name(self, inputs: &Inputs) -> Name {
        let key = inputs.key(self);
        format!("{}-{}", self.word(), &key[..DIGITS])
            .parse()
            .expect("a word and hexadecimal digits")
    }
}

const DIGITS: usize = 12;

/// What builds of before there were layers called that of a healthy lab.
const FORMER: &str = "warm";

/// Whether a checkpoint of this name was kept by `up`, not by a person.
pub fn is_layer(name: &Name) -> bool {
    let words = [Layer::Booted.word(), Layer::Healthy.word(), FORMER];
    name.as_str()
        .rsplit_once('-')
        .is_some_and(|(word, d)| words.contains(&word) && d.len() == DIGITS && d.bytes().all(|b| b.is_ascii_hexdigit()))
}

/// A checkpoint that `up` kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Its name.
    pub name: Name,
    /// What it has behind it.
    pub layer: Layer,
    /// What went into it.
    pub inputs: Inputs,
    /// Why it cannot be used: it was looked at.
    pub unfit: Option<String>,
}

/// How `up` is asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct How {
    /// What goes into the lab; unknown where nobody has found out yet how machines run on this host.
    pub inputs: Option<Inputs>,
    /// Boot in any case.
    pub cold: bool,
}

/// From where a lab that is not there comes up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Origin {
    /// The checkpoint; none where the machines boot.
    pub from: Option<Name>,
    /// What it has behind it.
    pub layer: Option<Layer>,
    /// Why this one.
    pub reason: String,
}

/// Most differences that are told of one checkpoint.
const TOLD: usize = 4;

/// The highest layer that fits.
pub(super) fn origin(how: &How, kept: &[Kept]) -> Origin {
    let boots = |reason: String| Origin {
        from: None,
        layer: None,
        reason,
    };
    if how.cold {
        return boots("that was asked for".into());
    }
    let Some(inputs) = &how.inputs else {
        return boots("how machines run on this host is not known yet".into());
    };
    let found = |layer| kept.iter().find(|k| k.unfit.is_none() && k.is_of(layer, inputs));
    let from = |k: &Kept, reason| Origin {
        from: Some(k.name.clone()),
        layer: Some(k.layer),
        reason,
    };
    if let Some(k) = found(Layer::Healthy) {
        return from(k, "all that goes into the lab is as it was".into());
    }
    let since = |layer| nearest(inputs, layer, kept);
    if let Some(k) = found(Layer::Booted) {
        let reason = "all that its machines boot with is as it was".to_owned();
        return from(
            k,
            [Some(reason), since(Layer::Healthy)]
                .into_iter()
                .flatten()
                .collect::<Vec<_>>()
                .join("; "),
        );
    }
    boots(
        since(Layer::Booted)
            .or_else(|| since(Layer::Healthy))
            .unwrap_or_else(|| "nothing of this lab is kept yet".into()),
    )
}

impl Kept {
    fn is_of(&self, layer: Layer, inputs: &Inputs) -> bool {
        self.layer == layer && self.inputs.key(layer) == inputs.key(layer)
    }
}

/// Why the kept one of that layer that is nearest to `inputs` does not fit; `None` where none is kept.
fn nearest(inputs: &Inputs, layer: Layer, kept: &[Kept]) -> Option<String> {
    let of_layer = kept.iter().filter(|k| k.layer == layer);
    let near = of_layer.min_by_key(|k| inputs.differences(&k.inputs, layer).len())?;
    if let Some(why) = &near.unfit {
        return Some(format!("{} cannot be used: {why}", near.name));
    }
    let differ = inputs.differences(&near.inputs, layer);
    let mut told: Vec<String> = differ
        .iter()
        .take(TOLD)
        .map(|(name, ours, theirs)| format!("{name} ({}, was {})", value(*ours), value(*theirs)))
        .collect();
    if differ.len() > TOLD {
        told.push(format!("{} more", differ.len() - TOLD));
    }
    Some(format!("other than in {}: {}", near.name, told.join(", ")))
}

/// A value as a person reads it: of a digest the beginning.
fn value(value: Option<&str>) -> &str {
    match value {
        None => "absent",
        Some(v) if v.len() == 64 && v.bytes().all(|b| b.is_ascii_hexdigit()) => &v[..DIGITS],
        Some(v) => v,
    }
}

/// The layers that `lab` has: where nothing is deployed, one that has booted is healthy.
pub(super) fn layers(lab: &Lab) -> &'static [Layer] {
    if lab.runtime.is_some() || lab.nodes.iter().any(|n| n.has_commands() || !n.run_after.is_empty()) {
        &[Layer::Booted, Layer::Healthy]
    } else {
        &[Layer::Healthy]
    }
}

/// What the layer shall be kept as, where it is not.
pub(super) fn to_keep(how: &How, layer: Layer, kept: &[Kept]) -> Option<Name> {
    let inputs = how.inputs.as_ref()?;
    let there = kept.iter().any(|k| k.unfit.is_none() && k.is_of(layer, inputs));
    (!there).then(|| layer.name(inputs))
}
