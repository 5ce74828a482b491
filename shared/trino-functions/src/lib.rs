//! The functions of Athena's SQL, as Trino documents them, for DataFusion.
//!
//! [`functions`] is the list: each with its signatures, what it does, an example with its result, and what computes it. A signature is
//! text, `substr(varchar, bigint) -> varchar`, and says what is converted, refused and given; see `signature.rs`. [`register`] puts
//! them all into a session, in the place of functions of DataFusion that have the same name. What isn't a function but syntax (CAST,
//! `AT TIME ZONE`) is the engine's.
//!
//! A new function is a few lines in the module of its section; the examples are run by a test of the engine and become
//! `docs/functions.md`.
//!
//! Errors: `Invalid` for arguments whose types or values a function does not take, `Bug` where a signature and what computes it differ.

mod arrays;
mod binary;
mod bitwise;
mod call;
mod distances;
mod joda;
mod lambdas;
mod maps;
mod math;
mod nested;
mod operators;
mod regex;
mod scalar;
mod signature;
mod splits;
mod strings;
mod times;
mod types;
mod url;

use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::common::Result;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::{HigherOrderUDF, ScalarUDF, Volatility};

use self::call::Compute;
use self::lambdas::{Applied, Apply, Higher};
pub use self::lambdas::{Watch, watched};
pub use self::operators::Operators;
use self::scalar::{Gives, Scalar, Way};
use self::signature::Signature;
pub use self::types::type_name;
use shared::Error;

/// A function of Trino.
#[derive(Debug)]
pub struct Function {
    pub name: &'static str,
    pub aliases: &'static [&'static str],
    /// The section of Trino's documentation, e.g. `Mathematical`.
    pub section: &'static str,
    pub does: &'static str,
    /// Expressions, and the text of what they give.
    pub examples: Vec<(&'static str, &'static str)>,
    ways: Vec<NewWay>,
    /// Calls with lambdas; a function has these or `ways`.
    lambdas: Vec<NewLambda>,
    /// Calls that the engine writes anew before planning.
    rewritten: Vec<Rewritten>,
    volatility: Volatility,
}

/// A call in the place of which another expression is planned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewritten {
    pub signature: &'static str,
    /// With `$1` for the first argument.
    pub template: &'static str,
}

/// A way of calling a function whose signature is not read yet.
struct NewWay {
    signature: &'static str,
    gives: Option<Gives>,
    compute: Compute,
}

/// A way of calling a function with lambdas whose signature is not read yet.
struct NewLambda {
    signature: &'static str,
    apply: Apply,
}

impl std::fmt::Debug for NewLambda {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.signature)
    }
}

impl std::fmt::Debug for NewWay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.signature)
    }
}

impl Rewritten {
    /// How many there are.
    pub fn arguments(&self) -> usize {
        Signature::parse(self.signature).map_or(0, |signature| signature.arguments())
    }
}

/// A function that gives the same for the same arguments.
fn scalar(section: &'static str, name: &'static str, does: &'static str) -> Function {
    let volatility = Volatility::Immutable;
    Function {
        name,
        aliases: &[],
        section,
        does,
        examples: Vec::new(),
        ways: Vec::new(),
        lambdas: Vec::new(),
        rewritten: Vec::new(),
        volatility,
    }
}

