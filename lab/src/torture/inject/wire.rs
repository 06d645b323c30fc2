//! What happens to the way between the relay and a server.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use tokio::net::TcpStream;

use super::Hurt;
use crate::proxy::{CHUNK_BYTES, Stats};
use crate::torture::fault::{Fault, Wire};
use crate::torture::stage::PATIENCE;
use crate::{Direction, Proxy, eventually};

/// Bytes a second of a connection, each way.
const SLOW: u64 = 100_000;

impl Hurt<'_> {
    pub(super) async fn cut(&self, wire: Wire) -> Result<String> {
        let proxies = self.stage.proxies(wire);
        let before = total(proxies, |stats| stats.cuts);
        let done = async || {
            for proxy in proxies {
                proxy.cut().ok()?;
            }
            (total(proxies, |stats| stats.cuts) > before).then_some(())
        };
        eventually(PATIENCE, "a connection to cut", done).await?;
        Ok(format!("{} connections", total(proxies, |stats| stats.cuts) - before))
    }

    pub(super) async fn wire(&self, wire: Wire) -> Result<String> {
        let proxies = self.stage.proxies(wire);
        // A fault of a wire that nobody uses shows nothing.
        let open = || total(proxies, |stats| stats.open);
        let used = async || Some(open()).filter(|open| *open > 0);
        let open = eventually(PATIENCE, "a connection to hurt", used).await?;
        let evidence = match self.fault {
            Fault::StallToServer(_) => self.dark(proxies, Direction::ToServer).await,
            Fault::StallToClient(_) => self.dark(proxies, Direction::ToClient).await,
            Fault::HalfOpen(_) | Fault::Refused(_) => self.dark(proxies, Direction::Both).await,
            Fault::OneByteWrites(_) => self.crumbled(proxies).await,
            Fault::Delay(_) => self.jitter(proxies).await,
            Fault::Throttle(_) => self.throttled(proxies).await,
            other => bail!("{other} is no fault of a wire"),
        };
        proxies.iter().try_for_each(Proxy::pass)?;
        Ok(format!("{open} connections open, {}", evidence?))
    }

    /// Nothing passes that way for as long as it lasts; afterwards it does again.
    async fn dark(&self, proxies: &[Proxy], direction: Direction) -> Result<String> {
        let passed = || total(proxies, |stats| stats.bytes(direction));
        let cuts = || total(proxies, |stats| stats.cuts);
        let had = cuts();
        for proxy in proxies {
            match self.fault {
                Fault::Refused(_) => proxy.down()?,
                _ => proxy.stall(direction),
            }
        }
        // What is on its way through a proxy when it stalls may still arrive.
        let mut before = passed();
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = passed();
            if now == before {
                break;
            }
            before = now;
        }
        self.last().await;
        let during = passed() - before;
        // A piece that a proxy has read before may be on its way for as long as its reader sleeps.
        let on_their_way = total(proxies, |stats| stats.open) * CHUNK_BYTES as u64;
        ensure!(during <= on_their_way, "{during} bytes passed {direction:?}");
        let cuts = cuts() - had;
        if matches!(self.fault, Fault::Refused(_)) {
            for proxy in proxies {
                let connected = TcpStream::connect(proxy.address()).await;
                ensure!(connected.is_err(), "{} accepts connections", proxy.address());
            }
        } else {
            ensure!(cuts == 0, "{cuts} connections cut");
        }
        proxies.iter().try_for_each(Proxy::pass)?;
        let again = async || passed() > before;
        eventually(PATIENCE, format!("bytes to pass {direction:?} again"), again).await?;
        Ok(format!("no byte passed {direction:?}, {cuts} cut"))
    }

    async fn crumbled(&self, proxies: &[Proxy]) -> Result<String> {
        let singles = || total(proxies, |stats| stats.single_bytes);
        let before = singles();
        for proxy in proxies {
            proxy.one_byte_writes(true);
        }
        self.last().await;
        let some = async || singles() > before;
        eventually(PATIENCE, "a byte by itself", some).await?;
        Ok(format!("{} bytes by themselves", singles() - before))
    }

    /// Times that change all the while.
    async fn jitter(&self, proxies: &[Proxy]) -> Result<String> {
        let delayed = || total(proxies, |stats| stats.delayed);
        let (before, begun) = (delayed(), Instant::now());
        let mut turn = 0_u64;
        while begun.elapsed() < self.lasts || delayed() == before {
            ensure!(begun.elapsed() < self.lasts + PATIENCE, "nothing was delayed");
            turn += 1;
            for proxy in proxies {
                proxy.delay(Duration::from_millis(turn * 7919 % 180));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(format!("{} pieces were late", delayed() - before))
    }

    async fn throttled(&self, proxies: &[Proxy]) -> Result<String> {
        for proxy in proxies {
            proxy.throttle(SLOW);
        }
        self.last().await;
        // Of each connection; many of them may be fast together.
        let rate = || proxies.iter().map(|it| it.stats().throttled_rate).max().unwrap_or(0);
        let told = async || Some(rate()).filter(|rate| *rate > 0);
        let rate = eventually(PATIENCE, "a second of a slow connection", told).await?;
        ensure!(rate <= SLOW, "{rate} bytes a second, which is not throttled");
        Ok(format!("at most {rate} bytes a second"))
    }
}

fn total(proxies: &[Proxy], what: impl Fn(&Stats) -> u64) -> u64 {
    proxies.iter().map(|proxy| what(&proxy.stats())).sum()
}
