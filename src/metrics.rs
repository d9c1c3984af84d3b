//! Counters and histograms that every shard keeps for itself and that are merged when read.
