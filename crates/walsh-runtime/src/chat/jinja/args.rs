//! The arguments of a call, and how they are bound.

use super::budget::{Outcome, fail};
use super::value::{Value, shortened};

/// The arguments of a call.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(String, Value)>,
}

impl Args {
    pub(super) fn none() -> Args {
        Args::default()
    }

    /// The arguments as parameters of these names, of which the first `required` must be given. A name
    /// that is empty is one that cannot be used in a call.
    pub(super) fn bind<const N: usize>(
        self,
        function: &str,
        names: [&str; N],
        required: usize,
    ) -> Outcome<[Option<Value>; N]> {
        if self.positional.len() > N {
            return fail(format!(
                "{function} takes at most {N} arguments, but {} are given",
                self.positional.len()
            ));
        }
        let mut bound = [const { None }; N];
        for (place, value) in bound.iter_mut().zip(self.positional) {
            *place = Some(value);
        }
        for (name, value) in self.named {
            match names
                .iter()
                .position(|other| !name.is_empty() && *other == name)
            {
                Some(index) if bound[index].is_none() => bound[index] = Some(value),
                Some(_) => return fail(format!("{function}: argument {name} is given twice")),
                None => {
                    let name = shortened(&name);
                    return fail(format!("{function} has no argument {name}"));
                }
            }
        }
        match bound[..required.min(N)].iter().position(Option::is_none) {
            Some(index) => fail(format!("{function} needs its argument {}", index + 1)),
            None => Ok(bound),
        }
    }

    /// The one argument that a function has.
    pub(super) fn one(self, function: &str) -> Outcome<Value> {
        let [value] = self.bind(function, [""], 1)?;
        Ok(value.unwrap_or(Value::None))
    }

    /// Fails if there are arguments.
    pub(super) fn nothing(self, function: &str) -> Outcome<()> {
        self.bind::<0>(function, [], 0).map(|_| ())
    }
}

/// An integer argument, or the default when it is not given.
pub(super) fn integer(function: &str, value: Option<Value>, default: i128) -> Outcome<i128> {
    match value {
        None => Ok(default),
        Some(value) => match value.as_int() {
            Some(int) => Ok(int),
            None => fail(format!(
                "{function}: an integer is needed, but a {} is given",
                value.type_name()
            )),
        },
    }
}

/// A number of something, where less than none is none.
pub(super) fn count(function: &str, value: Option<Value>, default: i128) -> Outcome<usize> {
    let value = integer(function, value, default)?;
    Ok(usize::try_from(value.max(0)).unwrap_or(usize::MAX))
}
