//! What an operator, and the other member, are told of the service.

use super::fence::Address;
use super::{Service, Stage};
use crate::cluster::snapshot::Snapshot;
use crate::ctx::Ctx;
use crate::member::groups::{Group, Groups};
use crate::op::Pending;
use ccr_contract::config::Config;
use ccr_contract::status::{self, ServiceState};

impl Service {
    /// The state of the service here, in the original's words.
    pub fn state(&self, cluster: &Snapshot<'_>) -> ServiceState {
        match self.address {
            _ if self.serves() && !cluster.lease_valid => ServiceState::OfflinePending,
            Address::Away | Address::Returning { .. } if self.serves() => ServiceState::OnlinePending,
            _ => self.stage.state(self.partially()),
        }
    }
    /// Why a group is not mounted here although the service is.
    pub fn dismounted(&self, ctx: &Ctx<Pending>, cluster: &Snapshot<'_>, group: &Group) -> Option<String> {
        let (lost, verdict) = group.dial(ctx, cluster, self.accepts_loss());
        let why = verdict.err().filter(|_| self.partially() && !group.store.mounted())?;
        Some(format!("dismounted, {lost} logs lost: {why}"))
    }
    /// What is wrong with the databases of the service here, or under way.
    pub fn cause(&self, ctx: &Ctx<Pending>, cluster: &Snapshot<'_>, groups: &Groups) -> Option<String> {
        let mut causes = groups.causes(cluster.peer, |g| self.dismounted(ctx, cluster, g));
        if let Stage::Verifying(v) = &self.stage {
            let far = v
                .done
                .map_or_else(String::new, |(done, all)| format!(": {done} of {all} files"));
            causes.push(format!("{} verifies its databases for a move{far}", v.order.to));
        }
        (!causes.is_empty()).then(|| causes.join("; "))
    }

    /// The resources of the service that failed here.
    fn failed_resources(&self, groups: &Groups) -> Vec<String> {
        let failed = self.has_failed().then(|| self.failed_resource.clone());
        let dismounted = groups.stores().filter(|s| self.partially() && !s.mounted());
        let dismounted = dismounted.map(|s| format!("database {}: dismounted", s.name));
        failed.into_iter().chain(dismounted).collect()
    }

    /// The service group as this node sees it; none where it is in no cluster.
    pub fn status(
        &self,
        ctx: &Ctx<Pending>,
        cluster: &Snapshot<'_>,
        groups: &Groups,
        config: &Config,
    ) -> Option<status::Service> {
        let record = cluster.record;
        let owner = (!record.owner.is_empty()).then(|| record.owner.clone());
        let here = self.state(cluster);
        let state = if cluster.is_owner() || here != ServiceState::Offline {
            Some(here)
        } else {
            cluster.member_heartbeat().map(|v| v.service)
        };
        let state = state.filter(|_| cluster.up)?;
        let up = matches!(state, ServiceState::Online | ServiceState::PartiallyOnline);
        Some(status::Service {
            name: config.service.clone(),
            state,
            active: owner.clone().filter(|_| up),
            owner,
            epoch: (record.owner_epoch != 0).then_some(record.owner_epoch),
            cause: self.cause(ctx, cluster, groups),
            intent: record.intent,
            address: config.service_address.to_string(),
            redelivery_due: record.redeliver,
            failed_resources: self.failed_resources(groups),
        })
    }
}
