//! One request, one reply: HTTP, TLS and the SOAP envelope. Knows no session and never repeats a call.

use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, COOKIE, HeaderValue, SET_COOKIE};
use tokio::time::Instant;
use tracing::trace;

use crate::config::{Config, Thumbprint};
use crate::error::Cause;
use crate::fault::Fault;
use crate::tls::Judge;
use crate::xml::{Element, Request};

/// No reply we ask for is larger; bounds what a broken server can make us hold.
const LARGEST_REPLY: usize = 64 << 20;

/// The three services of a vCenter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Endpoint {
    Vim,
    Vslm,
    Cns,
    /// Tasks of CNS: they live on `/sdk`, but their results can only be read under the vSAN version.
    CnsTasks,
}

impl Endpoint {
    fn path(self) -> &'static str {
        match self {
            Self::Vim | Self::CnsTasks => "/sdk",
            Self::Vslm => "/vslm/sdk",
            Self::Cns => "/vsanHealth",
        }
    }

    fn namespace(self) -> &'static str {
        match self {
            Self::Vim | Self::CnsTasks => "urn:vim25",
            Self::Vslm => "urn:vslm",
            Self::Cns => "urn:vsan",
        }
    }
}

/// What goes around a request: who asks and under which version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cover<'a> {
    pub(crate) endpoint: Endpoint,
    /// Value of the SOAPAction header.
    pub(crate) action: &'a str,
    /// The session's cookie as the server set it, quotes included.
    pub(crate) cookie: Option<&'a HeaderValue>,
    /// Free text for vCenter's log.
    pub(crate) operation: Option<&'a str>,
    /// The moment after which nobody waits any more.
    pub(crate) ends: Instant,
    /// All the time there was, for the message.
    pub(crate) within: Duration,
}

/// A reply that is no fault.
#[derive(Debug)]
pub(crate) struct Reply {
    /// The `…Response` element.
    pub(crate) element: Element,
    /// The session cookie, where the server set one.
    pub(crate) cookie: Option<HeaderValue>,
}

impl Reply {
    /// `returnval` of a call that has one.
    pub(crate) fn value(mut self) -> Result<Element, Cause> {
        let at = self.element.children.iter().position(|child| child.name == "returnval");
        match at {
            Some(at) => Ok(self.element.children.swap_remove(at)),
            None => Err(bad_reply(format!("{} holds no returnval", self.element.name))),
        }
    }
}

pub(crate) fn bad_reply(what: impl Into<String>) -> Cause {
    Cause::BadReply { what: what.into() }
}

/// HTTP to one vCenter.
#[derive(Debug)]
pub(crate) struct Transport {
    http: reqwest::Client,
    judge: std::sync::Arc<Judge>,
    base: String,
    server: String,
}

