//! What the errors of AWS's services ask the caller to do.

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_glue::config::http::HttpResponse;
use aws_sdk_glue::error::{ProvideErrorMetadata, SdkError};

use shared::{Error, ErrorKind};

/// A call, as errors name it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    /// As policies write it, e.g. `glue:GetTable`.
    pub(crate) action: &'a str,
    /// What it is done to, e.g. ``table `nyc.flights` ``.
    pub(crate) resource: &'a str,
    pub(crate) outcome: Outcome,
}

/// What is known when a call ends without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Making the call again is harmless.
    Repeatable,
    /// It may have taken effect.
    Unknown,
}

impl<'a> Call<'a> {
    /// A call that changes nothing, or that may be made any number of times.
    pub(crate) fn repeatable(action: &'a str, resource: &'a str) -> Self {
        Self { action, resource, outcome: Outcome::Repeatable }
    }

    /// A call whose effect differs when it is made twice.
    pub(crate) fn once(action: &'a str, resource: &'a str) -> Self {
        Self { action, resource, outcome: Outcome::Unknown }
    }

    /// The project's error for one of the SDK's.
    pub(crate) fn failed<E>(&self, error: SdkError<E, HttpResponse>) -> Error
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let Self { action, resource, .. } = self;
        let kind = self.kind_of(&error);
        let code = error.code().map(|code| format!(" ({code})")).unwrap_or_default();
        let said = error.message().map(|message| format!(": {message}")).unwrap_or_default();
        let message = match kind {
            ErrorKind::NotFound => format!("no {resource}{code}"),
            ErrorKind::Denied => format!("`{action}` on {resource} is not allowed{code}{said}"),
            ErrorKind::OutcomeUnknown => format!("`{action}` on {resource} ended without an answer{code}{said}"),
            _ => format!("`{action}` on {resource} failed{code}{said}"),
        };
        Error::new(kind, message).with_source(error)
    }

    /// What one of the SDK's errors asks for.
    pub(crate) fn kind_of<E: ProvideErrorMetadata>(&self, error: &SdkError<E, HttpResponse>) -> ErrorKind {
        let unanswered = match self.outcome {
            Outcome::Repeatable => ErrorKind::Retry,
            Outcome::Unknown => ErrorKind::OutcomeUnknown,
        };
        match error {
            SdkError::ConstructionFailure(_) => ErrorKind::Invalid,
            SdkError::DispatchFailure(failure) if failure.as_connector_error().is_some_and(|e| e.is_user()) => {
                ErrorKind::Invalid
            }
            // Without credentials nothing was sent. Nobody knows of any other failure: a connection that ended in the middle of
            // an answer is among them.
            SdkError::DispatchFailure(failure)
                if failure.as_connector_error().is_some_and(|e| lacks_credentials(e)) =>
            {
                ErrorKind::Denied
            }
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status().as_u16();
                kind_of_code(error.code().unwrap_or_default()).unwrap_or(match status {
                    403 => ErrorKind::Denied,
                    404 => ErrorKind::NotFound,
                    429 | 503 => ErrorKind::Retry,
                    500.. => unanswered,
                    _ => ErrorKind::Invalid,
                })
            }
            _ => unanswered,
        }
    }
}

/// Whether no credentials could be had.
fn lacks_credentials(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |error| error.source()).any(|error| error.is::<CredentialsError>())
}

/// What an error code of AWS asks for; `None` for one that does not say.
pub(crate) fn kind_of_code(code: &str) -> Option<ErrorKind> {
    let kind = match code {
        "EntityNotFoundException" | "ResourceNotFoundException" | "NoSuchKey" | "NoSuchBucket" => ErrorKind::NotFound,
        "AlreadyExistsException"
        | "ConcurrentModificationException"
        | "VersionMismatchException"
        | "ResourceInUseException"
        | "PreconditionFailed"
        | "ConditionalRequestConflict" => ErrorKind::Conflict,
        "AccessDenied"
        | "AccessDeniedException"
        | "UnrecognizedClientException"
        | "IncompleteSignature"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "InvalidClientTokenId"
        | "InvalidAccessKeyId"
        | "MissingAuthenticationToken"
        | "ExpiredToken"
        | "ExpiredTokenException"
        | "KMSAccessDeniedException" => ErrorKind::Denied,
        "ProvisionedThroughputExceededException"
        | "LimitExceededException"
        | "KMSThrottlingException"
        | "OperationTimeoutException"
        | "RequestLimitExceeded"
        | "ServiceUnavailable"
        | "SlowDown"
        | "Throttling"
        | "ThrottlingException"
        | "TooManyRequestsException" => ErrorKind::Retry,
        "ResourceNumberLimitExceededException" => ErrorKind::Limit,
        "InvalidArgumentException" | "InvalidInputException" | "ValidationException" => ErrorKind::Invalid,
        _ => return None,
    };
    Some(kind)
}

#[cfg(test)]
mod tests {
    use aws_sdk_glue::error::{ConnectorError, ErrorMetadata};
    use aws_sdk_glue::operation::get_table::GetTableError;

    use super::*;

    fn answered(status: u16, code: &str) -> SdkError<GetTableError, HttpResponse> {
        let response = HttpResponse::new(status.try_into().unwrap(), "".into());
        let metadata = ErrorMetadata::builder().code(code).message("said").build();
        SdkError::service_error(GetTableError::generic(metadata), response)
    }

    #[test]
    fn a_missing_permission_names_the_action_and_the_resource() {
        let error =
            Call::repeatable("glue:GetTable", "table `nyc.flights`").failed(answered(400, "AccessDeniedException"));
        assert_eq!(error.kind(), ErrorKind::Denied);
        let text = error.to_string();
        assert!(text.contains("`glue:GetTable` on table `nyc.flights` is not allowed"), "{text}");
    }

    #[test]
    fn an_answer_without_a_known_code_is_judged_by_its_status() {
        let kind = |status, call: Call<'_>| call.failed(answered(status, "Strange")).kind();
        let (read, write) = (Call::repeatable("a", "b"), Call::once("a", "b"));
        assert_eq!(kind(404, read), ErrorKind::NotFound);
        assert_eq!(kind(400, read), ErrorKind::Invalid);
        assert_eq!(kind(503, write), ErrorKind::Retry);
        assert_eq!(kind(500, read), ErrorKind::Retry);
        assert_eq!(kind(500, write), ErrorKind::OutcomeUnknown);
    }

    #[test]
    fn a_write_whose_answer_was_lost_may_have_happened() {
        let failures: [fn() -> ConnectorError; 2] = [
            || ConnectorError::io("reset".into()),
            || ConnectorError::other("closed before the message was complete".into(), None),
        ];
        for failure in failures {
            let lost = || SdkError::<GetTableError, HttpResponse>::dispatch_failure(failure());
            assert_eq!(Call::once("a", "b").failed(lost()).kind(), ErrorKind::OutcomeUnknown, "{:?}", failure());
            assert_eq!(Call::repeatable("a", "b").failed(lost()).kind(), ErrorKind::Retry, "{:?}", failure());
        }
    }

    #[test]
    fn without_credentials_a_call_is_denied() {
        let none = ConnectorError::other(CredentialsError::not_loaded("no profile").into(), None);
        let error = Call::once("a", "b").failed(SdkError::<GetTableError, HttpResponse>::dispatch_failure(none));
        assert_eq!(error.kind(), ErrorKind::Denied);
    }
}
