//! The controller's command line.

use std::path::PathBuf;

use clap::Parser;
use lightship_controller::adapter::Classes;
use lightship_controller::{Options, run};
use lightship_kit::LogFormat;

/// Gives Services of type LoadBalancer their addresses.
#[derive(Debug, Parser)]
#[command(version)]
struct Flags {
    /// spec.loadBalancerClass to serve; repeatable. The empty text stands for Services without
    /// a class. Default: lightship.dev/l2 and Services without a class.
    #[arg(long = "load-balancer-class", value_name = "CLASS")]
    classes: Vec<String>,

    /// Kubeconfig file; without it the Pod's service account is used.
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    kubeconfig: Option<PathBuf>,

    /// Namespace of the Secret with the heartbeat key.
    #[arg(long, env = "LIGHTSHIP_NAMESPACE", default_value = lightship_crds::NAMESPACE)]
    namespace: String,

    /// Name of this replica in events.
    #[arg(long, env = "LIGHTSHIP_INSTANCE", default_value = lightship_crds::MANAGER_CONTROLLER)]
    instance: String,

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
    let client = lightship_kit::connect(flags.kubeconfig.as_deref()).await?;
    let options = Options {
        classes: Classes::new(&flags.classes),
        namespace: flags.namespace,
        instance: flags.instance,
    };
    tracing::info!(version = env!("CARGO_PKG_VERSION"), ?options, "starting");
    run(client, options, shutdown).await;
    Ok(())
}
