//! What the controller costs, at several numbers of Services. Run by `cargo xtask bench
//! controller`, which also writes the report; not part of the tests.

mod load;
mod measure;
mod verdict;
mod watch;

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result};
use lightship_e2e::figures::table;

use crate::cluster::Cluster;
use measure::Figures;

/// Where the report goes, if this is set.
const REPORT: &str = "LIGHTSHIP_BENCH_REPORT";
/// Numbers of Services, separated by commas.
const SIZES: &str = "LIGHTSHIP_BENCH_SIZES";

/// Measures everything and reports what was measured before a failure, too.
pub(crate) fn run(mut cluster: Cluster) -> ExitCode {
    // As it is run: a line for every write is for tests.
    cluster.log_filter = "info";
    let mut all = Vec::new();
    let measured = sizes().and_then(|sizes| {
        for size in sizes {
            all.push(measure::at(&mut cluster, size)?);
        }
        Ok(())
    });
    let report = format!("{}\n{}", text(&all), verdict::text(&all));
    println!("{report}");
    let written = std::env::var_os(REPORT).map_or(Ok(()), |path| fs::write(path, &report));
    let outcome = measured.and(written.context("cannot write the report"));
    if let Err(error) = &outcome {
        eprintln!("error: {error:#}\n{}", cluster.log_tail());
    }
    cluster.stop(outcome.is_err());
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn sizes() -> Result<Vec<usize>> {
    let text = std::env::var(SIZES).unwrap_or_else(|_| "100,1000,10000".into());
    text.split(',')
        .map(|size| size.parse().with_context(|| format!("{SIZES}: {size}")))
        .collect()
}

fn text(all: &[Figures]) -> String {
    let seconds = |value: f64| format!("{value:.2}");
    let millis = |value: f64| format!("{value:.0}");
    let waiting = all.iter().map(|f| {
        vec![
            f.services.to_string(),
            seconds(f.status_writes),
            seconds(f.vip_writes),
            seconds(f.both_writes),
            seconds(f.waiting),
            format!("{:.1}", f.waiting / f.status_writes),
            seconds(f.waiting - f.status_writes),
            format!("{:.2}", f.waiting / f.both_writes),
            seconds(f.waiting - f.both_writes),
            format!("{:.1}", f.both_processor),
            format!("{:.1}", f.waiting_processor[0]),
            format!("{:.1}", f.waiting_processor[1]),
        ]
    });
    let burst = all.iter().map(|f| {
        vec![
            f.services.to_string(),
            seconds(f.created_alone),
            seconds(f.created),
            seconds(f.addressed),
            millis(f.latency[0]),
            millis(f.latency[1]),
            millis(f.latency[2]),
        ]
    });
    let single = all.iter().map(|f| {
        vec![
            f.services.to_string(),
            format!("{:.1}", f.single[0]),
            format!("{:.1}", f.single[1]),
            f.touched.to_string(),
        ]
    });
    let restart = all.iter().map(|f| {
        vec![
            f.services.to_string(),
            seconds(f.restart),
            f.restart_writes.to_string(),
            format!("{:.1}", f.memory[0]),
            format!("{:.1}", f.memory[1]),
            format!("{:.1}", f.memory[2]),
        ]
    });
    let rows = |rows: &mut dyn Iterator<Item = Vec<String>>| rows.collect::<Vec<_>>();
    format!(
        "IPv6 Services from one pool, against an etcd and a kube-apiserver on the same machine, with the \
         service account of `deploy/`. An address costs two writes: the VirtualIP, and the Service's status when that \
         stands.\n\n\
         **N Services that wait, and the controller starts**: until the last has its address, against N plain status \
         writes, and against both kinds of write at the same time while as many watch, by 64 clients while the \
         controller is off. Processor time is that of the API server with its etcd for both kinds of write, the same until all \
         have addresses, and the controller's until then.\n\n{}\n\
         **N Services created as fast as the API server takes them**, by 64 clients: seconds from the first request; \
         milliseconds from the creation of a Service to its address, as a watcher sees both.\n\n{}\n\
         **One more Service among N**: milliseconds from its creation to its address as a watcher sees both, of 20; \
         and other Services and VirtualIPs that were written for it.\n\n{}\n\
         **SIGKILL and start among N**: until all is adopted, and objects written for that; resident memory.\n\n{}",
        table(
            &[
                "N",
                "N status writes s",
                "N VirtualIPs s",
                "both at once s",
                "all addressed s",
                "to status writes",
                "beyond s",
                "to both",
                "beyond s",
                "processor s: both",
                "all addressed",
                "controller"
            ],
            &rows(&mut { waiting })
        ),
        table(
            &[
                "N",
                "created without controller s",
                "created s",
                "all addressed s",
                "p50 ms",
                "p99 ms",
                "worst ms"
            ],
            &rows(&mut { burst })
        ),
        table(
            &["N", "median ms", "worst ms", "others written"],
            &rows(&mut { single })
        ),
        table(
            &[
                "N",
                "ready after s",
                "written",
                "MiB after the burst",
                "MiB after the restart",
                "highest MiB"
            ],
            &rows(&mut { restart })
        ),
    )
}
