//! A model and its adapters.

use std::sync::Arc;

use super::Model;
use super::adapters::{AdapterInfo, Adapters, Lora, Rack, Selection};
use crate::Result;

impl Model {
    /// The same model with LoRA adapters beside its products, in the place of those that it has. Texts take of each as much
    /// as its scale says, together; of what has a scale of 0 nothing.
    ///
    /// The weights are shared and stay as they are. What is kept of keys ([`Calibration`](crate::Calibration)) and how
    /// sensitive layers are ([`Fit`](crate::Fit)) is the model's without adapters.
    ///
    /// # Errors
    /// When an adapter cannot be read, is damaged, is there twice or does not fit the model; when it is for something else
    /// than products of matrices in layers; when memory is missing.
    pub fn with_adapters(&self, adapters: &[Lora]) -> Result<Self> {
        if adapters.is_empty() {
            return Ok(self.base());
        }
        let rack = Rack::open((self.device(), self.config(), self.weights()), adapters)?;
        let scales = adapters.iter().map(|adapter| adapter.scale).enumerate();
        let selection = Selection::new(&scales.collect::<Vec<_>>(), adapters.len())?;
        let adapters = Adapters::new(self.name(), Arc::new(rack), selection);
        Ok(Self(Arc::clone(&self.0), adapters))
    }

    /// The same model without adapters.
    #[must_use]
    pub fn base(&self) -> Self {
        Self(Arc::clone(&self.0), Adapters::default())
    }

    /// Its adapters. Requests name them by their places here.
    #[must_use]
    pub fn adapters(&self) -> Vec<AdapterInfo> {
        let Some(rack) = &self.1.rack else {
            return Vec::new();
        };
        let all = rack.adapters.iter().enumerate();
        let info = all.map(|(index, adapter)| AdapterInfo {
            name: adapter.name.clone(),
            path: adapter.path.clone(),
            scale: self.1.selection.scale(index),
        });
        info.collect()
    }

    /// The factors of its adapters.
    pub(crate) fn rack(&self) -> Option<&Arc<Rack>> {
        self.1.rack.as_ref()
    }

    /// What a text takes of its adapters that says nothing else.
    pub(crate) fn selection(&self) -> &Selection {
        &self.1.selection
    }
}
