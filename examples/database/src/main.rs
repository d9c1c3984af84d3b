//! A gateway that keeps notes in a database: the pool is opened before the server listens, handlers ask
//! for what they need as a trait, and an error of the database is told to nobody outside.
//!
//!     DATABASE_URL=sqlite://notes.db cargo run -- --dev     # in memory if it is not set

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use tidegate::prelude::*;

/// What clients are told of a note.
#[derive(Debug, Serialize, sqlx::FromRow)]
struct Note {
    id: i64,
    author: String,
    text: String,
}

#[derive(Debug, thiserror::Error)]
enum NoteError {
    #[error("a note has 1 to 200 characters, and this one has {0}")]
    Length(usize),
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

/// What handlers know of the database, so that a test can do without one.
trait Notes: Send + Sync {
    fn add<'a>(&'a self, author: &'a str, text: &'a str) -> BoxFuture<'a, Result<Note, NoteError>>;
    fn latest(&self, count: i64) -> BoxFuture<'_, Result<Vec<Note>, NoteError>>;
}

type BoxFuture<'a, T> = std::pin::Pin<Box<dyn Future<Output = T> + Send + 'a>>;

struct Table {
    pool: SqlitePool,
}

impl Notes for Table {
    fn add<'a>(&'a self, author: &'a str, text: &'a str) -> BoxFuture<'a, Result<Note, NoteError>> {
        Box::pin(async move {
            let insert =
                "INSERT INTO notes (author, text) VALUES (?, ?) RETURNING id, author, text";
            let insert = sqlx::query_as(insert).bind(author).bind(text);
            Ok(insert.fetch_one(&self.pool).await?)
        })
    }

    fn latest(&self, count: i64) -> BoxFuture<'_, Result<Vec<Note>, NoteError>> {
        Box::pin(async move {
            let latest = "SELECT id, author, text FROM notes ORDER BY id DESC LIMIT ?";
            Ok(sqlx::query_as(latest)
                .bind(count)
                .fetch_all(&self.pool)
                .await?)
        })
    }
}

struct Settings {
    url: String,
}

/// Runs before the server listens; an error stops the start with a line that names it.
async fn open_notes(settings: Arc<Settings>) -> tidegate::Result<Arc<dyn Notes>> {
    let options: SqliteConnectOptions = settings.url.parse()?;
    let pool = SqlitePoolOptions::new()
        // A database in memory is one connection's own, and goes with it.
        .max_connections(1)
        .idle_timeout(None)
        .max_lifetime(None)
        .acquire_timeout(Duration::from_secs(5))
        .connect_with(options.create_if_missing(true))
        .await?;
    let table = "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, author TEXT NOT NULL, text TEXT NOT NULL)";
    sqlx::query(table).execute(&pool).await?;
    Ok(Arc::new(Table { pool }))
}

#[derive(Deserialize)]
struct NewNote {
    text: String,
}

#[gateway(path = "/notes", filters(DatabaseFilter))]
struct NotesGateway {
    #[inject]
    notes: Arc<dyn Notes>,
}

#[messages]
impl NotesGateway {
    /// Tells the note to everybody, and answers with it.
    #[subscribe_message("add")]
    async fn add(&self, new: NewNote, client: &WsClient) -> Result<Note, NoteError> {
        let length = new.text.chars().count();
        if !(1..=200).contains(&length) {
            return Err(NoteError::Length(length));
        }
        let author = client.caller().subject.as_deref().unwrap_or("somebody");
        let note = self.notes.add(author, &new.text).await?;
        let _ = client.broadcast("added", &note);
        Ok(note)
    }

    #[subscribe_message("latest")]
    async fn latest(&self) -> Result<Vec<Note>, NoteError> {
        self.notes.latest(50).await
    }
}

/// What the database says stays here: a client is told that it failed.
#[injectable]
struct DatabaseFilter;

impl ExceptionFilter for DatabaseFilter {
    fn catch(&self, exception: &Exception, _: &WsArgumentsHost<'_>) -> Caught {
        match exception.downcast_ref::<NoteError>() {
            Some(NoteError::Database(error)) => {
                tracing::error!(%error, "the database failed");
                Caught::replace(serde_json::json!({ "error": "notes cannot be kept now" }))
            }
            _ => Caught::Pass,
        }
    }
}

fn main() -> tidegate::Result<()> {
    let url = std::env::var("DATABASE_URL").unwrap_or_else(|_| "sqlite::memory:".to_owned());
    Server::from_args()?
        .provide(Settings { url })
        .factory_dyn(open_notes)
        .app(|app| {
            app.gateway::<NotesGateway>();
        })
        .run()?;
    Ok(())
}
