//! Settings to adapters: the one place that names them all, for the programs alone.
//! Settings that no adapter fits are `Invalid`.

use adapters_aws::Aws;
use shared::config::{Backend, Settings};
use shared::ports::Ports;
use shared::{Error, Result};

/// Opens the adapters that the settings name. On AWS nothing is called yet.
///
/// # Errors
/// `Denied` or `Limit` when the data directory can't be written; `Invalid` for another scheme, or when AWS is named without a
/// region.
pub async fn connect(settings: &Settings) -> Result<Ports> {
    match settings.warehouse.scheme() {
        "s3" => through(&Aws::load().await?, settings),
        "file" | "memory" => adapters_embedded::open(settings),
        other => Err(Error::invalid(format!(
            "expected a warehouse with the scheme `s3`, `file` or `memory`, found `{other}` in `{}`",
            settings.warehouse
        ))),
    }
}

/// As [`connect`] for a warehouse on S3, through `aws`.
///
/// # Errors
/// As [`connect`].
pub fn through(aws: &Aws, settings: &Settings) -> Result<Ports> {
    let storage = adapters_aws::storage::open(aws, std::slice::from_ref(&settings.warehouse))?;
    match settings.place {
        Backend::Embedded => adapters_embedded::over(settings, storage),
        Backend::Aws => adapters_aws::open(aws, settings, storage),
    }
}
