//! The speaker's program; [`lightship_speaker::run`] has the picture.

use clap::Parser;
use lightship_speaker::args::Args;

#[tokio::main(worker_threads = 2)]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    lightship_kit::init_logging(args.log_format, &args.log_level)?;
    let signal = lightship_kit::shutdown_signal()?;
    let (stop, stopping) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        let name = signal.await;
        tracing::info!(signal = name, "stopping");
        let _ = stop.send(true);
    });
    lightship_speaker::run::run(args, stopping).await
}
