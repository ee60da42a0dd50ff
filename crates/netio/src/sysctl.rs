//! Kernel parameters below `/proc/sys`.
//!
//! What stands below `net` is that of the calling thread's network namespace:
//! use [`crate::run_in`] for another one.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// Longer values are rare.
const LONGEST: usize = 256;

/// What [`ensure`] found and did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ensured {
    /// It had another value, now it has the wanted one.
    Changed,
    /// It had the wanted value already; nothing was written.
    Same,
    /// This kernel, or this namespace, has no such parameter.
    Missing,
}

/// Reads a parameter, or `None` if there is no such one.
///
/// `name` is written with slashes (`net/ipv4/conf/eth0.100/rp_filter`) or with dots
/// (`net.ipv4.ip_forward`). A name with any slash in it is taken literally; in the
/// dotted form a slash stands for a dot of an interface's name, as in `sysctl(8)`.
///
/// # Errors
/// The parameter cannot be read, or the name leads out of `/proc/sys`.
pub fn read(name: &str) -> Result<Option<String>> {
    let path = path_of(name)?;
    match text_of(&path) {
        Ok(text) => Ok(Some(text)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::os(format!("read sysctl {name}"), e)),
    }
}

/// By one read, with which the kernel gives all: to ask for its length and for more takes as long again.
fn text_of(path: &Path) -> io::Result<String> {
    let mut text = [0; LONGEST];
    let length = File::open(path)?.read(&mut text)?;
    if length == LONGEST {
        return Ok(fs::read_to_string(path)?.trim_end().to_owned());
    }
    let text = std::str::from_utf8(&text[..length])
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    Ok(text.trim_end().to_owned())
}

/// Gives a parameter a value, writing only if it differs.
///
/// So a container whose `/proc/sys` is read-only still passes when the host is
/// already set up. Several numbers in one parameter may be separated by any white space.
///
/// # Errors
/// The parameter cannot be read or written (`EROFS`, `EACCES`), the kernel
/// refuses the value (`EINVAL`), or the name leads out of `/proc/sys`.
pub fn ensure(name: &str, value: &str) -> Result<Ensured> {
    let Some(now) = read(name)? else {
        return Ok(Ensured::Missing);
    };
    if now.split_whitespace().eq(value.split_whitespace()) {
        return Ok(Ensured::Same);
    }
    fs::write(path_of(name)?, value)
        .map_err(|e| Error::os(format!("set sysctl {name} to {value}"), e))?;
    Ok(Ensured::Changed)
}

fn path_of(name: &str) -> Result<PathBuf> {
    let invalid = |why| Error::Invalid {
        what: format!("sysctl name {name:?}"),
        why,
    };
    let relative = if name.contains('/') {
        // `net/...` is a path; `net.ipv4.conf.eth0/100.x` is sysctl(8)'s way.
        let first = name.split(['.', '/']).next().unwrap_or_default();
        if name[first.len()..].starts_with('/') {
            name.to_owned()
        } else {
            name.chars()
                .map(|c| match c {
                    '.' => '/',
                    '/' => '.',
                    other => other,
                })
                .collect()
        }
    } else {
        name.replace('.', "/")
    };
    if relative
        .split('/')
        .any(|part| part.is_empty() || part == "." || part == "..")
    {
        return Err(invalid("must stay below /proc/sys"));
    }
    Ok(PathBuf::from("/proc/sys").join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let path = |name| path_of(name).map(|p| p.display().to_string());
        for (name, want) in [
            ("net.ipv4.ip_forward", "/proc/sys/net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "/proc/sys/net/ipv4/ip_forward"),
            (
                "net/ipv4/conf/eth0.100/rp_filter",
                "/proc/sys/net/ipv4/conf/eth0.100/rp_filter",
            ),
            (
                "net.ipv4.conf.eth0/100.rp_filter",
                "/proc/sys/net/ipv4/conf/eth0.100/rp_filter",
            ),
        ] {
            assert_eq!(path(name).unwrap(), want);
        }
        for bad in ["", ".", "/etc/passwd", "net/../../x", "net//x", "net..x"] {
            assert!(path(bad).is_err(), "{bad:?} was taken");
        }
    }
}
