//! The server as its users meet it: started in this process, spoken to over real sockets, with
//! one shard and with two. One module for each behaviour; `harness` knows how to start and speak.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a test crate: a failed step is a failed test, deadlines need a clock, and a table says which row it is at"
)]

mod harness;

mod handshake;

mod frames;

mod mounts;

mod raw;

mod relay;

mod renewals;

mod handlers;

mod orders;

mod tenants;
mod tls;
mod tls_clients;

mod builtin;
mod churn;
mod closes;

mod compression;
mod counted;

mod memory;

mod limits;
mod limits_rest;

mod proxies;

mod pairs;

mod pressure;

mod rest;
mod rest_topics;
mod rights;

mod admin;

mod durable;

mod durable_rows;

mod durable_programs;

mod durable_backup;

mod durable_damage;

mod durable_directory;

mod durable_full;

mod durable_limits;
mod durable_pairs;

mod program;

mod secrets;

mod gateways;

mod fail_closed;

mod programs;

mod seeds;

mod cli_output;

mod generate;

mod refusals;
mod registries;

mod readers;

mod reconnect;

mod rust_client;

mod rust_client_faults;

mod service;

mod services;

mod socketio_hostile;
mod socketio_kept;
mod streams;

mod ways_in;

mod wrong_use;

mod visits;
