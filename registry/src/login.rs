//! Checks of credentials at a registry, as `docker login` makes them: a request to `/v2/` and its challenge (moby
//! `registry/auth.go`).

use crate::auth::{self, AuthError, Challenge};
use crate::client::{Ask, Client, challenges, error_text, protocol, read_body};
use crate::endpoint::Endpoint;
use crate::error::RegistryError;
use crate::keychain::Credentials;
use crate::origin::{Origin, Purpose, led_to, trust_realm};
use http::StatusCode;

/// Longest answer that is read, in bytes.
const LONGEST: usize = 1 << 16;

/// Checks a user's password; returns the credentials to keep: the identity token of a token server that has them, or else
/// the password.
pub(crate) async fn log_in(
    client: &Client,
    endpoint: &Endpoint,
    user: &str,
    password: &str,
) -> Result<Credentials, RegistryError> {
    let url = endpoint.url("");
    let ask = Ask { url: url.clone(), ..Ask::default() };
    let basic = Credentials::Basic(user.to_owned(), password.to_owned());
    let response = client.send(&ask).await?;
    if response.status() != StatusCode::UNAUTHORIZED {
        return finish(&url, response, basic).await;
    }
    let text = challenges(&response);
    let host = endpoint.authority.clone();
    let challenge = Challenge::parse(&text).ok_or(AuthError::Challenge(host, text))?;
    let (authorization, kept) = match challenge {
        Challenge::Basic => (auth::basic(user, password), basic),
        Challenge::Bearer { realm, service, scope } => {
            let origin = Origin::of(&url)?;
            let to = led_to(&origin, &realm, Purpose::Realm)?;
            trust_realm(&origin, &to, &realm)?;
            let granted = client.login_token(&realm, &service, &scope, basic.clone()).await;
            let (token, identity) = granted.map_err(|error| match error {
                RegistryError::Auth(AuthError::Token(_, message)) => {
                    RegistryError::Unauthorized { url: url.clone(), message }
                }
                error => error,
            })?;
            (format!("Bearer {token}"), identity.map_or(basic, Credentials::Identity))
        }
    };
    let response = client.ask_with(&ask, &authorization).await?;
    finish(&url, response, kept).await
}

/// Reads the last answer.
async fn finish(
    url: &str,
    response: http::Response<crate::patience::Download>,
    kept: Credentials,
) -> Result<Credentials, RegistryError> {
    let status = response.status();
    if status.is_success() {
        return Ok(kept);
    }
    let body = read_body(url, response, LONGEST).await?;
    let message = error_text(&body, status);
    match status {
        StatusCode::UNAUTHORIZED => Err(RegistryError::Unauthorized { url: url.to_owned(), message }),
        StatusCode::NOT_FOUND => Err(protocol(url, "it has no /v2/, so this is no registry")),
        _ => Err(RegistryError::Status { url: url.to_owned(), status: status.as_u16(), message }),
    }
}
