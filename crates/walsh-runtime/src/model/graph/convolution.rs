//! Layers that are gated short convolutions.

use walsh::Tensor;
use walsh::ops::{Activation, GatedActivation, ShortConv};

use super::block::Block;
use super::intermediates::Convolved;
use crate::Result;
use crate::model::memory::LayerState;
use crate::model::weights::Convolving;

impl Block<'_> {
    /// hidden = what the layer makes of the input and its state: `after · convolution(before · x)`, led back to the stream.
    pub(super) fn convolve(
        &mut self,
        input: &Tensor,
        layer: &Convolving,
        (own, state): (&Convolved, &LayerState),
    ) -> Result<()> {
        let a = self.a;
        let ([before, after], [first, second]) = (&layer.gates, &own.gates);
        self.linears(
            input,
            &[(before, first), (after, second), (&layer.input, &own.input)],
        )?;
        self.multiply(first, &own.input)?;
        self.list.push(ShortConv {
            input: own.input.clone(),
            weight: layer.convolution.clone(),
            silu: false,
            state: state.latest.clone(),
            positions: a.positions.clone(),
            sequences: self.sequences.clone(),
            output: own.output.clone(),
        })?;
        self.multiply(second, &own.output)?;
        self.linear(&layer.output, &own.output, &a.hidden)
    }

    /// numbers = gate · numbers.
    fn multiply(&mut self, gate: &Tensor, numbers: &Tensor) -> Result<()> {
        self.list.push(GatedActivation {
            gate: gate.clone(),
            up: numbers.clone(),
            activation: Activation::Identity,
            output: numbers.clone(),
        })?;
        Ok(())
    }
}
