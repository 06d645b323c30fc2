//! Child processes that never outlive us, and the signals that hurt them.
//!
//! A test process may be killed with SIGKILL, and then nothing of it runs any more; so the kernel
//! has to kill its servers. Each child asks for that before it becomes the server (`setpriv
//! --pdeathsig KILL`). "Parent" means the *thread* that forked: a server started from a test's own
//! thread would die when that test ends, though others share it. Therefore one thread that never
//! ends does all the forking.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::time::Duration;
use std::{fmt, io};

use anyhow::{Context, Result, bail};

use crate::{usage, wait_until};

/// The user and group that servers run as when we are root, because Postgres refuses to be root.
pub(crate) const NOBODY: u32 = 65534;

/// How long a process may take to vanish after SIGKILL. It has no say in it, only the kernel has.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// The signals that the lab sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Freezes the process: its sockets stay open, and nothing answers.
    Stop,
    /// Lets a frozen process go on.
    Cont,
    /// Asks for an orderly end.
    Term,
    /// Control-C; "fast shutdown" to Postgres.
    Int,
    /// "Immediate shutdown" to Postgres.
    Quit,
    /// Reload, for those that know it.
    Hup,
    /// The end, at once.
    Kill,
}

impl Signal {
    fn name(self) -> &'static str {
        match self {
            Signal::Stop => "STOP",
            Signal::Cont => "CONT",
            Signal::Term => "TERM",
            Signal::Int => "INT",
            Signal::Quit => "QUIT",
            Signal::Hup => "HUP",
            Signal::Kill => "KILL",
        }
    }
}

/// What to run: the program, its arguments, its environment and the file its output goes to.
#[derive(Debug)]
pub struct Launch {
    program: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, Option<OsString>)>,
    dir: Option<PathBuf>,
    /// Appended to, so that the log of a server spans its restarts.
    log: PathBuf,
    as_nobody: bool,
    memory_max: Option<u64>,
}

/// The stack of a thread under a limit of memory: stacks count in full, and beside a cluster there
/// are thirty of them, of each of which some 30 KiB are used.
const STACK_BYTES: u64 = 512 << 10;

impl Launch {
    /// Both output streams are appended to the file `log`.
    pub fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Launch {
        Launch {
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            dir: None,
            log: log.into(),
            as_nobody: false,
            memory_max: None,
        }
    }

    /// Adds one argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<OsString>) -> Launch {
        self.args.push(arg.into());
        self
    }

    /// Adds several arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl Into<OsString>>) -> Launch {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Sets an environment variable; the others are inherited.
    #[must_use]
    pub fn env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Launch {
        self.env.push((name.into(), Some(value.into())));
        self
    }

    /// Takes an inherited environment variable away.
    #[must_use]
    pub fn env_remove(mut self, name: impl Into<OsString>) -> Launch {
        self.env.push((name.into(), None));
        self
    }

    /// The working directory.
    #[must_use]
    pub fn dir(mut self, dir: impl Into<PathBuf>) -> Launch {
        self.dir = Some(dir.into());
        self
    }

    /// Gives up root, if we have it.
    #[must_use]
    pub fn as_nobody(mut self) -> Launch {
        self.as_nobody = true;
        self
    }

    /// The most memory that it may write to (`RLIMIT_DATA`): heap, stacks, static data. Beyond it,
    /// the kernel gives no more, upon which a Rust program ends. Code and files do not count.
    /// (`RLIMIT_RSS` does nothing, and `RLIMIT_AS` counts what is only reserved.)
    #[must_use]
    pub fn memory_max(mut self, bytes: u64) -> Launch {
        self.memory_max = Some(bytes);
        self
    }

    /// Starts it.
    pub fn spawn(&self) -> Result<Child> {
        require(&[("setpriv", "util-linux")])?;
        let log = File::options().create(true).append(true).open(&self.log);
        let mut log = log.with_context(|| format!("open the log {}", self.log.display()))?;
        writeln!(log, "--- lab starts {} ---", self.program.display())?;
        let mut command = Command::new("setpriv");
        command.args(setpriv_args(self.as_nobody && own_uid()? == 0));
        if let Some(bytes) = self.memory_max {
            command.args([
                "prlimit",
                &format!("--data={bytes}"),
                &format!("--stack={STACK_BYTES}"),
            ]);
            // Rust's threads do not go by that limit.
            command.env("RUST_MIN_STACK", STACK_BYTES.to_string());
        }
        command.arg(&self.program).args(&self.args);
        for (name, value) in &self.env {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(dir) = &self.dir {
            command.current_dir(dir);
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let inner = fork_from_lasting_thread(command)
            .with_context(|| format!("start {}", self.program.display()))?;
        let name = self.program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Child { pid: inner.id(), inner: Mutex::new(inner), log: self.log.clone(), name })
    }

    /// Runs it to its end and returns its output; fails, with the output, unless it succeeds.
    pub fn run(&self, timeout: Duration) -> Result<String> {
        let child = self.spawn()?;
        match child.wait_timeout(timeout)? {
            Some(status) if status.success() => Ok(child.log()),
            Some(status) => bail!("{child} ended with {status}:\n{}", child.log()),
            None => bail!("{child} still runs after {timeout:?}:\n{}", child.log()),
        }
    }
}

