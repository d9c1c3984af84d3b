//! The numbers as OpenMetrics text. Knows how they are named and nothing of who counts them.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, NoLabelSet, text};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::{
    CLOSE_CODES, Counter, Durations, Gauge, Metrics, Refusal, Sample, ShardMetrics, SocketIoPacket,
    SocketIoRefusal, Timing,
};

/// All of it, or some families. A string takes every text, so nothing can fail here.
pub(super) fn encode(metrics: &Metrics, families: Option<&[&str]>) -> String {
    let mut registry = Registry::with_prefix(PREFIX);
    let families = families.map(|names| names.iter().copied().map(Box::from).collect());
    registry.register_collector(Box::new(Reading(metrics.clone(), Families(families))));
    let mut buffer = String::new();
    let encoded = text::encode(&mut buffer, &registry);
    debug_assert!(encoded.is_ok(), "a string takes every text");
    buffer
}

/// Stands before every name.
const PREFIX: &str = "tidegate";

/// What somebody asked for; without a list it is everything.
#[derive(Debug)]
struct Families(Option<Box<[Box<str>]>>);

impl Families {
    /// Whether the family is wanted that `name` and its unit make.
    fn want(&self, name: &str, unit: &str) -> bool {
        let is = |family: &str| {
            let own = family.strip_prefix(PREFIX)?.strip_prefix('_')?;
            Some(own.strip_prefix(name)? == unit)
        };
        let some = |all: &[Box<str>]| all.iter().any(|family| is(family) == Some(true));
        self.0.as_deref().is_none_or(some)
    }

    /// Whether all of them are counted along the way, so that nothing has to be looked up.
    fn are_counted(&self) -> bool {
        let counters = Counter::ALL.iter().map(|one| (one.name(), ""));
        let gauges = Gauge::ALL.iter().map(|one| (one.name(), ""));
        let timings = Timing::ALL.iter().map(|one| (one.name(), "_seconds"));
        let own = counters.chain(gauges).chain(timings);
        let counted = own.filter(|(name, unit)| self.want(name, unit)).count();
        self.0.as_deref().is_some_and(|all| all.len() <= counted)
    }
}

#[derive(Debug)]
struct Reading(Metrics, Families);

impl Collector for Reading {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        for counter in Counter::ALL {
            let value_of = |shard: &ShardMetrics| shard.counter(*counter);
            self.by_shard(
                &mut encoder,
                (counter.name(), counter.help()),
                true,
                &value_of,
            )?;
        }
        for gauge in Gauge::ALL {
            let value_of = |shard: &ShardMetrics| shard.gauge(*gauge);
            self.by_shard(&mut encoder, (gauge.name(), gauge.help()), false, &value_of)?;
        }
        self.refusals(&mut encoder)?;
        self.closes(&mut encoder)?;
        self.socketio(&mut encoder)?;
        self.timings(&mut encoder)?;
        if self.1.are_counted() {
            return Ok(());
        }
        let samples = self.0.sampler.get().map(|sampler| (sampler.0)());
        let samples = samples.into_iter().flatten();
        let wanted = |sample: &Sample| self.1.want(sample.name, sample.measure.suffix());
        samples
            .filter(wanted)
            .try_for_each(|sample| sample.encode(&mut encoder))
    }
}