impl Function {
    fn alias(self, aliases: &'static [&'static str]) -> Self {
        Self { aliases, ..self }
    }

    fn way(mut self, signature: &'static str, compute: Compute) -> Self {
        self.ways.push(NewWay { signature, gives: None, compute });
        self
    }

    /// A way with lambdas.
    fn lambda(
        mut self,
        signature: &'static str,
        apply: impl Fn(&Applied<'_>) -> Result<ArrayRef> + Send + Sync + 'static,
    ) -> Self {
        self.lambdas.push(NewLambda { signature, apply: Arc::new(apply) });
        self
    }

    /// A way whose result has the type that `gives` makes of those of the arguments.
    fn typed(mut self, signature: &'static str, gives: Gives, compute: Compute) -> Self {
        self.ways.push(NewWay { signature, gives: Some(gives), compute });
        self
    }

    /// A call that another expression of DataFusion's SQL stands for, with `$1` for the first argument.
    fn stands_for(mut self, signature: &'static str, template: &'static str) -> Self {
        self.rewritten.push(Rewritten { signature, template });
        self
    }

    fn example(mut self, call: &'static str, gives: &'static str) -> Self {
        self.examples.push((call, gives));
        self
    }

    /// The ways of calling it, e.g. `length(varchar) -> bigint`.
    pub fn signatures(&self) -> impl Iterator<Item = &'static str> {
        let (ways, lambdas) = (self.ways.iter().map(|way| way.signature), self.lambdas.iter().map(|way| way.signature));
        ways.chain(lambdas).chain(self.rewritten.iter().map(|call| call.signature))
    }

    /// Whether it takes lambdas.
    pub fn takes_lambdas(&self) -> bool {
        !self.lambdas.is_empty()
    }

    /// Of each way of calling it with lambdas, how many parameters the lambda at each place has; none where no lambda is.
    pub fn lambda_parameters(&self) -> Vec<Vec<Option<usize>>> {
        let of = |way: &NewLambda| {
            let signature = Signature::parse(way.signature).ok()?;
            Some((0..signature.arguments()).map(|at| signature.lambda_at(at)).collect())
        };
        self.lambdas.iter().filter_map(of).collect()
    }

    /// The function for DataFusion, if it takes lambdas.
    ///
    /// # Errors
    /// `Bug` for a signature that can't be read.
    fn higher(self) -> Result<Higher> {
        let Self { name, lambdas, .. } = self;
        let way =
            |NewLambda { signature, apply }: NewLambda| Ok(lambdas::Way { signature: named(name, signature)?, apply });
        Ok(Higher::new(name, lambdas.into_iter().map(way).collect::<Result<_>>()?))
    }

    /// The calls that the engine writes anew.
    pub fn rewritten(&self) -> &[Rewritten] {
        &self.rewritten
    }

    fn implementation(self) -> Result<Scalar> {
        let Self { name, aliases, ways, volatility, .. } = self;
        let way = |NewWay { signature, gives, compute }: NewWay| {
            Ok(Way { signature: named(name, signature)?, gives, compute })
        };
        let ways = ways.into_iter().map(way).collect::<Result<_>>()?;
        Ok(Scalar::new(name, aliases.iter().map(|alias| (*alias).to_owned()).collect(), ways, volatility))
    }
}

/// # Errors
/// `Bug` for a signature that can't be read, or is another function's.
fn named(name: &str, signature: &str) -> Result<Signature> {
    let signature = Signature::parse(signature)?;
    match signature.name() == name {
        true => Ok(signature),
        false => Err(Error::bug(format!("expected a signature of `{name}`, found `{signature}`")).into()),
    }
}

/// All functions, by section.
pub fn functions() -> Vec<Function> {
    [
        math::functions(),
        bitwise::functions(),
        strings::functions(),
        splits::functions(),
        distances::functions(),
        binary::functions(),
        regex::functions(),
        times::functions(),
        joda::functions(),
        url::functions(),
        arrays::functions(),
        lambdas::functions(),
        maps::functions(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Puts the functions into the registry. DataFusion's functions that take lambdas leave it.
///
/// # Errors
/// `Bug` for a signature that can't be read; whatever the registry says.
pub fn register(registry: &mut dyn FunctionRegistry) -> Result<()> {
    for name in registry.higher_order_function_names() {
        registry.deregister_higher_order_function(&name)?;
    }
    let has_ways = |function: &Function| !function.ways.is_empty() || function.takes_lambdas();
    for function in functions().into_iter().filter(has_ways) {
        for name in function.aliases.iter().chain([&function.name]) {
            replace(registry, name)?;
        }
        match function.takes_lambdas() {
            true => {
                let function = Arc::new(HigherOrderUDF::new_from_impl(function.higher()?));
                drop(registry.register_higher_order_function(function)?);
            }
            false => drop(registry.register_udf(Arc::new(ScalarUDF::from(function.implementation()?)))?),
        }
    }
    Ok(())
}

/// Takes what has the name out of the registry, under all of its names: sessions are made of the functions that a registry holds under
/// any name, and would bring it back.
fn replace(registry: &mut dyn FunctionRegistry, name: &str) -> Result<()> {
    let Ok(old) = registry.udf(name) else { return Ok(()) };
    for name in old.aliases().iter().map(String::as_str).chain([old.name()]) {
        if registry.udf(name).is_ok_and(|found| found.name() == old.name()) {
            registry.deregister_udf(name)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_function_has_a_name_of_its_own_an_example_and_signatures_that_can_be_read() {
        let mut names = std::collections::BTreeSet::new();
        for function in functions() {
            for name in function.aliases.iter().chain([&function.name]) {
                assert!(names.insert(*name), "{name} is there twice");
            }
            assert!(!function.examples.is_empty(), "{} has no example", function.name);
            match function.takes_lambdas() {
                true => drop(function.higher().unwrap()),
                false => drop(function.implementation().unwrap()),
            }
        }
    }
}
