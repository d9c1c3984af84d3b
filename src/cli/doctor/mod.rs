//! `tidegate doctor`: what this machine gives a server with this configuration, what it lacks, and
//! the line that mends it. Reads and judges; changes nothing.

mod disk;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::process::{Resource, getrlimit};

use crate::config::{Config, Error, Sources};
use crate::server::probe;

use super::{Failure, ServeOptions, answer, with_causes};

/// How good what was found is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// As it should be.
    Good,
    /// It works; under load it will not.
    Weak,
    /// The server does not start.
    Broken,
}

/// One thing that was looked at.
#[derive(Debug, PartialEq, Eq)]
struct Finding {
    verdict: Verdict,
    subject: &'static str,
    found: String,
    /// What to type, and why.
    mend: Option<String>,
}

impl Finding {
    fn good(subject: &'static str, found: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Good,
            subject,
            found: found.into(),
            mend: None,
        }
    }

    fn weak(subject: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Weak,
            subject,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    fn broken(subject: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            verdict: Verdict::Broken,
            subject,
            found: found.into(),
            mend: Some(mend.into()),
        }
    }

    fn print(&self) -> Result<(), Failure> {
        let mark = match self.verdict {
            Verdict::Good => "ok    ",
            Verdict::Weak => "weak  ",
            Verdict::Broken => "BROKEN",
        };
        answer(format_args!("{mark} {:<12} {}", self.subject, self.found))?;
        if let Some(mend) = &self.mend {
            answer(format_args!("{:20}-> {mend}", ""))?;
        }
        Ok(())
    }
}

