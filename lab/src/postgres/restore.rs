//! What backups are for, and what they can do: an older state in the place of the newer one.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::{Postgres, copy, initdb};

/// The data of a stopped server as it was at one moment. Lives as long as the server's files.
#[derive(Clone, Debug)]
pub struct Backup(PathBuf);

impl Postgres {
    /// Copies the data of this server, which must be stopped.
    pub fn back_up(&self) -> Result<Backup> {
        ensure!(!self.is_running(), "a running server is not copied like this");
        let backup = Backup(self.run.join("backup"));
        copy(&self.data_dir(), &backup.0)?;
        Ok(backup)
    }

    /// Puts the data of then in the place of today's and starts the server, on the same port.
    pub fn restore(&self, backup: &Backup) -> Result<()> {
        self.remove_data()?;
        copy(&backup.0, &self.data_dir())?;
        self.start_again()
    }

    /// Puts a fresh cluster, with a system identifier of its own and nothing in it, in the place
    /// of today's and starts it, on the same port with the same settings.
    pub fn start_anew(&self) -> Result<()> {
        let kept = ["postgresql.conf", "pg_hba.conf"];
        let read = |name: &&str| fs::read(self.data_dir().join(name));
        let contents: Vec<Vec<u8>> = kept.iter().map(read).collect::<Result<_, _>>()?;
        self.remove_data()?;
        let binaries = self.bin_dir().parent().context("the binaries are in no folder")?;
        initdb(binaries, &self.data_dir(), &self.run.join("initdb.log"))?;
        for (name, content) in kept.iter().zip(&contents) {
            self.write_file(name, content)?;
        }
        self.start_again()
    }

    fn remove_data(&self) -> Result<()> {
        ensure!(!self.is_running(), "the data of a running server stays where it is");
        let data = self.data_dir();
        fs::remove_dir_all(&data).with_context(|| format!("remove {}", data.display()))
    }
}