impl Transport {
    pub(crate) fn new(config: &Config) -> Result<Self, Cause> {
        let unusable = |what: String| Cause::BadConfig { what };
        let judge = Judge::new(&config.trust).map_err(|e| unusable(e.to_string()))?;
        let base = format!("https://{}:{}", config.url_host(), config.port);
        let url = url::Url::parse(&base).map_err(|e| unusable(format!("`{}` is not an address: {e}", config.host)))?;
        if url.path() != "/" || url.query().is_some() || !url.username().is_empty() || url.fragment().is_some() {
            return Err(unusable(format!("`{}` is not a host name or address", config.host)));
        }
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(judge.client())
            .tls_info(true)
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(config.deadlines.connect)
            .pool_idle_timeout(Duration::from_secs(60)) // shorter than vCenter's, so that we seldom meet a closed one
            .user_agent(concat!("velero-plugin-for-vsphere/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|e| unusable(format!("set up HTTPS: {e}")))?;
        Ok(Self { http, judge, base, server: config.server() })
    }

    /// `host:port`, for messages.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    /// Sends `request` once and reads its reply.
    pub(crate) async fn call(&self, request: &Request, cover: Cover<'_>) -> Result<Reply, Cause> {
        let bare = cover.cookie.and_then(bare_cookie);
        let mut header: Vec<(&str, &str)> = Vec::new();
        if let (Endpoint::Vslm, Some(value)) = (cover.endpoint, bare.as_deref()) {
            header.push(("vcSessionCookie", value));
        }
        header.extend(cover.operation.map(|operation| ("operationID", operation)));
        let mut post = self
            .http
            .post(format!("{}{}", self.base, cover.endpoint.path()))
            .header(CONTENT_TYPE, "text/xml; charset=\"utf-8\"")
            .header("SOAPAction", cover.action)
            .body(request.envelope(cover.endpoint.namespace(), &header));
        if let Some(cookie) = cover.cookie {
            post = post.header(COOKIE, cookie);
        }
        let (status, cookie, body) = self.exchange(post, cover.ends, cover.within).await?;
        trace!(method = request.method(), status, bytes = body.len(), "vCenter replied");
        self.read_envelope(status, &body, cookie)
    }

    /// SHA-1 thumbprint of the certificate on a connection that was accepted.
    pub(crate) async fn thumbprint(&self, within: Duration) -> Result<Thumbprint, Cause> {
        let get = self.http.get(format!("{}/sdk/vimServiceVersions.xml", self.base));
        let response = self.send(get, crate::pace::deadline_after(within), within).await?;
        let tls = response.extensions().get::<reqwest::tls::TlsInfo>();
        tls.and_then(|tls| tls.peer_certificate())
            .map(Thumbprint::sha1_of)
            .ok_or_else(|| bad_reply("the connection shows no certificate"))
    }

    async fn send(
        &self,
        request: reqwest::RequestBuilder,
        ends: Instant,
        within: Duration,
    ) -> Result<reqwest::Response, Cause> {
        match tokio::time::timeout_at(ends, request.send()).await {
            Ok(sent) => sent.map_err(|e| self.network_error(e)),
            Err(_) => Err(Cause::DeadlinePassed { after: within, waiting_for: "the reply of vCenter" }),
        }
    }

    async fn exchange(
        &self,
        request: reqwest::RequestBuilder,
        ends: Instant,
        within: Duration,
    ) -> Result<(u16, Option<HeaderValue>, Vec<u8>), Cause> {
        let mut response = self.send(request, ends, within).await?;
        let status = response.status().as_u16();
        let cookie = response.headers().get_all(SET_COOKIE).iter().find_map(session_cookie);
        let mut body = Vec::new();
        loop {
            let Ok(part) = tokio::time::timeout_at(ends, response.chunk()).await else {
                return Err(Cause::DeadlinePassed { after: within, waiting_for: "the rest of vCenter's reply" });
            };
            match part.map_err(|e| self.network_error(e))? {
                None => return Ok((status, cookie, body)),
                Some(part) if body.len() + part.len() <= LARGEST_REPLY => body.extend_from_slice(&part),
                Some(_) => return Err(bad_reply(format!("it is larger than {LARGEST_REPLY} bytes"))),
            }
        }
    }

    fn read_envelope(&self, status: u16, body: &[u8], cookie: Option<HeaderValue>) -> Result<Reply, Cause> {
        let http_status = || Cause::HttpStatus { server: self.server.clone(), status };
        // While services restart, a proxy in front answers in HTML; and a fault may come with any status.
        let envelope = match (status, std::str::from_utf8(body).map(Element::parse)) {
            (_, Ok(Ok(envelope))) if envelope.name == "Envelope" => envelope,
            (200, Ok(Ok(other))) => return Err(bad_reply(format!("`{}` is not a SOAP envelope", other.name))),
            (200, Ok(Err(e))) => return Err(bad_reply(e.to_string())),
            (200, Err(_)) => return Err(bad_reply("it is not UTF-8")),
            _ => return Err(http_status()),
        };
        let content = envelope.child("Body").and_then(|body| body.children.first());
        match content {
            Some(fault) if fault.name == "Fault" => Err(Fault::from_soap(fault).into()),
            Some(element) if status == 200 => Ok(Reply { element: element.clone(), cookie }),
            Some(_) => Err(http_status()),
            None => Err(bad_reply("the envelope is empty")),
        }
    }

    fn network_error(&self, error: reqwest::Error) -> Cause {
        let server = self.server.clone();
        if let Some(source @ rustls::Error::InvalidCertificate(_)) = tls_error(&error) {
            // a bad signature too is refused with a pin: then no certificate was
            let presented = self.judge.take_refused();
            let is_pinned = presented.is_some() && self.judge.is_pinned();
            return Cause::CertificateUntrusted { server, presented, is_pinned, source };
        }
        let started = !error.is_connect();
        let source = error.without_url();
        if started { Cause::ReplyLost { server, source } } else { Cause::Unreachable { server, source } }
    }
}

/// The TLS error in a chain of causes. `io::Error` hides what it wraps from `source()`, so look into it too.
fn tls_error(error: &(dyn std::error::Error + 'static)) -> Option<rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(tls) = error.downcast_ref::<rustls::Error>() {
            return Some(tls.clone());
        }
        let inside = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(tls) = inside.and_then(|inside| tls_error(inside)) {
            return Some(tls);
        }
        next = error.source();
    }
    None
}

/// `vmware_soap_session="…"` of a `Set-Cookie` header, without its attributes.
fn session_cookie(header: &HeaderValue) -> Option<HeaderValue> {
    let pair = header.to_str().ok()?.split(';').next()?.trim();
    let mut cookie = pair.starts_with("vmware_soap_session=").then(|| HeaderValue::from_str(pair).ok())??;
    cookie.set_sensitive(true);
    Some(cookie)
}

/// The cookie's value without quotes, as VSLM wants it.
fn bare_cookie(cookie: &HeaderValue) -> Option<String> {
    let (_, value) = cookie.to_str().ok()?.split_once('=')?;
    Some(value.trim_matches('"').to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_session_cookie_keeps_its_quotes_in_http_and_loses_them_for_vslm() {
        let set = HeaderValue::from_static("vmware_soap_session=\"52a1-f0\"; Path=/; HttpOnly; Secure");
        let cookie = session_cookie(&set).unwrap();
        assert_eq!(cookie, "vmware_soap_session=\"52a1-f0\"");
        assert_eq!(bare_cookie(&cookie).unwrap(), "52a1-f0");
        assert!(!format!("{cookie:?}").contains("52a1"), "cookies are secrets");
        assert_eq!(session_cookie(&HeaderValue::from_static("other=1")), None);
    }
}
