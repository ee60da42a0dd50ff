//! The controller's command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use lightship_controller::adapter::{Classes, Dialect};
use lightship_controller::lease::Timing;
use lightship_controller::node_failure::Limit;
use lightship_controller::throttle::Rate;
use lightship_controller::{Options, run};
use lightship_kit::{AdminAddress, LogFormat};

/// Gives Services of type LoadBalancer their addresses.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// spec.loadBalancerClass to serve; repeatable. The empty text stands for Services without
    /// a class. Default: lightship.dev/l2 and Services without a class.
    #[arg(long = "load-balancer-class", value_name = "CLASS")]
    classes: Vec<String>,

    /// Honour MetalLB's annotations (metallb.io/address-pool, loadBalancerIPs, allow-shared-ip, and
    /// the same under metallb.universe.tf) on Services that lack ours.
    #[arg(long, env = "LIGHTSHIP_METALLB_ANNOTATIONS")]
    metallb_annotations: bool,

    /// Kubeconfig file; without it the Pod's service account is used.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Namespace of the Lease between replicas and of the Secret with the heartbeat key.
    #[arg(long, env = "LIGHTSHIP_NAMESPACE", default_value = lightship_crds::NAMESPACE)]
    namespace: String,

    /// Name of this replica in events and in the Lease; no two replicas may share it.
    #[arg(long, env = "LIGHTSHIP_INSTANCE", default_value = lightship_crds::MANAGER_CONTROLLER)]
    instance: String,

    /// Seconds after which another replica may take over from a leader that has fallen silent.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    lease_duration: u64,

    /// Seconds between two renewals of the Lease by the leader.
    #[arg(long, value_name = "SECONDS", default_value_t = 2)]
    lease_renew_interval: u64,

    /// Seconds after which a leader that cannot renew the Lease stops acting.
    #[arg(long, value_name = "SECONDS", default_value_t = 6)]
    lease_renew_deadline: u64,

    /// Writes per second to the API server in the long run, without events.
    #[arg(long, value_name = "RATE", default_value_t = Rate::default().per_second)]
    api_qps: f64,

    /// Writes at once after a pause.
    #[arg(long, value_name = "COUNT", default_value_t = Rate::default().burst)]
    api_burst: f64,

    /// Mark the pods of a dead node not ready within about a second, by the word of the speakers,
    /// instead of leaving that to Kubernetes, which takes 40 s and more. Needs the rights in
    /// deploy/rbac-early-node-failure.yaml.
    #[arg(long, env = "LIGHTSHIP_EARLY_NODE_FAILURE")]
    early_node_failure: bool,

    /// With --early-node-failure: of how many nodes at once, in percent of all, from 1 to 49, but always of one.
    /// While more are lost, nothing is done.
    #[arg(long, value_name = "PERCENT", default_value_t = 20)]
    early_node_failure_limit: u8,

    /// Where metrics and probes are served over HTTP: an address with a port, or none.
    #[arg(
        long,
        env = "LIGHTSHIP_METRICS_ADDRESS",
        default_value = "[::]:7735",
        value_name = "ADDRESS"
    )]
    metrics_address: AdminAddress,

    /// text or json.
    #[arg(long, env = "LIGHTSHIP_LOG_FORMAT", default_value = "text")]
    log_format: LogFormat,

    /// Log level, or a filter such as info,lightship_controller=debug. The default hides the
    /// client library's lines about every failed attempt, as the controller has its own.
    #[arg(
        long,
        env = "LIGHTSHIP_LOG",
        default_value = "info,kube_client=off,kube_runtime=off"
    )]
    log_level: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    lightship_kit::init_logging(flags.log_format, &flags.log_level)?;
    let shutdown = lightship_kit::shutdown_signal()?;
    let timing = Timing {
        duration: Duration::from_secs(flags.lease_duration),
        renew: Duration::from_secs(flags.lease_renew_interval),
        deadline: Duration::from_secs(flags.lease_renew_deadline),
    };
    let timing = timing.checked().map_err(anyhow::Error::msg)?;
    let rate = Rate {
        per_second: flags.api_qps,
        burst: flags.api_burst,
    };
    let rate = rate.checked().map_err(anyhow::Error::msg)?;
    let limit = Limit::percent(flags.early_node_failure_limit)?;
    let client = lightship_kit::connect(flags.kubeconfig.as_deref()).await?;
    let options = Options {
        dialect: Dialect {
            classes: Classes::new(&flags.classes),
            metallb: flags.metallb_annotations,
        },
        namespace: flags.namespace,
        instance: flags.instance,
        timing,
        rate,
        early_node_failure: flags.early_node_failure.then_some(limit),
        metrics_address: flags.metrics_address,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?options, "starting");
    run(client, options, shutdown).await;
    Ok(())
}