impl Reading {
    fn by_shard(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help): (&str, &str),
        grows: bool,
        value_of: &dyn Fn(&ShardMetrics) -> u64,
    ) -> Result<(), fmt::Error> {
        if !self.1.want(name, "") {
            return Ok(());
        }
        let unit = name.ends_with("_bytes").then_some(Unit::Bytes);
        let name = name.trim_end_matches("_bytes");
        let kind = if grows {
            MetricType::Counter
        } else {
            MetricType::Gauge
        };
        let mut metric =
            encoder.encode_descriptor(name, &format!("{help}."), unit.as_ref(), kind)?;
        for (index, shard) in self.0.shards.iter().enumerate() {
            let labels = [("shard", index.to_string())];
            let mut sample = metric.encode_family(&labels)?;
            match grows {
                true => sample.encode_counter::<NoLabelSet, _, f64>(&value_of(shard), None)?,
                false => sample.encode_gauge(&value_of(shard))?,
            }
        }
        Ok(())
    }

    fn refusals(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (name, help) = ("connections_refused", "Connections that were not upgraded.");
        if !self.1.want(name, "") {
            return Ok(());
        }
        let samples = Refusal::ALL.iter().map(|refusal| {
            let number = self.sum(&|shard| &shard.refusals[*refusal as usize]);
            ([("reason", refusal.name().to_owned())], number)
        });
        counters(encoder, (name, help), samples)
    }

    fn socketio(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let name = "socketio_packets";
        if self.1.want(name, "") {
            let samples = SocketIoPacket::ALL.iter().map(|packet| {
                let number = self.sum(&|shard| &shard.packets[*packet as usize]);
                ([("type", packet.name().to_owned())], number)
            });
            counters(encoder, (name, "Packets of Socket.IO that came."), samples)?;
        }
        let name = "socketio_joins_refused";
        if !self.1.want(name, "") {
            return Ok(());
        }
        let samples = SocketIoRefusal::ALL.iter().map(|refusal| {
            let number = self.sum(&|shard| &shard.joins_refused[*refusal as usize]);
            ([("reason", refusal.name().to_owned())], number)
        });
        let help = "Namespaces of Socket.IO that were not joined.";
        counters(encoder, (name, help), samples)
    }

    fn closes(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let name = "connections_closed";
        let help = "Connections that ended, by the close code that the server sent or saw.";
        if !self.1.want(name, "") {
            return Ok(());
        }
        let samples = (0..=CLOSE_CODES.len()).map(|place| {
            let code = CLOSE_CODES
                .get(place)
                .map_or_else(|| "other".to_owned(), u16::to_string);
            ([("code", code)], self.sum(&|shard| &shard.closes[place]))
        });
        counters(encoder, (name, help), samples)
    }

    fn sum(&self, number_of: &dyn Fn(&ShardMetrics) -> &std::sync::atomic::AtomicU64) -> u64 {
        let load = |shard: &std::sync::Arc<ShardMetrics>| {
            number_of(shard).load(std::sync::atomic::Ordering::Relaxed)
        };
        self.0.shards.iter().map(load).sum()
    }

    fn timings(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let wanted = |timing: &&Timing| self.1.want(timing.name(), "_seconds");
        for timing in Timing::ALL.iter().filter(wanted) {
            let help = format!("{}.", timing.help());
            let unit = Unit::Seconds;
            let kind = MetricType::Histogram;
            let mut metric = encoder.encode_descriptor(timing.name(), &help, Some(&unit), kind)?;
            for (index, shard) in self.0.shards.iter().enumerate() {
                let durations = shard.timings.lock()[*timing as usize].clone();
                let labels = [("shard", index.to_string())];
                metric
                    .encode_family(&labels)?
                    .encode_histogram::<NoLabelSet>(
                        seconds(durations.sum_us),
                        durations.histogram.len(),
                        &buckets(&durations),
                        None,
                    )?;
            }
        }
        Ok(())
    }
}

fn counters<L: EncodeLabelSet>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    samples: impl Iterator<Item = (L, u64)>,
) -> Result<(), fmt::Error> {
    let mut metric = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, number) in samples {
        let mut sample = metric.encode_family(&labels)?;
        sample.encode_counter::<NoLabelSet, _, f64>(&number, None)?;
    }
    Ok(())
}

/// How many durations lie in each bucket; the encoder adds them up.
fn buckets(durations: &Durations) -> Vec<(f64, u64)> {
    let mut below = 0;
    let mut buckets: Vec<_> = BUCKET_US
        .iter()
        .map(|bound| {
            let number = durations.histogram.count_between(below, *bound);
            below = durations.histogram.next_non_equivalent(*bound);
            (seconds(*bound), number)
        })
        .collect();
    let counted: u64 = buckets.iter().map(|(_, number)| number).sum();
    buckets.push((f64::INFINITY, durations.histogram.len() - counted));
    buckets
}

fn seconds(us: u64) -> f64 {
    us as f64 / 1e6
}

/// The upper bounds of the buckets.
const BUCKET_US: [u64; 17] = [
    10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000,
    500_000, 1_000_000, 10_000_000,
];
