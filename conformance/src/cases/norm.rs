use walsh::ops::{RmsNorm, SumBefore};
use walsh::{DType, Tensor};

use super::shared::{Problems, Table, rng};
use crate::reference::{Norm, Normed, rms_norm as reference};
use crate::{Expected, HostTensor, Problem, Rng};

pub(super) const TABLES: &[Table] = &[Table::new("RmsNorm", rms_norm)];

const WIDTHS: [u64; 9] = [1, 2, 15, 16, 17, 64, 576, 1001, 4096];

/// Where a result lies.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    Apart,
    Input,
    Addend,
    After,
}

/// Which parts of the op a case uses.
#[derive(Debug, Clone, Copy)]
struct Form {
    weight: bool,
    /// The residual before the norm, and where its sum goes.
    before: Option<Place>,
    after: bool,
    output: Place,
}

const FORMS: &[Form] = &[
    form(false, None, false, Place::Apart),
    form(false, None, false, Place::Input),
    form(true, None, false, Place::Apart),
    form(true, None, false, Place::Input),
    form(true, None, true, Place::Apart),
    form(true, None, true, Place::Input),
    form(false, None, true, Place::After),
    form(true, Some(Place::Apart), false, Place::Apart),
    form(true, Some(Place::Input), false, Place::Apart),
    form(true, Some(Place::Addend), false, Place::Apart),
    form(true, Some(Place::Addend), false, Place::Input),
    form(true, Some(Place::Input), true, Place::Addend),
    form(false, Some(Place::Apart), true, Place::After),
];

const fn form(weight: bool, before: Option<Place>, after: bool, output: Place) -> Form {
    Form {
        weight,
        before,
        after,
        output,
    }
}

fn rms_norm() -> Problems {
    let mut problems = Vec::new();
    for form in FORMS {
        for width in WIDTHS {
            for rows in [1, 3, 33] {
                problems.push(case(*form, rows, width, 1.0));
            }
        }
        // Squares that leave the range of f32 on either side.
        for magnitude in [1e-30, 1e-22, 1e15, 1e22] {
            problems.push(case(*form, 3, 48, magnitude));
        }
    }
    Box::new(problems.into_iter())
}

/// The numbers of a case.
struct Numbers {
    input: Vec<f32>,
    addend: Vec<f32>,
    weight: Vec<f32>,
    after: Vec<f32>,
}

impl Numbers {
    fn new(rng: &mut Rng, n: usize, width: usize, magnitude: f32) -> Self {
        let mut scaled = |factor: f32| -> Vec<f32> {
            let numbers = rng.normals(n);
            numbers.into_iter().map(|x| x * factor).collect()
        };
        Self {
            input: scaled(3.0 * magnitude),
            addend: scaled(magnitude),
            after: scaled(1.0),
            weight: rng.normals(width),
        }
    }
}

fn case(form: Form, rows: u64, width: u64, magnitude: f32) -> Problem {
    let Form {
        weight,
        before,
        after,
        output,
    } = form;
    let name = format!(
        "RmsNorm [{rows}, {width}]{} before {before:?}{} into {output:?} of {magnitude:e}",
        if weight { " weighted" } else { "" },
        if after { " after" } else { "" },
    );
    let (seed, mut rng) = rng(&name);
    let shape = [rows, width];
    let mut numbers = Numbers::new(&mut rng, (rows * width) as usize, width as usize, magnitude);
    if rows > 3 {
        numbers.input[3 * width as usize] = f32::NAN;
    }
    // An eps that matters beside tiny squares, as it would beside ordinary ones.
    let eps = 1e-5f32.min(magnitude * magnitude).max(1e-38);
    let normed = reference(Norm {
        width: width as usize,
        input: &numbers.input,
        before: before.map(|_| numbers.addend.as_slice()),
        weight: weight.then_some(&numbers.weight),
        eps,
        after: after.then_some(&numbers.after),
    });
    let mut tensors = vec![
        HostTensor::f32(&shape, &numbers.input),
        HostTensor::f32(&shape, &numbers.addend),
        HostTensor::f32(&[width], &numbers.weight),
        HostTensor::f32(&shape, &numbers.after),
    ];
    let index = |place| match place {
        Place::Input => 0,
        Place::Addend => 1,
        Place::After => 3,
        Place::Apart => usize::MAX,
    };
    let mut place = |place, expected: Expected| {
        let index = index(place).min(tensors.len());
        match tensors.get_mut(index) {
            Some(tensor) => tensor.expected = Some(expected),
            None => tensors.push(HostTensor::output(DType::F32, &shape, expected)),
        }
        index
    };
    let sum = before.map(|at| place(at, Expected::f32(&normed.sum)));
    let out = place(output, expected(normed));
    Problem::new(name, seed, tensors, move |t: &[Tensor]| {
        Ok(RmsNorm {
            input: t[0].clone(),
            before: sum.map(|sum| SumBefore {
                addend: t[1].clone(),
                sum: t[sum].clone(),
            }),
            weight: weight.then(|| t[2].clone()),
            eps,
            after: after.then(|| t[3].clone()),
            output: t[out].clone(),
        }
        .into())
    })
}

fn expected(normed: Normed) -> Expected {
    let parts = normed.normed.iter().zip(&normed.output);
    let bounds = parts
        .map(|(normed, output)| 1e-6 * normed.abs() + 2e-7 * output.abs() + 1e-37)
        .collect();
    Expected::Close {
        values: normed.output,
        bounds,
        leave: None,
        halves: None,
        why: "an f32 sum of squares in many lanes, and five roundings",
    }
}
