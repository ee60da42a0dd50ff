//! Writes the CRDs: `crdgen DIR` into `DIR/*.yaml`, `crdgen` to standard output.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let directory = std::env::args_os().nth(1).map(PathBuf::from);
    for file in lightship_crds::crd_files()? {
        match &directory {
            Some(directory) => std::fs::write(directory.join(&file.name), &file.text)?,
            None => println!("---\n{}", file.text),
        }
    }
    Ok(())
}
