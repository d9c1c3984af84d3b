//! Wires a configuration, mounts and handlers into running shards.
