//! Files of the web.

use crate::client::{self, Ask, Client};
use crate::error::RegistryError;
use crate::patience::{Download, incomplete};
use http::header::{AUTHORIZATION, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED};
use http::{HeaderName, Response, StatusCode};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// How often a broken download goes on.
const RESUMES: u32 = 5;
/// Bytes that count as progress.
const PROGRESS: u64 = 16 << 10;

/// A file of the web.
#[derive(Clone, Debug, Default)]
pub struct FetchRequest<'a> {
    /// Its address.
    pub url: &'a str,
    /// The `Authorization` header.
    pub authorization: Option<String>,
    /// The `ETag` of the version that is known; empty for none.
    pub etag: &'a str,
    /// The `Last-Modified` of the version that is known; empty for none.
    pub last_modified: &'a str,
}

/// How a server tells versions of a file apart; empty when it does not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchedFile {
    /// The `ETag` header.
    pub etag: String,
    /// The `Last-Modified` header.
    pub last_modified: String,
    /// The `Content-Type` header.
    pub content_type: String,
}

/// Fetches a file, going on where it was when the connection breaks; `None` when it has not changed.
pub(crate) async fn fetch(
    client: &Client,
    request: &FetchRequest<'_>,
    output: &mut File,
) -> Result<Option<FetchedFile>, RegistryError> {
    let mut ask = first_ask(request);
    let response = client.send(&ask).await?;
    if response.status() == StatusCode::NOT_MODIFIED {
        return Ok(None);
    }
    check(&response, request.url)?;
    let file = FetchedFile {
        etag: header(&response, ETAG),
        last_modified: header(&response, LAST_MODIFIED),
        content_type: header(&response, http::header::CONTENT_TYPE),
    };
    let length = header(&response, http::header::CONTENT_LENGTH).parse::<u64>().ok();
    let mut done = receive(request.url, response, output, 0, length).await;
    let (mut broken, mut before) = (0, 0);
    while let Err((count, error)) = done {
        // A server that breaks off again and again, but delivers, may take its time.
        broken = if count >= before + PROGRESS { 0 } else { broken + 1 };
        before = count.max(before);
        let can_resume = !file.etag.is_empty() || length.is_some();
        if broken > RESUMES || !can_resume {
            return Err(error);
        }
        ask.from = count;
        ask.headers.retain(|(name, _)| *name == AUTHORIZATION);
        if !file.etag.is_empty() && !file.etag.starts_with("W/") {
            ask.headers.push((IF_RANGE, file.etag.clone()));
        }
        let response = client.send(&ask).await?;
        check(&response, request.url)?;
        // Who ignores the range, or has another version by now, begins again.
        let from = if response.status() == StatusCode::PARTIAL_CONTENT { count } else { 0 };
        done = receive(request.url, response, output, from, length).await;
    }
    Ok(Some(file))
}

fn first_ask(request: &FetchRequest<'_>) -> Ask {
    let mut headers: Vec<(HeaderName, String)> = Vec::new();
    headers.extend(request.authorization.clone().map(|value| (AUTHORIZATION, value)));
    if !request.etag.is_empty() {
        headers.push((IF_NONE_MATCH, request.etag.to_owned()));
    } else if !request.last_modified.is_empty() {
        headers.push((IF_MODIFIED_SINCE, request.last_modified.to_owned()));
    }
    Ask { url: request.url.to_owned(), headers, ..Ask::default() }
}

fn check(response: &Response<Download>, url: &str) -> Result<(), RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    Err(RegistryError::Http {
        url: url.to_owned(),
        status: status.as_u16(),
        reason: status.canonical_reason().unwrap_or_default().to_owned(),
    })
}

fn header(response: &Response<Download>, name: HeaderName) -> String {
    let value = response.headers().get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

/// Writes a body from the byte `from` on; tells how far it came when it broke.
async fn receive(
    url: &str,
    response: Response<Download>,
    output: &mut File,
    from: u64,
    expected: Option<u64>,
) -> Result<(), (u64, RegistryError)> {
    let mut count = from;
    let write = |error: io::Error| client::connection(url, error);
    let positioned = output.set_len(from).and_then(|()| output.seek(SeekFrom::Start(from)));
    positioned.map_err(|error| (count, write(error)))?;
    let mut body = response.into_body();
    loop {
        let data = match body.next().await {
            None => return Ok(()),
            Some(Err(error)) => return Err((count, incomplete(url, count, expected, Some(error)))),
            Some(Ok(data)) => data,
        };
        output.write_all(&data).map_err(|error| (count, write(error)))?;
        count += data.len() as u64;
    }
}
