//! Ports that stay ours while their server is down.
//!
//! Asking the kernel for "any free port" gives one of the ephemeral range, where any outgoing
//! connection may take it between a kill and the restart. These ports lie below that range, and a
//! lock file for each keeps other test processes away from it.

use std::fs::{self, File, TryLockError};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, Result, bail};

use crate::process;

const FIRST: u16 = 15_000;
const COUNT: u16 = 15_000;

/// A port of 127.0.0.1 that no other lab uses until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    /// Locked; the kernel lets go of it when this process dies.
    _lock: File,
}

impl Port {
    /// The number, below the ephemeral range.
    pub fn number(&self) -> u16 {
        self.number
    }

    /// `127.0.0.1:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// Reserves a port on which nothing listens.
pub fn reserve() -> Result<Port> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let locks = lock_folder()?;
    // Processes start their search at different places, to meet as rarely as possible.
    let start = u16::try_from(u64::from(std::process::id()) * 64 % u64::from(COUNT))?;
    for _ in 0..COUNT {
        let step = NEXT.fetch_add(1, Ordering::Relaxed) % COUNT;
        let number = FIRST + (start + step) % COUNT;
        let path = locks.join(number.to_string());
        let lock = File::create(&path).with_context(|| format!("create {}", path.display()))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => continue,
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
        if TcpListener::bind(("127.0.0.1", number)).is_ok() {
            return Ok(Port { number, _lock: lock });
        }
    }
    bail!("no free port between {FIRST} and {}", FIRST + COUNT)
}

/// One folder for each user, because one user cannot open another's lock files.
fn lock_folder() -> Result<PathBuf> {
    let folder = std::env::temp_dir().join(format!("walrelay-lab-ports-{}", process::own_uid()?));
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once_and_can_be_bound() {
        let (one, other) = (reserve().unwrap(), reserve().unwrap());
        assert_ne!(one.number(), other.number());
        TcpListener::bind(one.address()).unwrap();
    }
}