/// A running or ended process of ours. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    /// Not reaped before it is waited for through this handle, so `pid` cannot be another's.
    inner: Mutex<std::process::Child>,
    pid: u32,
    log: PathBuf,
    name: String,
}

impl Child {
    /// The process id, also that of the server itself: `setpriv` becomes it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Whether it has not ended yet. A frozen process runs.
    pub fn is_running(&self) -> bool {
        matches!(self.lock().try_wait(), Ok(None))
    }

    /// SIGKILL, and waits until the process is gone.
    pub fn kill_9(&self) -> Result<()> {
        let mut inner = self.lock();
        inner.kill().with_context(|| format!("kill {self}"))?;
        inner.wait().with_context(|| format!("wait for {self}"))?;
        Ok(())
    }

    /// SIGKILL to it and to its direct children at once, and waits until all are gone. Without it,
    /// the processes of a Postgres would notice their postmaster's death only a little later.
    pub fn kill_9_family(&self) -> Result<()> {
        if !self.is_running() {
            return Ok(());
        }
        // A frozen parent starts no child that we would miss.
        self.signal(Signal::Stop)?;
        let children = children_of(self.pid);
        self.kill_9()?;
        send(Signal::Kill, &children)?;
        wait_until(KILL_TIMEOUT, format!("the children of {self} to be gone"), || {
            children.iter().all(|&pid| matches!(state_of(pid), None | Some('Z')))
        })
    }

    /// Sends a signal to the process; an error if it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        // The lock keeps others from reaping it, and thereby its pid ours.
        let mut inner = self.lock();
        if let Some(status) = inner.try_wait()? {
            bail!("{self} has ended with {status} and cannot get SIG{}", signal.name());
        }
        send(signal, &[self.pid])
    }

    /// Sends a signal to the process and its direct children.
    pub fn signal_family(&self, signal: Signal) -> Result<()> {
        self.signal(signal)?;
        send(signal, &children_of(self.pid))
    }

    /// How it ended, or `None` if it still runs after `timeout`.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>> {
        let mut ended = None;
        let in_time = wait_until(timeout, "the end", || {
            ended = self.lock().try_wait().transpose();
            ended.is_some()
        });
        drop(in_time);
        ended.transpose().with_context(|| format!("wait for {self}"))
    }

    /// Everything that it, and those started before it with the same log file, wrote.
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    /// Resident memory now.
    pub fn rss_bytes(&self) -> Option<u64> {
        usage::rss_bytes(self.pid)
    }

    /// The most resident memory it ever had.
    pub fn peak_rss_bytes(&self) -> Option<u64> {
        usage::peak_rss_bytes(self.pid)
    }

    /// The most memory that it may write to, as the kernel has it; `None` if that is unlimited.
    pub fn memory_max(&self) -> Option<u64> {
        usage::data_max(self.pid)
    }

    /// The kernel's letter for its state: `T` is the evidence that a SIGSTOP took effect.
    pub fn state(&self) -> Option<char> {
        state_of(self.pid)
    }

    fn lock(&self) -> MutexGuard<'_, std::process::Child> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (pid {})", self.name, self.pid)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        drop(self.kill_9_family());
    }
}

