//! Writes the CRDs into `crds/yaml`; with `--check` changes nothing and fails if a file there
//! is not what would be written; with `--print` writes to standard output.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mode = std::env::args().nth(1);
    // The checkout that cargo runs this for, not the one it was compiled in: target directories
    // are copied and shared.
    let here = std::env::var_os("CARGO_MANIFEST_DIR");
    let here = here.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    let directory = here.join("yaml");
    let mut stale = false;
    for file in lightship_crds::crd_files()? {
        let path = directory.join(&file.name);
        match mode.as_deref() {
            None => std::fs::write(&path, &file.text)?,
            Some("--print") => println!("---\n{}", file.text),
            Some("--check") => {
                if std::fs::read_to_string(&path).unwrap_or_default() != file.text {
                    eprintln!("crds/yaml/{} is stale; run: cargo xtask gen", file.name);
                    stale = true;
                }
            }
            Some(other) => return Err(format!("{other}: use --check, --print or nothing").into()),
        }
    }
    Ok(if stale {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}
