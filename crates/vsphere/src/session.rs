//! The session: one login for everybody, again exactly once when it is gone, and out at the end.
//!
//! Everything that calls vCenter goes through [`Shared::call`], which also bounds how many calls run at once. A call is
//! repeated here in one case only: its session was gone, so it never started.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{Mutex, OnceCell, OwnedMutexGuard, Semaphore};
use tokio::time::{Instant, timeout_at};
use tracing::{debug, info, warn};

use crate::config::Config;
use crate::error::Cause;
use crate::fault::{Fault, FaultKind};
use crate::pace::{Pace, deadline_after};
use crate::refusals;
use crate::transport::{Cover, Endpoint, Reply, Transport, bad_reply};
use crate::vcenter::About;
use crate::version::Declared;
use crate::xml::{Element, Reference, Request};

/// Calls in flight at once; more only queue up inside vCenter.
const CALLS: usize = 8;
/// Snapshot tasks at once: each stuns a VM or works on its datastore.
const SNAPSHOT_TASKS: usize = 4;
/// Longest time that a farewell may take.
const LOGOUT: Duration = Duration::from_secs(5);

/// What all clones of a client share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) transport: Arc<Transport>,
    pub(crate) snapshot_tasks: Semaphore,
    calls: Semaphore,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    logins: u64,
    current: Option<Arc<Session>>,
}

/// A login that worked.
#[derive(Debug)]
pub(crate) struct Session {
    number: u64,
    cookie: HeaderValue,
    manager: Reference,
    pub(crate) property_collector: Reference,
    /// Where virtual machines are looked up.
    pub(crate) search_index: Reference,
    /// Who knows what we may do.
    pub(crate) authorization: Reference,
    /// The root of the inventory.
    pub(crate) root: Reference,
    /// What vCenter calls this session; empty where it did not say. As good as the cookie.
    pub(crate) key: SecretString,
    pub(crate) declared: Declared,
    disks: OnceCell<Reference>,
}

impl Session {
    /// The object of VSLM that knows all disks.
    pub(crate) fn disks(&self) -> &Reference {
        self.disks.get().expect("it is read before the first call to VSLM in a session")
    }
}

/// How one call is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) endpoint: Endpoint,
    /// Whether a second time is the same as once.
    pub(crate) repeatable: bool,
    /// Free text for vCenter's log.
    pub(crate) operation: Option<&'a str>,
    /// The time of the operation that the call belongs to; the deadline of a call holds besides.
    pub(crate) pace: Option<&'a Pace>,
}

/// What the server says before anybody is logged in.
struct Content {
    about: About,
    manager: Reference,
    property_collector: Reference,
    search_index: Reference,
    authorization: Reference,
    root: Reference,
    cookie: Option<HeaderValue>,
}

impl Shared {
    pub(crate) fn new(config: Config) -> Result<Arc<Self>, Cause> {
        let transport = Arc::new(Transport::new(&config)?);
        Ok(Arc::new(Self {
            config,
            transport,
            snapshot_tasks: Semaphore::new(SNAPSHOT_TASKS),
            calls: Semaphore::new(CALLS),
            state: Arc::default(),
        }))
    }

    /// Makes a call in the session, logging in where needed. `request` is asked again when the session changed.
    pub(crate) async fn call(
        self: &Arc<Self>,
        call: Call<'_>,
        request: impl Fn(&Session) -> Request,
    ) -> Result<Reply, Cause> {
        let longest = deadline_after(self.config.deadlines.call);
        let ends = call.pace.map_or(longest, |pace| pace.ends().min(longest));
        let after = ends.saturating_duration_since(Instant::now());
        let late = |waiting_for| Cause::DeadlinePassed { after, waiting_for };
        let acquired = timeout_at(ends, self.calls.acquire()).await.map_err(|_| late("a free slot among our calls"))?;
        let _permit = acquired.expect("the semaphore is never closed");

        let session = self.session(None, ends).await?;
        let first = self.call_in(&session, call, &request, ends).await;
        if !matches!(&first, Err(Cause::Fault(Fault { kind: FaultKind::NotAuthenticated, .. }))) {
            return first;
        }
        debug!(server = self.transport.server(), "the session is gone");
        let session = self.session(Some(session.number), ends).await?;
        if !call.repeatable {
            return first;
        }
        self.call_in(&session, call, &request, ends).await
    }