/// An error that names every one of `programs` that is not on the `PATH`, with the Debian package
/// that has it, so that one look suffices to install them all.
pub(crate) fn require(programs: &[(&str, &str)]) -> Result<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let (mut missing, mut packages) = (Vec::new(), Vec::new());
    for (program, package) in programs {
        if !folders.iter().any(|folder| folder.join(program).is_file()) {
            missing.push(*program);
            packages.push(*package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    bail!(
        "not installed: {}; on Debian: apt-get install {}",
        missing.join(", "),
        packages.join(" ")
    )
}

/// Our effective user id, from the owner of our entry in `/proc`.
pub(crate) fn own_uid() -> Result<u32> {
    Ok(fs::metadata("/proc/self").context("look at /proc/self")?.uid())
}

pub(crate) fn read_log(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// Writes the end of a server's log to standard error if the thread is panicking, that is, if a
/// test fails while it holds that server.
pub(crate) fn show_log_of_failed_test(name: &str, log: &str) {
    const LINES: usize = 30;
    if std::thread::panicking() {
        let skipped = log.lines().count().saturating_sub(LINES);
        let tail: Vec<&str> = log.lines().skip(skipped).collect();
        eprintln!("=== the last lines of {name} ===\n{}\n===", tail.join("\n"));
    }
}

fn setpriv_args(become_nobody: bool) -> Vec<String> {
    let mut args = vec!["--pdeathsig".to_owned(), "KILL".to_owned()];
    if become_nobody {
        args.extend([format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")]);
        args.push("--clear-groups".to_owned());
    }
    args.push("--".to_owned());
    args
}

type Fork = (Command, mpsc::Sender<io::Result<std::process::Child>>);

fn fork_from_lasting_thread(command: Command) -> io::Result<std::process::Child> {
    static FORKS: OnceLock<mpsc::Sender<Fork>> = OnceLock::new();
    let forks = FORKS.get_or_init(|| {
        let (requests, inbox) = mpsc::channel::<Fork>();
        std::thread::spawn(move || {
            // Never ends: the sender is a static.
            for (mut command, reply) in inbox {
                drop(reply.send(command.spawn()));
            }
        });
        requests
    });
    let (reply, answer) = mpsc::channel();
    let gone = |_| io::Error::other("the thread that starts processes is gone");
    forks.send((command, reply)).map_err(|_| gone(mpsc::RecvError))?;
    answer.recv().map_err(gone)?
}

/// Through the shell's own `kill`, because the library function is `unsafe` and Debian has the
/// program in a package of its own. Processes that ended meanwhile are no error.
pub(crate) fn send(signal: Signal, pids: &[u32]) -> Result<()> {
    if pids.is_empty() {
        return Ok(());
    }
    let output = Command::new("sh")
        .args(["-c", "name=$1; shift; for pid; do kill -s $name $pid; done", "sh", signal.name()])
        .args(pids.iter().map(u32::to_string))
        .output()
        .context("run sh for kill")?;
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    let gone = |line: &str| line.trim().is_empty() || line.contains("No such process");
    match complaints.lines().find(|line| !gone(line)) {
        Some(complaint) => bail!("send SIG{} to {pids:?}: {complaint}", signal.name()),
        None => Ok(()),
    }
}

pub(crate) fn children_of(parent: u32) -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|&pid| stat_of(pid).is_some_and(|(_, its_parent)| its_parent == parent)).collect()
}

pub(crate) fn state_of(pid: u32) -> Option<char> {
    stat_of(pid).map(|(state, _)| state)
}

/// Whether a signal, by its number, waits until the process goes on.
pub(crate) fn is_pending(pid: u32, signal: u32) -> bool {
    let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let masks = status.lines().filter_map(|line| {
        let mask = line.strip_prefix("ShdPnd:").or_else(|| line.strip_prefix("SigPnd:"))?;
        u64::from_str_radix(mask.trim(), 16).ok()
    });
    masks.fold(0, |all, mask| all | mask) >> (signal - 1) & 1 == 1
}

/// State and parent.
fn stat_of(pid: u32) -> Option<(char, u32)> {
    let stat = usage::stat(pid)?;
    let mut fields = stat.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// A command for a short-lived tool that inherits our death, for callers that need its pipes.
pub(crate) fn tool(program: impl AsRef<OsStr>) -> Result<Command> {
    require(&[("setpriv", "util-linux")])?;
    let mut command = Command::new("setpriv");
    command.args(setpriv_args(false)).arg(program);
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_dir::RunDir;

    const LONG: Duration = Duration::from_secs(10);

    fn sleeper() -> (RunDir, Child) {
        let run = RunDir::create("sleeper").unwrap();
        let child = Launch::new("sleep", run.join("log")).arg("1000").spawn().unwrap();
        (run, child)
    }

    #[test]
    fn children_die_with_us_and_without_root() {
        let expected = "--pdeathsig KILL --reuid=65534 --regid=65534 --clear-groups --";
        assert_eq!(setpriv_args(true).join(" "), expected);
        assert_eq!(setpriv_args(false).join(" "), "--pdeathsig KILL --");
    }

    #[test]
    fn a_stopped_process_is_frozen_until_it_goes_on() {
        let (_run, child) = sleeper();
        child.signal(Signal::Stop).unwrap();
        wait_until(LONG, "T", || child.state() == Some('T')).unwrap();
        assert!(child.is_running());
        child.signal(Signal::Cont).unwrap();
        wait_until(LONG, "S", || child.state() == Some('S')).unwrap();
        assert!(child.rss_bytes().unwrap() <= child.peak_rss_bytes().unwrap());
        child.kill_9().unwrap();
        assert!(!child.is_running());
        assert!(child.signal(Signal::Term).is_err());
    }

    #[test]
    fn beyond_its_limit_a_process_gets_no_memory() {
        let run = RunDir::create("limited").unwrap();
        let block = |bytes: u64| {
            let bytes = format!("bs={bytes}");
            Launch::new("dd", run.join("log"))
                .args(["if=/dev/zero", "of=/dev/null", "count=1"])
                .arg(bytes)
                .memory_max(32 << 20)
        };
        block(16 << 20).run(LONG).unwrap();
        block(64 << 20).run(LONG).unwrap_err();
        let sleeper = Launch::new("sleep", run.join("log")).arg("1000").memory_max(32 << 20);
        let child = sleeper.spawn().unwrap();
        wait_until(LONG, "the limit", || child.memory_max() == Some(32 << 20)).unwrap();
    }

    #[test]
    fn waiting_ends_with_the_process_or_the_patience() {
        let (_run, child) = sleeper();
        assert_eq!(child.wait_timeout(Duration::from_millis(50)).unwrap(), None);
        child.signal(Signal::Term).unwrap();
        assert!(!child.wait_timeout(LONG).unwrap().unwrap().success());
    }

    #[test]
    fn missing_tools_are_named_with_their_packages() {
        let error = require(&[("sh", "dash"), ("no-a", "a"), ("no-b", "b")]).unwrap_err();
        let expected = "not installed: no-a, no-b; on Debian: apt-get install a b";
        assert_eq!(error.to_string(), expected);
    }
}
