//! Spans of connections and messages as OpenTelemetry: each goes as a line of OTLP JSON into a file
//! that any collector reads (`otlpjsonfile`). A client's `traceparent` makes them part of its trace.
//!
//!     cargo run -- --dev          # TRACES names the file, traces.jsonl if it is not set

use std::fs::File;
use std::io::{self, Write as _};
use std::sync::Mutex;

use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tidegate::prelude::*;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Writes each batch of spans as one line.
#[derive(Debug)]
struct Lines {
    file: Mutex<File>,
    resource: ResourceAttributesWithSchema,
}

impl Lines {
    fn create(path: &str) -> io::Result<Self> {
        Ok(Self {
            file: Mutex::new(File::create(path)?),
            resource: ResourceAttributesWithSchema::default(),
        })
    }

    fn write(&self, spans: Vec<SpanData>) -> io::Result<()> {
        let resource_spans = group_spans_by_resource_and_scope(spans, &self.resource);
        let mut line = serde_json::to_vec(&TracesData { resource_spans })?;
        line.push(b'\n');
        let mut file = self.file.lock().unwrap_or_else(|it| it.into_inner());
        file.write_all(&line)
    }
}

impl SpanExporter for Lines {
    async fn export(&self, spans: Vec<SpanData>) -> OTelSdkResult {
        self.write(spans)
            .map_err(|error| OTelSdkError::InternalFailure(error.to_string()))
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.resource = resource.into();
    }
}

/// The headers of a handshake.
struct Headers<'a>(&'a WsClient);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.header(key)
    }

    fn keys(&self) -> Vec<&str> {
        self.0.headers().map(|(name, _)| name).collect()
    }
}

#[gateway(path = "/notes")]
struct Notes;

#[messages]
impl Notes {
    /// Hooks run in the span of their connection, which goes on with the trace of the client here.
    #[on_connect]
    async fn join_trace(&self, client: &WsClient) {
        let trace = TraceContextPropagator::new().extract(&Headers(client));
        if let Err(error) = tracing::Span::current().set_parent(trace) {
            tracing::warn!(%error, "the trace of a client is not gone on with");
        }
    }

    #[subscribe_message("save")]
    async fn save(&self, text: String) -> usize {
        tracing::info!(target: "notes", length = text.len(), "saved");
        text.len()
    }
}

fn main() -> tidegate::Result<()> {
    let path = std::env::var("TRACES").unwrap_or_else(|_| "traces.jsonl".to_owned());
    let provider = SdkTracerProvider::builder()
        .with_resource(Resource::builder().with_service_name("notes").build())
        .with_batch_exporter(Lines::create(&path)?)
        .build();
    // `tidegate::span` is on for who asks for it; the events of handlers become those of their spans.
    let wanted = Targets::new()
        .with_target("tidegate::span", tracing::Level::TRACE)
        .with_target("notes", tracing::Level::INFO);
    let spans = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("tidegate"))
        .with_context_activation(false);
    tracing_subscriber::registry()
        .with(spans.with_filter(wanted))
        .init();
    Server::from_args()?
        .app(|app| {
            app.gateway::<Notes>();
        })
        .run()?;
    provider.shutdown()?;
    Ok(())
}
