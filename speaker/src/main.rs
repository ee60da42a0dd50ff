//! The speaker's program; [`lightship_speaker::run`] has the picture.

use clap::Parser;
use lightship_speaker::args::{Cli, Command};

fn main() -> anyhow::Result<()> {
    lightship_netio::keep_memory_small();
    start()
}

#[tokio::main(worker_threads = 2)]
async fn start() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if let Some(Command::Cleanup { state_file, stay }) = cli.command {
        let said = |what| println!("removed {what}");
        let signal = lightship_kit::shutdown_signal()?;
        lightship_speaker::cleanup::run(&state_file, said).await?;
        if stay {
            println!("this node is clean");
            signal.await;
        }
        return Ok(());
    }
    // Without a command the parser has made sure of it.
    let Some(args) = cli.run else {
        anyhow::bail!("--node-name is missing")
    };
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