pub(super) fn run(options: &ServeOptions) -> Result<ExitCode, Failure> {
    let sources = options.sources();
    let config = sources.load()?.config;
    let findings = findings(&config, &sources);
    findings.iter().try_for_each(Finding::print)?;
    let count = |verdict| {
        findings
            .iter()
            .filter(|found| found.verdict == verdict)
            .count()
    };
    let (weak, broken) = (count(Verdict::Weak), count(Verdict::Broken));
    answer(format_args!(
        "{weak} weak, {broken} broken; every setting with its reason: tuning/sysctl.conf"
    ))?;
    Ok(if broken == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn findings(config: &Config, sources: &Sources) -> Vec<Finding> {
    let mut findings = vec![
        kernel(&read("/proc/sys/kernel/osrelease")),
        ring(),
        cores(config),
    ];
    findings.push(files(config));
    findings.push(locked_memory());
    findings.push(secret(config, sources));
    findings.extend(sysctls(config).iter().filter_map(|sysctl| {
        let path = format!("/proc/sys/{}", sysctl.name.replace('.', "/"));
        sysctl.judge(&fs::read_to_string(path).ok()?)
    }));
    findings.extend(clock(&read(
        "/sys/devices/system/clocksource/clocksource0/current_clocksource",
    )));
    findings.extend(port_range(&read("/proc/sys/net/ipv4/ip_local_port_range")));
    findings.extend(huge_pages(&read(
        "/sys/kernel/mm/transparent_hugepage/enabled",
    )));
    if config.durable.enabled {
        findings.push(data_directory(&config.server.data_dir));
        findings.push(disk::sync_latency(
            nearest(&config.server.data_dir).as_path(),
        ));
    }
    findings
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The least kernel: multishot receive, provided buffers and task work flags as a shard uses them.
const KERNEL_MIN: (u32, u32) = (6, 1);

fn kernel(release: &str) -> Finding {
    let mut numbers = release.split(['.', '-']).map(str::parse);
    let version = match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => {
            return Finding::weak(
                "kernel",
                format!("`{release}`"),
                "not a version: Linux 6.1 or newer is needed",
            );
        }
    };
    match KERNEL_MIN <= version {
        true => Finding::good("kernel", release),
        false => Finding::broken(
            "kernel",
            release,
            "Linux 6.1 or newer is needed: install a newer kernel",
        ),
    }
}

fn ring() -> Finding {
    match probe() {
        Ok(()) => Finding::good("io_uring", "a ring with provided buffers works"),
        Err(error) => Finding::broken("io_uring", "no ring", with_causes(&error)),
    }
}

fn cores(config: &Config) -> Finding {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let shards = usize::from(config.server.shards);
    match shards <= cores {
        true => Finding::good("cores", format!("{cores}, server.shards = {shards}")),
        false => Finding::weak(
            "cores",
            format!("{cores}, server.shards = {shards}"),
            "shards share cores and are not pinned: set server.shards = 0",
        ),
    }
}

/// Below this many files a server for many connections is none.
const FILES_MIN: u64 = 65_536;

fn files(config: &Config) -> Finding {
    let limit = getrlimit(Resource::Nofile);
    let soft = limit.current.unwrap_or(u64::MAX);
    let hard = limit.maximum.unwrap_or(u64::MAX);
    let wanted = u64::try_from(config.limits.connections_max)
        .unwrap_or(u64::MAX)
        .max(FILES_MIN);
    let found = format!("{soft} open files");
    match (wanted <= soft, wanted <= hard) {
        (true, _) => Finding::good("files", found),
        (false, true) => Finding::weak("files", found, format!("ulimit -n {wanted}")),
        (false, false) => Finding::weak(
            "files",
            format!("{found}, {hard} at most"),
            "LimitNOFILE=1048576 in the service, or tuning/limits.conf",
        ),
    }
}

/// Rings and registered buffers of a few shards.
const LOCKED_BYTES_MIN: u64 = 8 << 20;

fn locked_memory() -> Finding {
    let bytes = getrlimit(Resource::Memlock).current.unwrap_or(u64::MAX);
    match LOCKED_BYTES_MIN <= bytes {
        true => Finding::good("memlock", "enough"),
        false => Finding::weak(
            "memlock",
            format!("{bytes} bytes"),
            "ulimit -l unlimited, or LimitMEMLOCK=1G in the service",
        ),
    }
}

fn secret(config: &Config, sources: &Sources) -> Finding {
    match config.identity(sources) {
        Ok(identity) if identity.made_up.is_some() => {
            Finding::good("secret", "made up at each start (--dev)")
        }
        Ok(_) => Finding::good("secret", "found"),
        Err(Error::SecretMissing) => Finding::broken(
            "secret",
            "none",
            "export TIDEGATE_JWT_SECRET=$(head -c 32 /dev/urandom | base64), or --dev",
        ),
        Err(error) => Finding::broken("secret", "not usable", with_causes(&error)),
    }
}

/// A kernel setting and the least value that serves many connections.
struct Sysctl {
    name: &'static str,
    bound: Bound,
    because: &'static str,
}

enum Bound {
    AtLeast(u64),
    AtMost(u64),
}

impl Sysctl {
    /// The first number of what the kernel says.
    fn judge(&self, found: &str) -> Option<Finding> {
        let found: u64 = found.split_whitespace().next()?.parse().ok()?;
        let (good, wanted) = match self.bound {
            Bound::AtLeast(least) => (least <= found, least),
            Bound::AtMost(most) => (found <= most, most),
        };
        let text = format!("{} = {found}", self.name);
        Some(match good {
            true => Finding::good("sysctl", text),
            false => Finding::weak(
                "sysctl",
                text,
                format!("sysctl -w {}={wanted}   # {}", self.name, self.because),
            ),
        })
    }
}

/// What the kernel should be set to for this configuration.
fn sysctls(config: &Config) -> Vec<Sysctl> {
    let connections = u64::try_from(config.limits.connections_max).unwrap_or(u64::MAX);
    vec![
        Sysctl {
            name: "kernel.io_uring_disabled",
            bound: Bound::AtMost(0),
            because: "1 and 2 forbid rings to ordinary users, or to all",
        },
        Sysctl {
            name: "net.core.somaxconn",
            bound: Bound::AtLeast(config.shard.backlog.max(4_096).into()),
            because: "a storm of reconnections waits here, as many as shard.backlog",
        },
        Sysctl {
            name: "net.ipv4.tcp_max_syn_backlog",
            bound: Bound::AtLeast(4_096),
            because: "as somaxconn, one step earlier",
        },
        Sysctl {
            name: "net.ipv4.tcp_slow_start_after_idle",
            bound: Bound::AtMost(0),
            because: "quiet connections send their next message at full speed",
        },
        Sysctl {
            name: "net.ipv4.tcp_notsent_lowat",
            bound: Bound::AtMost(131_072),
            because: "what waits stays in the outbox, where it is bounded",
        },
        Sysctl {
            name: "fs.nr_open",
            bound: Bound::AtLeast(connections.max(1_048_576)),
            because: "the most files that a process may ask for",
        },
        Sysctl {
            name: "net.netfilter.nf_conntrack_max",
            bound: Bound::AtLeast(connections.max(1_048_576)),
            because: "the firewall drops connections that it cannot follow",
        },
        Sysctl {
            name: "vm.dirty_background_ratio",
            bound: Bound::AtMost(5),
            because: "no sync waits behind a flood of pages of somebody else",
        },
    ]
}

/// Fewer ports than this are soon used up by a proxy on this machine, or by a load client: one
/// connection to one address takes one.
const PORTS_MIN: u64 = 60_000;

fn port_range(found: &str) -> Option<Finding> {
    let mut ends = found.split_whitespace().map(str::parse::<u64>);
    let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else {
        return None;
    };
    let ports = last.saturating_sub(first) + 1;
    let text = format!("net.ipv4.ip_local_port_range = {first} {last}: {ports} ports");
    Some(match PORTS_MIN <= ports {
        true => Finding::good("ports", text),
        false => Finding::weak(
            "ports",
            text,
            "sysctl -w net.ipv4.ip_local_port_range='1024 65535'   # one for each connection of a proxy or a load client on this machine",
        ),
    })
}

/// The choice in force stands in brackets.
fn huge_pages(found: &str) -> Option<Finding> {
    let (_, rest) = found.split_once('[')?;
    let (chosen, _) = rest.split_once(']')?;
    let text = format!("transparent hugepages: {chosen}");
    Some(match chosen {
        "always" => Finding::weak(
            "memory",
            text,
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled   # memory of quiet connections is rounded up to 2 MiB pieces, and merging them stalls",
        ),
        _ => Finding::good("memory", text),
    })
}

/// Clocks that are read without a system call.
const FAST_CLOCKS: &[&str] = &[
    "tsc",
    "kvm-clock",
    "arch_sys_counter",
    "hyperv_clocksource_tsc_page",
];

fn clock(source: &str) -> Option<Finding> {
    match source {
        "" => None,
        fast if FAST_CLOCKS.contains(&fast) => Some(Finding::good("clock", fast)),
        slow => Some(Finding::weak(
            "clock",
            slow,
            "reading it is a system call: boot with clocksource=tsc if the machine allows it",
        )),
    }
}

/// File systems that keep nothing, or do not keep what they say.
const BAD_FILE_SYSTEMS: &[(u64, &str)] = &[
    (0x0102_1994, "tmpfs keeps nothing over a restart"),
    (0x8584_58f6, "ramfs keeps nothing over a restart"),
    (
        0x6969,
        "on NFS a sync may not be one, and locks may not hold",
    ),
    (
        0x794c_7630,
        "an overlay is the container's own: mount a volume",
    ),
];

/// Less than this is full soon.
const FREE_BYTES_MIN: u64 = 1 << 30;

/// The directory, or the nearest one above it that is there.
fn nearest(wanted: &Path) -> PathBuf {
    let absolute = std::path::absolute(wanted).unwrap_or_else(|_| wanted.to_owned());
    let found = absolute.ancestors().find(|folder| folder.is_dir());
    found.unwrap_or_else(|| Path::new("/")).to_owned()
}

fn data_directory(wanted: &Path) -> Finding {
    let found = &nearest(wanted);
    let text = wanted.display().to_string();
    let Ok(system) = rustix::fs::statvfs(found) else {
        return Finding::broken("data", text, format!("cannot look at {}", found.display()));
    };
    if rustix::fs::access(found, rustix::fs::Access::WRITE_OK).is_err() {
        let mend = format!(
            "{} is not writable: chown it, or choose another with --data",
            found.display()
        );
        return Finding::broken("data", text, mend);
    }
    let kind = rustix::fs::statfs(found).map_or(0, |system| system.f_type.cast_unsigned());
    if let Some((_, why)) = BAD_FILE_SYSTEMS.iter().find(|(bad, _)| *bad == kind) {
        return Finding::weak("data", text, format!("{why}; choose another with --data"));
    }
    let free = system.f_bavail.saturating_mul(system.f_frsize);
    let found = format!("{text}, {} MiB free", free >> 20);
    match FREE_BYTES_MIN <= free {
        true => Finding::good("data", found),
        false => Finding::weak(
            "data",
            found,
            "less than 1 GiB: publishes will be refused with storage_full",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels() {
        for (release, verdict) in [
            ("6.1.0-13-amd64", Verdict::Good),
            ("6.18.44-fc", Verdict::Good),
            ("10.0", Verdict::Good),
            ("6.0.9", Verdict::Broken),
            ("5.15.0", Verdict::Broken),
            ("", Verdict::Weak),
        ] {
            assert_eq!(kernel(release).verdict, verdict, "{release}");
        }
    }

    fn config() -> Config {
        Sources::default().load().unwrap().config
    }

    #[test]
    fn few_ports_and_pages_that_are_always_huge_are_weak() {
        let ports = |found| port_range(found).map(|found| found.verdict);
        assert_eq!(ports("32768\t60999"), Some(Verdict::Weak));
        assert_eq!(ports("1024\t65535"), Some(Verdict::Good));
        assert_eq!(ports(""), None);
        let pages = |found| huge_pages(found).map(|found| found.verdict);
        assert_eq!(pages("[always] madvise never"), Some(Verdict::Weak));
        assert_eq!(pages("always [madvise] never"), Some(Verdict::Good));
        assert_eq!(pages(""), None);
    }

    /// C-24: the profile decides what is enough.
    #[test]
    fn a_profile_for_many_asks_for_more() {
        let sources = Sources {
            profile: Some("million".to_owned()),
            ..Sources::default()
        };
        let million = sources.load().unwrap().config;
        let somaxconn = |config: &Config| {
            let found = sysctls(config).into_iter();
            let mut found = found.filter(|sysctl| sysctl.name == "net.core.somaxconn");
            found.next().unwrap().judge("8192").unwrap().verdict
        };
        assert_eq!(somaxconn(&config()), Verdict::Good);
        assert_eq!(somaxconn(&million), Verdict::Weak);
    }

    #[test]
    fn a_weak_setting_names_the_line_that_mends_it() {
        let somaxconn = sysctls(&config())
            .into_iter()
            .find(|sysctl| sysctl.name == "net.core.somaxconn")
            .unwrap();
        let weak = somaxconn.judge("128\n").unwrap();
        assert_eq!(weak.verdict, Verdict::Weak);
        assert!(
            weak.mend
                .unwrap()
                .starts_with("sysctl -w net.core.somaxconn=4096")
        );
        assert_eq!(somaxconn.judge("4096").unwrap().verdict, Verdict::Good);
        assert_eq!(somaxconn.judge("what"), None);
    }

    #[test]
    fn a_data_directory_that_is_not_there_yet_is_judged_by_the_one_above() {
        let folder = tempfile::tempdir().unwrap();
        let finding = data_directory(&folder.path().join("a/b/c"));
        assert_ne!(finding.verdict, Verdict::Broken, "{finding:?}");
    }

    /// Whatever the doctor asks for stands in the file that is shipped.
    #[test]
    fn shipped_settings_satisfy_the_doctor() {
        let shipped = fs::read_to_string("tuning/sysctl.conf").unwrap();
        let sources = Sources {
            profile: Some("million".to_owned()),
            ..Sources::default()
        };
        let million = sources.load().unwrap().config;
        for sysctl in sysctls(&million) {
            let line = shipped.lines().find_map(|line| {
                let line = line.trim_start_matches("# ");
                line.strip_prefix(sysctl.name)?
                    .trim_start()
                    .strip_prefix('=')
            });
            let finding = line.and_then(|value| sysctl.judge(value));
            let by_bytes = sysctl.name == "vm.dirty_background_ratio";
            assert!(
                by_bytes || finding.unwrap().verdict == Verdict::Good,
                "{}",
                sysctl.name
            );
        }
    }

    /// C-24: on the machine that runs the tests nothing is broken but what it lacks.
    #[test]
    fn every_finding_that_is_not_good_says_what_to_do() {
        let sources = Sources {
            dev: true,
            ..Sources::default()
        };
        let config = sources.load().unwrap().config;
        for finding in findings(&config, &sources) {
            assert_eq!(
                finding.verdict == Verdict::Good,
                finding.mend.is_none(),
                "{finding:?}"
            );
        }
    }
}
