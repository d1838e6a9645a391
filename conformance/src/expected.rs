use walsh::DType;
use walsh::formats::ggml;

/// What an op must leave in a tensor.
#[derive(Debug, Clone)]
pub enum Expected {
    /// These bytes.
    Exact(Vec<u8>),
    /// Numbers near these.
    Close {
        /// The reference's results. A NaN asks for a NaN, an infinity for itself.
        values: Vec<f64>,
        /// How far each number may be off.
        bounds: Vec<f64>,
        /// Why the bounds are what they are.
        why: &'static str,
        /// What holds instead on a target that has leave to approximate.
        leave: Option<Leave>,
        /// What holds instead on a target that multiplies numbers of 16 bits.
        halves: Option<Leave>,
    },
}

/// How a target may approximate a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Approximation {
    /// Not at all.
    None,
    /// By 8-bit numbers.
    Integers,
    /// By numbers of 16 bits.
    Halves,
}

/// How much a target may approximate.
#[derive(Debug, Clone)]
pub struct Leave {
    /// How far each number may be off.
    pub bounds: Vec<f64>,
    /// The most that the squared errors may sum to.
    pub squared_error: f64,
    /// What is approximated.
    pub why: &'static str,
}

impl Expected {
    /// These numbers exactly, as `f32`.
    #[must_use]
    pub fn f32(values: &[f32]) -> Self {
        Self::Exact(bytemuck::cast_slice(values).to_vec())
    }

    /// These numbers exactly, as `i32`.
    #[must_use]
    pub fn i32(values: &[i32]) -> Self {
        Self::Exact(bytemuck::cast_slice(values).to_vec())
    }

    /// Numbers within `relative` times the larger of their own magnitude and
    /// `floor`.
    #[must_use]
    pub fn close(values: Vec<f64>, relative: f64, floor: f64, why: &'static str) -> Self {
        let bounds = values
            .iter()
            .map(|value| relative * value.abs().max(floor))
            .collect();
        Self::Close {
            values,
            bounds,
            why,
            leave: None,
            halves: None,
        }
    }

    /// Compares a tensor's bytes, as they are on a target that approximates so.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn check(
        &self,
        dtype: DType,
        bytes: &[u8],
        approximation: Approximation,
    ) -> Result<(), String> {
        match self {
            Self::Exact(expected) if dtype == DType::F32 => check_floats(expected, bytes),
            Self::Exact(expected) => check_exact(expected, bytes),
            Self::Close {
                values,
                bounds,
                why,
                leave,
                halves,
            } => {
                let leave = match approximation {
                    Approximation::None => None,
                    Approximation::Integers => leave.as_ref(),
                    Approximation::Halves => halves.as_ref(),
                };
                let (bounds, why) = leave.map_or((bounds, why), |l| (&l.bounds, &l.why));
                let mut given = vec![0.0f32; values.len()];
                ggml::decode(dtype, bytes, &mut given).map_err(|error| error.to_string())?;
                for (index, (value, given)) in values.iter().zip(&given).enumerate() {
                    check_number(*value, f64::from(*given), bounds[index])
                        .map_err(|wrong| format!("number {index} {wrong} ({why})"))?;
                }
                leave.map_or(Ok(()), |l| check_squares(values, &given, l.squared_error))
            }
        }
    }
}

/// As [`check_exact`], but any NaN does where one is asked for: machines differ in the bits that they give it.
fn check_floats(expected: &[u8], given: &[u8]) -> Result<(), String> {
    let numbers = |bytes: &[u8]| -> Vec<u8> {
        let words = bytes.as_chunks::<4>().0.iter();
        let same = |word: &[u8; 4]| match f32::from_le_bytes(*word) {
            number if number.is_nan() => f32::NAN.to_le_bytes(),
            _ => *word,
        };
        words.flat_map(same).collect()
    };
    check_exact(&numbers(expected), &numbers(given))
}

fn check_exact(expected: &[u8], given: &[u8]) -> Result<(), String> {
    let wrong = expected.iter().zip(given).position(|(a, b)| a != b);
    match wrong {
        _ if expected.len() != given.len() => Err(format!(
            "has {} bytes, but must have {}",
            given.len(),
            expected.len()
        )),
        Some(index) => Err(format!(
            "byte {index} is {:#04x}, but must be {:#04x}",
            given[index], expected[index]
        )),
        None => Ok(()),
    }
}

fn check_number(expected: f64, given: f64, bound: f64) -> Result<(), String> {
    let fits = if expected.is_nan() {
        given.is_nan()
    } else if expected.is_infinite() {
        given == expected
    } else {
        (given - expected).abs() <= bound
    };
    if fits {
        return Ok(());
    }
    Err(format!(
        "is {given:e}, but must be {expected:e} ± {bound:.1e}"
    ))
}

fn check_squares(expected: &[f64], given: &[f32], most: f64) -> Result<(), String> {
    let pairs = expected.iter().zip(given);
    let error: f64 = pairs
        .filter(|(expected, _)| expected.is_finite())
        .map(|(e, g)| (e - f64::from(*g)).powi(2))
        .sum();
    if error <= most {
        return Ok(());
    }
    Err(format!(
        "has squared errors of {error:.2e} in all, but may have {most:.2e}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(values: &[f32]) -> &[u8] {
        bytemuck::cast_slice(values)
    }

    #[test]
    fn differences_are_found() {
        let close = Expected::close(vec![1.0, f64::NAN, f64::INFINITY], 1e-3, 1.0, "test");
        let check =
            |values: &[f32]| close.check(DType::F32, bytes(values), Approximation::Integers);
        check(&[1.0005, f32::NAN, f32::INFINITY]).unwrap();
        for wrong in [
            [1.01, f32::NAN, f32::INFINITY],
            [f32::NAN, f32::NAN, f32::INFINITY],
            [1.0, 0.0, f32::INFINITY],
            [1.0, f32::NAN, f32::NEG_INFINITY],
            [1.0, f32::NAN, f32::MAX],
        ] {
            assert!(check(&wrong).is_err(), "{wrong:?}");
        }
        let exact = Expected::f32(&[0.0]);
        assert!(
            exact
                .check(DType::F32, bytes(&[-0.0]), Approximation::Integers)
                .is_err()
        );
        let strange = Expected::f32(&[f32::NAN]);
        strange
            .check(
                DType::F32,
                bytes(&[f32::from_bits(0x7fff_ffff)]),
                Approximation::Integers,
            )
            .unwrap();
        assert!(
            strange
                .check(DType::F32, bytes(&[0.0]), Approximation::Integers)
                .is_err()
        );
        assert!(
            exact
                .check(DType::F32, bytes(&[0.0, 0.0]), Approximation::Integers)
                .is_err()
        );
        let power = Expected::Close {
            values: vec![1.0; 100],
            bounds: vec![1e-3; 100],
            why: "test",
            leave: Some(Leave {
                bounds: vec![0.1; 100],
                squared_error: 100.0 * 1e-4,
                why: "test",
            }),
            halves: Some(Leave {
                bounds: vec![0.01; 100],
                squared_error: 100.0 * 1e-6,
                why: "test",
            }),
        };
        let check = |value: f32, by| power.check(DType::F32, bytes(&[value; 100]), by);
        check(1.009, Approximation::Integers).unwrap();
        assert!(check(1.011, Approximation::Integers).is_err());
        check(1.0009, Approximation::None).unwrap();
        assert!(check(1.009, Approximation::None).is_err());
        check(1.0009, Approximation::Halves).unwrap();
        assert!(check(1.002, Approximation::Halves).is_err());
    }
}
