//! REST, health, metrics and the console page: an axum router run on each shard.
