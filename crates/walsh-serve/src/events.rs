//! Answers as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::{HeaderName, HeaderValue};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use serde_json::Value;

use crate::answer::{Answers, Said};
use crate::error::ApiError;

/// What an interface makes of answers, event by event.
pub(crate) trait Writer: Send + Unpin + 'static {
    /// Before anything is said.
    fn begin(&mut self) -> Vec<Event>;
    /// Of what one of the answers says.
    fn said(&mut self, index: usize, said: Said) -> Vec<Event>;
    /// Behind the ends of all.
    fn end(&mut self) -> Vec<Event>;
    /// Of an error, which ends them all.
    fn failed(&mut self, error: &ApiError) -> Vec<Event>;
}

/// An event of data alone.
pub(crate) fn data(value: &Value) -> Event {
    Event::default().data(value.to_string())
}

/// An event that says what it is, as its data does in `type`.
pub(crate) fn named(value: &Value) -> Event {
    let name = value["type"].as_str().unwrap_or_default();
    Event::default().event(name).data(value.to_string())
}

struct Events<W> {
    answers: Answers,
    writer: W,
    ready: VecDeque<Event>,
    over: bool,
}

impl<W: Writer> Stream for Events<W> {
    type Item = Result<Event, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(event)));
            }
            if self.over {
                return Poll::Ready(None);
            }
            let said = match self.answers.poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(said) => said,
            };
            let events = match said {
                Some(Ok((index, said))) => self.writer.said(index, said),
                Some(Err(error)) => {
                    self.over = true;
                    self.writer.failed(&error)
                }
                None => {
                    self.over = true;
                    self.writer.end()
                }
            };
            self.ready.extend(events);
        }
    }
}

/// The response that sends answers as they come.
pub(crate) fn respond(answers: Answers, mut writer: impl Writer) -> Response {
    let events = Events {
        answers,
        ready: writer.begin().into(),
        writer,
        over: false,
    };
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::default())
        .into_response();
    // Proxies are not to wait for more.
    response.headers_mut().insert(
        HeaderName::from_static("x-accel-buffering"),
        HeaderValue::from_static("no"),
    );
    response
}
