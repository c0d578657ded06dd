//! Which region of AWS a bucket is in, where nobody says.

use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Region};
use aws_sdk_s3::error::SdkError;

use super::retry;
use super::s3::{self, S3Store};
use super::{Error, ErrorKind};
use crate::location::S3Options;

/// Where the question is sent; every region of the partition answers it for every bucket.
const ASKED_IN: &str = "us-east-1";
/// The header of the answer.
const ANSWER: &str = "x-amz-bucket-region";

impl S3Store {
    /// The region that the bucket is in, asked of its server without a key: whoever may not enter is told too.
    ///
    /// # Errors
    /// The server cannot be asked, or does not say.
    pub async fn region_of_bucket(options: &S3Options) -> Result<String, Error> {
        let place = s3::place(options);
        let failed = |kind, cause| Error::new(kind, "find the region of", &options.bucket, place.as_str(), cause);
        let http = s3::client_for(options).map_err(|cause| failed(ErrorKind::Failed, cause))?;
        let mut config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .region(Region::new(ASKED_IN))
            .force_path_style(options.path_style)
            .timeout_config(s3::timeouts(options).build())
            .retry_config(retry::config(options))
            .allow_no_auth();
        if let Some(endpoint) = &options.endpoint {
            config = config.endpoint_url(endpoint.as_str());
        }
        let answer = Client::from_conf(config.build()).head_bucket().bucket(&options.bucket).send().await;
        let region = match &answer {
            Ok(found) => found.bucket_region(),
            // another region, or no anonymous visitors: an error, that all the same says where the bucket is
            Err(refused) => refused.raw_response().and_then(|answer| answer.headers().get(ANSWER)),
        };
        match (region, &answer) {
            (Some(region), _) => Ok(region.to_owned()),
            (None, Err(SdkError::DispatchFailure(_) | SdkError::TimeoutError(_))) => {
                Err(failed(ErrorKind::Unreachable, "the store did not answer".into()))
            }
            (None, Err(refused)) if refused.raw_response().is_some_and(|answer| answer.status().as_u16() == 404) => {
                Err(failed(ErrorKind::BucketMissing, "the store knows no such bucket".into()))
            }
            (None, _) => Err(failed(ErrorKind::Failed, format!("the answer has no {ANSWER}").into())),
        }
    }
}
