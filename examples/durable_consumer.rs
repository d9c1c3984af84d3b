//! Jobs that survive: posted over HTTP, kept on disk, and taken by workers that each go on where
//! they stopped. A worker's place is its name; what it did not finish comes again.

use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use tidegate::{Delivery, Open, Server, TopicError, Topics};

/// Answers when the job is on the disk.
async fn add(topics: Topics, Json(job): Json<Value>) -> Result<Json<Value>, TopicError> {
    topics.resolve("jobs").await?;
    let published = topics.publish("jobs", &job).await?;
    Ok(Json(json!({ "seq": published.last_seq })))
}

/// The jobs that there are, whoever has done them.
async fn list(topics: Topics) -> Result<Json<Vec<Value>>, TopicError> {
    topics.resolve("jobs").await?;
    let history = topics.history("jobs", 1, 100).await?;
    let jobs = history.messages.iter();
    let parsed = jobs.filter_map(|job| serde_json::from_slice(&job.payload).ok());
    Ok(Json(parsed.collect()))
}

/// How far a worker is.
#[derive(Deserialize)]
struct Done {
    /// Everything up to here is done; what was taken behind it comes again.
    done: Option<u64>,
}

/// The next job of a worker, as soon as there is one.
async fn work(
    topics: Topics,
    Path(worker): Path<String>,
    Query(Done { done }): Query<Done>,
) -> Result<Response, TopicError> {
    topics.resolve("jobs").await?;
    let open = Open {
        from_seq: Some(0),
        ..Open::default()
    };
    let mut jobs = topics.subscribe("jobs", &worker, open).await?;
    while let Some(delivery) = jobs.next().await {
        let Delivery::Message { message, .. } = &delivery else {
            continue;
        };
        if Some(message.seq) <= done {
            jobs.ack(message.seq)?;
            continue;
        }
        let job: Option<Value> = delivery.json().ok().flatten();
        return Ok(Json(json!({ "seq": message.seq, "job": job })).into_response());
    }
    Ok(StatusCode::CONFLICT.into_response())
}

/// All of them.
pub(crate) fn routes() -> Router {
    Router::new()
        .route("/jobs", post(add).get(list))
        .route("/work/{worker}", get(work))
}

fn main() -> tidegate::Result<()> {
    Server::from_args()?.router(routes()).run()?;
    Ok(())
}
