//! What becomes of a request: who may send it, what message it is, and its reply.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{DefaultBodyLimit, FromRequest, Path, Request};
use axum::http::header::{CACHE_CONTROL, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use semel_core::{Clock, Message, Partition, SystemClock};
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::bearer::{Bearers, Credentials};
use super::config::InFlight;
use super::desk::{Desk, Refusal, Submission, Submitted};
use super::problem::{Kind, Problem, RETRY};
use super::reply;
use super::request;
use super::token::{TokenError, Tokens};

/// The topic in a path, if it can be read.
pub type TopicName = Result<Path<String>, PathRejection>;

/// What requests are answered from.
pub struct Reception {
    /// By name.
    pub topics: HashMap<String, Topic>,
    /// One for each plugin.
    pub desks: Vec<Arc<Desk>>,
    /// Who may post.
    pub bearers: Bearers,
    /// One-time tokens.
    pub tokens: Tokens,
    /// For messages that are not settled.
    pub room: Arc<Semaphore>,
    /// What the same request meets while the first is under way.
    pub in_flight: InFlight,
    /// In bytes.
    pub body_limit: usize,
    /// How long a body may take to arrive.
    pub read_timeout: Duration,
    /// How long a request waits for its reply.
    pub reply_timeout: Duration,
}

/// A topic that a plugin handles.
pub struct Topic {
    /// Its name.
    pub name: Arc<str>,
    /// Where its messages count, from this start of the host on.
    pub partition: Partition,
    /// Whether a message without an idempotency key has no business key.
    pub needs_key: bool,
    /// Who handles it.
    pub desk: Arc<Desk>,
}

impl Reception {
    /// Takes a message and answers when it is settled.
    pub async fn take_message(
        &self,
        topic: TopicName,
        request: Request,
    ) -> Result<Response, Problem> {
        let headers = &request.headers().clone();
        let distrust = self.distrust(headers)?;
        let topic = self.topic(topic, distrust.as_ref())?;
        let key = request::idempotency_key(headers)?;
        let token = request::header_token(headers)?;
        let token = token.map(|token| self.spend(&token, topic)).transpose()?;
        let form = key.is_none() && token.is_none() && request::is_form(headers);
        if let Some(problem) = &distrust
            && token.is_none()
            && !form
        {
            return Err(problem.clone());
        }
        let permit = self.room()?;
        let body = self.read(request).await?;
        let token = match request::form_token(&body) {
            Some(token) if form => Some(self.spend(&token, topic)?),
            _ => token,
        };
        let key = match (key, token, distrust) {
            (Some(_), Some(_), _) => {
                return Err(Problem::new(
                    Kind::BadRequest,
                    "the request bears an Idempotency-Key and a one-time token, which is a key too: send one of them",
                ));
            }
            (None, Some(key), _) => Some(key),
            (_, None, Some(problem)) => return Err(problem),
            (key, None, None) => key,
        };
        if key.is_none() && topic.needs_key {
            return Err(Problem::new(
                Kind::KeyMissing,
                format!(
                    "messages of `{}` are told apart by the header Idempotency-Key: send one that is new for each message and the same when the message is sent again",
                    topic.name
                ),
            ));
        }
        self.handle(topic, headers, key, body, permit).await
    }

    /// Hands a message in and waits for what becomes of it.
    async fn handle(
        &self,
        topic: &Topic,
        headers: &HeaderMap,
        key: Option<String>,
        body: Bytes,
        permit: OwnedSemaphorePermit,
    ) -> Result<Response, Problem> {
        let message = Message {
            id: key.clone().unwrap_or_default(),
            topic: Arc::clone(&topic.name),
            keys: key.iter().cloned().collect(),
            headers: request::message_headers(headers, key.as_deref()),
            body,
            timestamp_ms: SystemClock.now_ms(),
        };
        let submission = Submission {
            partition: topic.partition.clone(),
            message,
            exclusive: key.filter(|_| self.in_flight == InFlight::Conflict),
            permit,
        };
        let Submitted { position, answer } =
            topic.desk.submit(submission).map_err(|refusal| match refusal {
                Refusal::Closed => reply::shutting_down(),
                Refusal::InFlight => Problem::new(
                    Kind::InFlight,
                    "a request with this key and payload is being handled: send it again later for the reply",
                )
                .retry_after(RETRY),
            })?;
        match timeout(self.reply_timeout, answer).await {
            Ok(Ok(disposition)) => reply::settled(disposition, &position),
            Ok(Err(_)) => Err(reply::shutting_down().of(&position)),
            Err(_) => Err(Problem::new(
                Kind::NotSettled,
                format!(
                    "the message was taken, but not settled within {:?}; it is still being handled: send it again under the same key for its reply",
                    self.reply_timeout
                ),
            )
            .of(&position)
            .retry_after(RETRY)),
        }
    }

    /// Gives out a one-time token.
    pub fn issue_token(&self, topic: TopicName, headers: &HeaderMap) -> Result<Response, Problem> {
        if let Some(problem) = self.distrust(headers)? {
            return Err(problem);
        }
        let topic = self.topic(topic, None)?;
        let token = self.tokens.issue(&topic.name, SystemClock.now_ms());
        let expires_in = self.tokens.lifetime().as_secs();
        let body = json!({ "token": token, "expires_in": expires_in });
        let mut response = (StatusCode::CREATED, reply::json(&body)).into_response();
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        Ok(response)
    }

    /// The problem with a request that bears no one-time token, if there is one. Wrong
    /// credentials are a problem whatever else there is.
    ///
    /// A web page can make any browser post to a server that it can reach, but can't hide that
    /// it did: browsers send `Origin` along.
    fn distrust(&self, headers: &HeaderMap) -> Result<Option<Problem>, Problem> {
        match self.bearers.check(headers) {
            Credentials::Accepted => Ok(None),
            Credentials::Wrong => Err(Problem::new(
                Kind::Unauthorized,
                "the header Authorization bears no token that is accepted here",
            )),
            Credentials::Missing => Ok(Some(Problem::new(
                Kind::Unauthorized,
                "send the header `Authorization: Bearer TOKEN`, or a one-time token",
            ))),
            Credentials::NotNeeded if headers.contains_key(ORIGIN) => Ok(Some(Problem::new(
                Kind::CrossOrigin,
                "the request comes from a web page (it bears Origin): send a bearer token, or a one-time token that your server got from POST /tokens/TOPIC",
            ))),
            Credentials::NotNeeded => Ok(None),
        }
    }

    /// The topic of a path. Whoever is not trusted is not told which there are.
    fn topic(&self, name: TopicName, distrust: Option<&Problem>) -> Result<&Topic, Problem> {
        let Path(name) = name.map_err(|rejection| {
            Problem::new(
                Kind::BadRequest,
                format!("the topic can't be read: {}", rejection.body_text()),
            )
        })?;
        self.topics.get(&name).ok_or_else(|| {
            distrust.cloned().unwrap_or_else(|| {
                let detail = format!("no plugin of this host handles the topic `{name}`");
                Problem::new(Kind::UnknownTopic, detail)
            })
        })
    }

    fn room(&self) -> Result<OwnedSemaphorePermit, Problem> {
        Arc::clone(&self.room).try_acquire_owned().map_err(|_| {
            Problem::new(
                Kind::Busy,
                "as many messages wait to be settled as this host takes (`waiting`): send it again later",
            )
            .retry_after(RETRY)
        })
    }

    async fn read(&self, mut request: Request) -> Result<Bytes, Problem> {
        DefaultBodyLimit::max(self.body_limit).apply(&mut request);
        let read = timeout(self.read_timeout, Bytes::from_request(request, &())).await;
        let read = read.map_err(|_| {
            Problem::new(
                Kind::RequestTimeout,
                format!("the body did not arrive within {:?}", self.read_timeout),
            )
        })?;
        read.map_err(|rejection| match rejection.status() {
            StatusCode::PAYLOAD_TOO_LARGE => Problem::new(
                Kind::TooLarge,
                format!("a body may have {} bytes (`body-limit`)", self.body_limit),
            ),
            _ => Problem::new(Kind::BadRequest, rejection.body_text()),
        })
    }

    /// The key that a one-time token stands for.
    fn spend(&self, token: &str, topic: &Topic) -> Result<String, Problem> {
        let verified = self.tokens.verify(token, &topic.name, SystemClock.now_ms());
        verified.map_err(|error| match error {
            TokenError::Forged => Problem::new(
                Kind::TokenInvalid,
                "no host with this `token-secret` issued the token for this topic: get one from POST /tokens/TOPIC",
            ),
            TokenError::Expired => Problem::new(
                Kind::TokenExpired,
                "the token was not spent in time: get another from POST /tokens/TOPIC",
            ),
        })
    }
}
