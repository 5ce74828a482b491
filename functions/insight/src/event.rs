//! Events to questions, results to answers.
//!
//! - `POST /insights/{name}` runs a declared insight, `POST /insight` the one in the body (fields as in the declaration).
//! - A schedule runs a declared one by its name.

use shared::api::Request;
use shared::project::{Insight as Declaration, Project};
use shared::{Error, ErrorKind, Principal, Result};

use crate::question::Question;

/// The name under which results of a question in a request's body are stored.
const AD_HOC: &str = "ad_hoc";

/// A question and the id of what asked it, under which its result is stored once. An empty id is none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct InsightRequest {
    pub(crate) question: Question,
    pub(crate) id: String,
    /// For whom the question's tables are read.
    pub(crate) principal: Principal,
}

/// # Errors
/// `NotFound` for another route or an insight that is not declared; `Invalid` for a body of another shape or a field out of
/// range.
pub(crate) fn from_http(request: &Request, project: &Project) -> Result<InsightRequest> {
    let question = match (request.method.as_str(), request.segments().as_slice()) {
        ("POST", ["insights", name]) => Question::new(name, project.insight(name)?, project)?,
        ("POST", ["insight"]) => {
            let declaration: Declaration = request.json()?;
            if declaration.schedule.is_some() {
                return Err(Error::invalid(
                    "expected no `schedule` in a request: declare the insight to run it by itself",
                ));
            }
            Question::new(AD_HOC, &declaration, project)?
        }
        (method, _) => {
            let served = "`POST /insights/{name}` or `POST /insight`";
            return Err(Error::new(
                ErrorKind::NotFound,
                format!("expected {served}, found `{method} {}`", request.path),
            ));
        }
    };
    Ok(InsightRequest { question, id: request.request_id.clone(), principal: request.principal.clone() })
}

/// A declared insight, asked by a schedule.
///
/// # Errors
/// `NotFound` for an insight that is not declared.
pub(crate) fn declared(name: &str, id: String, project: &Project) -> Result<InsightRequest> {
    let question = Question::new(name, project.insight(name)?, project)?;
    Ok(InsightRequest { question, id, principal: Principal::Owner })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const FILE: &str = "
version: 1
database: nyc
insights:
  departures:
    kind: forecast
    sql: SELECT day, count(*) AS n FROM flights GROUP BY day
    date: day
    value: n
    into: forecasts
";

    fn project() -> Project {
        Project::parse(FILE, "lakehouse.yaml").unwrap()
    }

    fn post(path: &str, body: &Value) -> Result<InsightRequest> {
        let request = Request { body: body.to_string().into(), ..Request::new("POST", path, "r1") };
        from_http(&request, &project())
    }

    #[test]
    fn a_declared_insight_is_asked_by_its_name() {
        let asked = post("/insights/departures", &json!({})).unwrap();
        assert_eq!((asked.question.horizon, asked.question.into.unwrap().to_string()), (14, "nyc.forecasts".into()));
        let error = post("/insights/arrivals", &json!({})).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("`departures`"), "{error}");
    }

    #[test]
    fn a_question_in_the_body_has_the_fields_of_a_declaration() {
        let asked = |extra: Value| {
            let mut body = json!({"kind": "anomalies", "sql": "SELECT 1", "date": "d", "value": "v"});
            body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            post("/insight", &body)
        };
        assert_eq!(asked(json!({"dimensions": ["a"]})).unwrap().question.dimensions, ["a"]);
        for (extra, found) in [
            (json!({"horizont": 3}), "horizont"),
            (json!({"horizon": 0}), "`0`"),
            (json!({"schedule": "rate(5m)"}), "schedule"),
        ] {
            let error = asked(extra).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(found), "{error}");
        }
    }

    #[test]
    fn another_route_is_not_found() {
        assert_eq!(post("/insights", &json!({})).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_schedule_runs_the_insight_that_it_names() {
        let asked = declared("departures", "e1".into(), &project()).unwrap();
        assert_eq!(declared("arrivals", "e1".into(), &project()).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!((asked.question.name.as_str(), asked.id.as_str()), ("departures", "e1"));
    }
}