    async fn call_in(
        &self,
        session: &Session,
        call: Call<'_>,
        request: &impl Fn(&Session) -> Request,
        ends: Instant,
    ) -> Result<Reply, Cause> {
        if call.endpoint == Endpoint::Vslm {
            session.disks.get_or_try_init(|| self.find_disks(session, ends)).await?;
        }
        let action = match call.endpoint {
            Endpoint::Vim => format!("urn:vim25/{}", session.declared.vim),
            Endpoint::Vslm => "urn:vslm/".to_owned(),
            Endpoint::Cns | Endpoint::CnsTasks => format!("urn:vsan/{}", session.declared.vsan),
        };
        let cover = Cover {
            action: &action,
            cookie: Some(&session.cookie),
            operation: call.operation,
            ..self.cover(call.endpoint, ends)
        };
        self.transport.call(&request(session), cover).await
    }

    fn cover(&self, endpoint: Endpoint, ends: Instant) -> Cover<'static> {
        // An old version, which every server accepts: what is asked under it says which one to declare.
        let action = "urn:vim25/6.5";
        let within = ends.saturating_duration_since(Instant::now());
        Cover { endpoint, action, cookie: None, operation: None, ends, within }
    }

    async fn find_disks(&self, session: &Session, ends: Instant) -> Result<Reference, Cause> {
        let request = Request::new("RetrieveContent", &Reference::new("VslmServiceInstance", "ServiceInstance"));
        let cover = Cover { action: "urn:vslm/", cookie: Some(&session.cookie), ..self.cover(Endpoint::Vslm, ends) };
        let content = self.transport.call(&request, cover).await?.value()?;
        reference(&content, "vStorageObjectManager")
    }

    /// The present session, or a new one when there is none or it is the `stale` one. Whoever comes while a login runs
    /// waits for that login.
    async fn session(self: &Arc<Self>, stale: Option<u64>, ends: Instant) -> Result<Arc<Session>, Cause> {
        let late = |_| Cause::DeadlinePassed { after: self.config.deadlines.call, waiting_for: "the login" };
        let state = timeout_at(ends, self.state.clone().lock_owned()).await.map_err(late)?;
        if let Some(session) = state.current.as_ref().filter(|session| Some(session.number) != stale) {
            return Ok(session.clone());
        }
        // On a task of its own: a caller that goes away in the middle must not leave a session behind in vCenter that
        // nobody knows, nor a refusal that nobody counted.
        let login = tokio::spawn(Arc::clone(self).replace_session(state));
        match timeout_at(ends, login).await.map_err(late)? {
            Ok(outcome) => outcome,
            Err(e) => match e.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Err(bad_reply("the program stops")),
            },
        }
    }

    async fn replace_session(self: Arc<Self>, mut state: OwnedMutexGuard<State>) -> Result<Arc<Session>, Cause> {
        state.current = None;
        state.logins += 1;
        let session = Arc::new(self.log_in(state.logins).await?);
        state.current = Some(session.clone());
        Ok(session)
    }

    async fn log_in(&self, number: u64) -> Result<Session, Cause> {
        let Config { user, password, .. } = &self.config;
        let turn = refusals::turn(&self.config).await?;
        let content = self.content().await?;
        let request =
            Request::new("Login", &content.manager).text("userName", user).text("password", password.expose_secret());
        let declared = Declared::for_server(&content.about.api_version);
        let action = format!("urn:vim25/{}", declared.vim);
        let ends = deadline_after(self.config.deadlines.call);
        let cover = Cover { action: &action, cookie: content.cookie.as_ref(), ..self.cover(Endpoint::Vim, ends) };
        let reply = match self.transport.call(&request, cover).await {
            Err(Cause::Fault(Fault { kind: FaultKind::InvalidLogin, .. })) => {
                turn.refused();
                warn!(server = self.transport.server(), %user, "vCenter refused the login");
                return Err(Cause::LoginRefused { server: self.config.server(), user: user.clone() });
            }
            reply => reply?,
        };
        turn.accepted();
        let key =
            reply.element.child("returnval").and_then(|session| session.text_of("key")).unwrap_or_default().into();
        let cookie = reply.cookie.or(content.cookie).ok_or_else(|| bad_reply("the login set no session cookie"))?;
        info!(server = self.transport.server(), %user, api = %content.about.api_version, "logged in");
        Ok(Session {
            number,
            cookie,
            manager: content.manager,
            property_collector: content.property_collector,
            search_index: content.search_index,
            authorization: content.authorization,
            root: content.root,
            key,
            declared,
            disks: OnceCell::new(),
        })
    }

    async fn content(&self) -> Result<Content, Cause> {
        let ends = deadline_after(self.config.deadlines.call);
        let request = Request::new("RetrieveServiceContent", &Reference::new("ServiceInstance", "ServiceInstance"));
        let reply = self.transport.call(&request, self.cover(Endpoint::Vim, ends)).await?;
        let cookie = reply.cookie.clone();
        let content = reply.value()?;
        let about = content.child("about").ok_or_else(|| bad_reply("the service content says nothing of itself"))?;
        // optional in their declaration; every vCenter has them, under these ids
        let named = |field: &str, kind: &str, id: &str| {
            let told = content.child(field).and_then(Reference::from_element);
            told.unwrap_or_else(|| Reference::new(kind, id))
        };
        Ok(Content {
            about: About::from_element(about)?,
            manager: reference(&content, "sessionManager")?,
            property_collector: reference(&content, "propertyCollector")?,
            search_index: named("searchIndex", "SearchIndex", "SearchIndex"),
            authorization: named("authorizationManager", "AuthorizationManager", "AuthorizationManager"),
            root: named("rootFolder", "Folder", "group-d1"),
            cookie,
        })
    }

    /// What the server is; needs no login.
    pub(crate) async fn about(&self) -> Result<About, Cause> {
        self.content().await.map(|content| content.about)
    }

    /// Logs in if nobody is.
    pub(crate) async fn ensure_session(self: &Arc<Self>) -> Result<(), Cause> {
        self.session(None, deadline_after(self.config.deadlines.call)).await.map(|_| ())
    }

    /// Ends the session, if there is one. The next call would log in again.
    pub(crate) async fn log_out(&self) {
        if let Some(session) = self.state.lock().await.current.take() {
            say_goodbye(&self.transport, &session).await;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let session = self.state.try_lock().ok().and_then(|mut state| state.current.take());
        if let (Some(session), Ok(runtime)) = (session, tokio::runtime::Handle::try_current()) {
            let transport = self.transport.clone();
            runtime.spawn(async move { say_goodbye(&transport, &session).await });
        }
    }
}

async fn say_goodbye(transport: &Transport, session: &Session) {
    let action = format!("urn:vim25/{}", session.declared.vim);
    let cover = Cover {
        endpoint: Endpoint::Vim,
        action: &action,
        cookie: Some(&session.cookie),
        operation: None,
        ends: deadline_after(LOGOUT),
        within: LOGOUT,
    };
    match transport.call(&Request::new("Logout", &session.manager), cover).await {
        Ok(_) => info!(server = transport.server(), "logged out"),
        // vCenter ends idle sessions after half an hour: not worth more than a line.
        Err(e) => debug!(server = transport.server(), error = e.chain(), "could not log out"),
    }
}

/// The reference in the field `name`.
pub(crate) fn reference(element: &Element, name: &str) -> Result<Reference, Cause> {
    element
        .child(name)
        .and_then(Reference::from_element)
        .ok_or_else(|| bad_reply(format!("{} names no {name}", element.name)))
}
