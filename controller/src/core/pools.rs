//! Pools: taking changes in.

use std::sync::Arc;

use super::{Core, PoolEntry, report};
use crate::model::{Change, PoolView};

impl Core {
    pub(super) fn pools_changed(&mut self, change: Change<PoolView>) {
        let specs = |core: &Self| -> Vec<_> {
            let views = core.pools.values().map(|entry| &entry.view);
            views
                .map(|view| (view.spec.clone(), view.allocation.clone()))
                .collect()
        };
        let before = specs(self);
        match change {
            Change::Applied(view) => self.pool_applied(view),
            Change::Gone(view) => {
                self.pools.remove(&view.spec.name);
            }
            Change::Listed(views) => {
                self.listed.pools = true;
                let names: Vec<Arc<str>> =
                    views.iter().map(|view| view.spec.name.clone()).collect();
                self.pools.retain(|name, _| names.contains(name));
                for view in views {
                    self.pool_applied(view);
                }
            }
        }
        if self.started && before != specs(self) {
            self.rebuild_pools();
            // Addresses may be covered by another pool now or by none, and Services that wait
            // be served.
            self.sync_all_vips();
            self.revisit = true;
        }
    }

    fn pool_applied(&mut self, view: PoolView) {
        let reported = view.status.clone();
        let known = self.pools.get(&view.spec.name);
        let said = match known.filter(|known| known.view.uid == view.uid) {
            Some(known) => known.said.clone(),
            None => reported.as_ref().map(report::faults).unwrap_or_default(),
        };
        let entry = PoolEntry {
            view,
            reported,
            said,
        };
        let name = entry.view.spec.name.clone();
        self.stale_pools.insert(name.clone());
        self.pools.insert(name, entry);
    }

    pub(super) fn rebuild_pools(&mut self) {
        let specs = self.pools.values().map(|entry| entry.view.spec.clone());
        self.allocator.set_pools(specs.collect());
        self.stale_pools.extend(self.pools.keys().cloned());
    }
}
