//! Ops that keep a state: what is refused leaves it alone, and how tokens were split over calls changes no bit.

mod simulated;

use conformance::{Rng, Target, targets};
use walsh::ops::{DeltaRule, HeadOrder, Op, ShortConv};
use walsh::{DType, Device, Error, Tensor};

const TOKENS: usize = 23;
const SLOTS: usize = 3;
const HEADS: usize = 4;
const DIM: usize = 32;
const WIDTH: usize = (2 * 2 + HEADS) * DIM;

fn each_target(test: impl Fn(&Device)) {
    let simulator = simulated::target(1).unwrap();
    for Target { name, device, .. } in targets().unwrap().into_iter().chain([simulator]) {
        println!("on {name}");
        test(&device);
    }
}

/// What all tokens of two sequences bring, and the states of three slots.
struct World {
    device: Device,
    /// Of each sequence, the same numbers for every device.
    numbers: [Vec<f32>; 2],
    scalars: [Vec<f32>; 2],
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    latest: Tensor,
    heads: Tensor,
}

impl World {
    fn new(device: &Device) -> Self {
        let mut rng = Rng(11);
        let state = |shape: &[u64]| {
            let count: u64 = shape.iter().product();
            device.tensor(shape, &vec![0.5f32; count as usize]).unwrap()
        };
        let slots = SLOTS as u64;
        Self {
            numbers: [0, 1].map(|_| rng.normals(TOKENS * WIDTH)),
            scalars: [0, 1].map(|_| rng.normals(TOKENS * HEADS)),
            weight: device
                .tensor(&[WIDTH as u64, 4], &rng.normals(WIDTH * 4))
                .unwrap(),
            bias: device.tensor(&[HEADS as u64], &rng.normals(HEADS)).unwrap(),
            scale: device.tensor(&[HEADS as u64], &[-0.3f32; HEADS]).unwrap(),
            latest: state(&[slots, 3, WIDTH as u64]),
            heads: state(&[slots, HEADS as u64, DIM as u64, DIM as u64]),
            device: device.clone(),
        }
    }

    /// Runs both ops over tokens of sequences in slots; what comes out.
    fn run(&self, runs: &[(usize, usize, std::ops::Range<usize>)]) -> walsh::Result<Vec<u32>> {
        let rows: Vec<(usize, usize, usize)> = runs
            .iter()
            .flat_map(|(sequence, slot, tokens)| tokens.clone().map(|at| (*sequence, *slot, at)))
            .collect();
        let positions: Vec<i32> = rows.iter().map(|(_, _, at)| *at as i32).collect();
        let slots: Vec<i32> = rows.iter().map(|(_, slot, _)| *slot as i32).collect();
        self.run_at(&rows, &positions, &slots)
    }

    fn run_at(
        &self,
        rows: &[(usize, usize, usize)],
        positions: &[i32],
        slots: &[i32],
    ) -> walsh::Result<Vec<u32>> {
        let n = rows.len() as u64;
        let gather = |of: &[Vec<f32>; 2], width: usize| {
            let numbers: Vec<f32> = rows
                .iter()
                .flat_map(|(sequence, _, at)| &of[*sequence][at * width..][..width])
                .copied()
                .collect();
            self.device.tensor(&[n, width as u64], &numbers)
        };
        let (positions, slots) = (
            self.device.tensor(&[n], positions)?,
            self.device.tensor(&[n], slots)?,
        );
        let convolved = self.device.zeros(DType::F32, &[n, WIDTH as u64])?;
        let output = self
            .device
            .zeros(DType::F32, &[n, HEADS as u64, DIM as u64])?;
        let scalars = gather(&self.scalars, HEADS)?;
        let ops: [Op; 2] = [
            ShortConv {
                input: gather(&self.numbers, WIDTH)?,
                weight: self.weight.clone(),
                silu: true,
                state: self.latest.clone(),
                positions: positions.clone(),
                sequences: Some(slots.clone()),
                output: convolved.clone(),
            }
            .into(),
            DeltaRule {
                mixed: convolved,
                decay: scalars.clone(),
                rate: scalars,
                decay_bias: self.bias.clone(),
                decay_scale: self.scale.clone(),
                order: HeadOrder::Grouped,
                state: self.heads.clone(),
                positions,
                sequences: Some(slots),
                output: output.clone(),
            }
            .into(),
        ];
        let mut list = self.device.record();
        for op in ops {
            list.push(op)?;
        }
        self.device.run(&list.finish()?)?;
        let output: Vec<f32> = self.device.read(&output)?;
        Ok(output.into_iter().map(f32::to_bits).collect())
    }

    /// What a slot holds.
    fn slot(&self, slot: usize) -> Vec<u32> {
        let rows = slot as u64..slot as u64 + 1;
        [&self.latest, &self.heads]
            .into_iter()
            .flat_map(|state| {
                let own = state.rows(rows.clone()).unwrap();
                self.device.read::<f32>(&own).unwrap()
            })
            .map(f32::to_bits)
            .collect()
    }
}

#[test]
fn tokens_leave_the_same_bits_however_they_are_split() {
    each_target(|device| {
        let world = World::new(device);
        let untouched = world.slot(1);
        let whole: Vec<Vec<u32>> = [0, 1]
            .map(|sequence| world.run(&[(sequence, 2 * sequence, 0..TOKENS)]).unwrap())
            .to_vec();
        let left = [world.slot(0), world.slot(2)];
        let row = HEADS * DIM;
        // One by one, in chunks, and beside each other in slots that were somebody else's.
        for step in [1, 2, 5, 22] {
            let mut found = [Vec::new(), Vec::new()];
            for start in (0..TOKENS).step_by(step) {
                let own = start..(start + step).min(TOKENS);
                let runs = [(1, 0, own.clone()), (0, 2, own.clone())];
                let both = world.run(&runs).unwrap();
                let (second, first) = both.split_at(own.len() * row);
                found[0].extend_from_slice(first);
                found[1].extend_from_slice(second);
            }
            assert!(found[..] == whole[..], "in steps of {step}");
            assert!([world.slot(2), world.slot(0)] == left, "in steps of {step}");
        }
        assert!(world.slot(1) == untouched);
    });
}

#[test]
fn tokens_that_are_refused_change_no_state() {
    each_target(|device| {
        let world = World::new(device);
        world.run(&[(0, 0, 0..5), (1, 2, 0..5)]).unwrap();
        let before = [0, 1, 2].map(|slot| world.slot(slot));
        for (positions, slots, words) in [
            ([5, 7, 5], [0, 0, 2], "7 follows 5"),
            ([-1, 0, 5], [0, 0, 2], "negative"),
            ([5, 6, 5], [0, 0, 3], "sequence 3 is not one"),
            ([5, 6, 5], [0, 0, -1], "sequence -1 is not one"),
            ([5, 5, 6], [0, 2, 0], "do not follow each other"),
        ] {
            let rows = [(0, 0, 5), (0, 0, 6), (1, 2, 5)];
            let error = world.run_at(&rows, &positions, &slots).unwrap_err();
            let Error::Value { op, message } = &error else {
                panic!("{error}");
            };
            assert_eq!(*op, "ShortConv");
            assert!(message.contains(words), "{message}");
            assert!([0, 1, 2].map(|slot| world.slot(slot)) == before, "{words}");
        }
        world.run(&[(0, 0, 5..7), (1, 2, 5..6)]).unwrap();
        assert!(world.slot(0) != before[0] && world.slot(2) != before[2]);
    });
}
