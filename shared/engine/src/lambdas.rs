//! Lambdas as statements have them: how many parameters, how deep, and fields of parameters.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::LazyLock;

use datafusion::sql::parser::Statement as Parsed;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, LambdaFunction, LambdaSyntax,
    OneOrManyWithParens, Query, VisitMut, VisitorMut,
};

use super::semantics::written;
use shared::{Error, Result};

/// How many lambdas may stand within each other: planning one that takes what it gives plans its body several times.
const MAX_DEPTH: usize = 8;

/// Of each function that takes lambdas, and each way of calling it, the parameters of the lambda at each place.
static PARAMETERS: LazyLock<BTreeMap<&'static str, Vec<Vec<Option<usize>>>>> = LazyLock::new(|| {
    let functions = trino_functions::functions().into_iter().filter(trino_functions::Function::takes_lambdas);
    functions.map(|function| (function.name, function.lambda_parameters())).collect()
});

/// Checks the lambdas of a statement, and has fields of their parameters looked up in these: `x.a` in `x -> x.a` is no column.
///
/// # Errors
/// `Invalid` for a lambda of other parameters than its function asks for, with a subquery, and where no lambda can be; `Limit` for too many within each
/// other.
pub(super) fn check(statement: &mut Parsed) -> Result<()> {
    match statement {
        Parsed::Statement(inner) => match inner.as_mut().visit(&mut Lambdas::default()) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        },
        Parsed::Explain(explain) => check(explain.statement.as_mut()),
        _ => Ok(()),
    }
}

/// The parameters of the lambdas around.
#[derive(Default)]
struct Lambdas {
    scopes: Vec<Vec<String>>,
}

impl VisitorMut for Lambdas {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        match self.scopes.is_empty() {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(Error::invalid("expected a lambda without subqueries, found one with a query")),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Function(call) => match check_call(call) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => ControlFlow::Break(error),
            },
            Expr::Lambda(lambda) => {
                self.scopes.push(names(lambda));
                match check_lambda(lambda, self.scopes.len()) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => ControlFlow::Break(error),
                }
            }
            Expr::CompoundIdentifier(parts) => {
                if let [first, fields @ ..] = parts.as_slice()
                    && self.scopes.iter().flatten().any(|parameter| *parameter == written(first))
                {
                    let access_chain = fields.iter().cloned().map(|field| AccessExpr::Dot(Expr::Identifier(field)));
                    *expr = Expr::CompoundFieldAccess {
                        root: Box::new(Expr::Identifier(first.clone())),
                        access_chain: access_chain.collect(),
                    };
                }
                ControlFlow::Continue(())
            }
            _ => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if matches!(expr, Expr::Lambda(_)) {
            self.scopes.pop();
        }
        ControlFlow::Continue(())
    }
}

fn names(lambda: &LambdaFunction) -> Vec<String> {
    match &lambda.params {
        OneOrManyWithParens::One(parameter) => vec![written(&parameter.name)],
        OneOrManyWithParens::Many(parameters) => parameters.iter().map(|parameter| written(&parameter.name)).collect(),
    }
}

fn check_lambda(lambda: &LambdaFunction, depth: usize) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::limit(format!("expected at most {MAX_DEPTH} lambdas within each other, found more")));
    }
    let has_type = match &lambda.params {
        OneOrManyWithParens::One(parameter) => parameter.data_type.is_some(),
        OneOrManyWithParens::Many(parameters) => parameters.iter().any(|parameter| parameter.data_type.is_some()),
    };
    match lambda.syntax == LambdaSyntax::Arrow && !has_type {
        true => Ok(()),
        false => Err(Error::invalid(format!("expected a lambda such as `x -> x + 1`, found `{lambda}`"))),
    }
}

fn check_call(call: &Function) -> Result<()> {
    let FunctionArguments::List(list) = &call.args else { return Ok(()) };
    let lambda = |arg: &FunctionArg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Lambda(lambda))) => Some(names(lambda).len()),
        _ => None,
    };
    let found: Vec<Option<usize>> = list.args.iter().map(lambda).collect();
    let name = call.name.to_string().to_lowercase();
    let ways = PARAMETERS.get(name.as_str());
    if found.iter().all(Option::is_none) {
        return Ok(());
    }
    for (at, count) in found.iter().enumerate().filter_map(|(at, count)| Some((at, (*count)?))) {
        let expected = ways.into_iter().flatten().filter(|way| way.len() == found.len()).find_map(|way| way[at]);
        match expected {
            Some(expected) if expected == count => {}
            Some(expected) => {
                return Err(Error::invalid(format!(
                    "expected a lambda of {expected} parameters as argument {} of `{name}`, found one of {count}",
                    at + 1
                )));
            }
            None => {
                return Err(Error::invalid(format!(
                    "expected a value as argument {} of `{name}`, found a lambda",
                    at + 1
                )));
            }
        }
    }
    Ok(())
}
