//! Where servers keep their data while they live: `walrelay-lab-PID/NAME-N` in the system's
//! temporary directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

const PREFIX: &str = "walrelay-lab-run-";

/// One server's directory, removed on drop unless `WALRELAY_LAB_KEEP` is set.
#[derive(Debug)]
pub struct RunDir(PathBuf);

impl RunDir {
    /// A fresh, empty directory. The first call also removes what dead processes left behind.
    pub fn create(name: &str) -> Result<RunDir> {
        static SWEPT: Once = Once::new();
        static NEXT: AtomicU32 = AtomicU32::new(0);
        SWEPT.call_once(sweep);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir()
            .join(format!("{PREFIX}{}", std::process::id()))
            .join(format!("{name}-{number}"));
        fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(RunDir(path))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A path in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if std::env::var_os("WALRELAY_LAB_KEEP").is_none() {
            // What cannot be removed now is swept by a later process.
            drop(fs::remove_dir_all(&self.0));
        }
    }
}

/// Removes the directories of processes that are gone: statics are never dropped, and a killed
/// process drops nothing. Another user's directories stay; they are not ours to remove.
fn sweep() {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else { continue };
        if !Path::new("/proc").join(pid).exists() {
            drop(fs::remove_dir_all(entry.path()));
        }
    }
}
