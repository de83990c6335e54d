//! Who needs a checkpoint. What `status` says of a lab that is between two states.

use super::record::LabRecord;
use crate::error::{Error, Problem};
use crate::files::Home;
use crate::units::Name;

/// Says who needs a checkpoint of `lab`: a lab or fork that was brought back from it, or may have been.
pub fn users<'a>(home: &'a Home, lab: &'a Name) -> impl Fn(&Name) -> Option<String> + 'a {
    move |name| {
        let instances = match home.instances() {
            Ok(instances) => instances,
            Err(e) => return Some(e.to_string()),
        };
        instances
            .into_iter()
            .find(|i| match LabRecord::load(&home.lab(i).record()) {
                Ok(None) => false,
                Ok(Some(r)) => {
                    r.desired.lab.name == *lab && [r.restored_from, r.restoring].iter().flatten().any(|n| n == name)
                }
                // It may well need it.
                Err(_) => i.split('@').next() == Some(lab.as_str()),
            })
    }
}

/// What `status` says of a lab that is between two states.
pub(super) fn between(instance: &str, from: &Name, going_on: bool) -> String {
    if going_on {
        format!("{instance} is being brought back from {from}")
    } else {
        half_restored(instance, from).to_string()
    }
}

/// The error of a lab that is between two states.
pub(super) fn half_restored(instance: &str, from: &Name) -> Error {
    Error::Operation(
        Problem::new("use the lab")
            .on(instance)
            .observed(format!("it was being brought back from {from} when that was cut short"))
            .remedy(format!(
                "failoverlab up {instance} (tries again) or failoverlab down {instance}"
            )),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restore_that_goes_on_was_not_cut_short() {
        let from: Name = "one".parse().unwrap();
        let going_on = between("ccr", &from, true);
        assert!(going_on.contains("is being brought back from one"), "{going_on}");
        assert!(!going_on.contains("cut short"), "{going_on}");
        assert!(between("ccr", &from, false).contains("cut short"));
    }
}
