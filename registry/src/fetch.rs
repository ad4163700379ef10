//! Downloads of files from web servers.

use crate::client::{self, Ask, Client};
use crate::error::RegistryError;
use crate::patience::{Download, incomplete};
use http::header::{AUTHORIZATION, ETAG, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED};
use http::{HeaderName, Response, StatusCode};
use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};

/// Number of times that a broken download is resumed.
const RESUMES: u32 = 5;
/// Number of bytes that count as progress.
const PROGRESS: u64 = 16 << 10;

/// Request for a file of a web server.
#[derive(Clone, Debug, Default)]
pub struct FetchRequest<'a> {
    /// Address of the file.
    pub url: &'a str,
    /// Value of the `Authorization` header; `None` for no header.
    pub authorization: Option<String>,
    /// `ETag` of the known version; empty for none.
    pub etag: &'a str,
    /// `Last-Modified` of the known version; empty for none.
    pub last_modified: &'a str,
}

/// Identification of a file's version by the server; empty fields for absent headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchedFile {
    /// Value of the `ETag` header.
    pub etag: String,
    /// Value of the `Last-Modified` header.
    pub last_modified: String,
    /// Value of the `Content-Type` header.
    pub content_type: String,
}

/// Downloads a file, resuming when the connection breaks; `None` when it has not changed.
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
        // The limit of attempts counts only those without progress.
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
        // A server that ignores the range, or has another version by now, starts over.
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

/// Writes a body from byte `from` on; returns its state when the connection broke.
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
