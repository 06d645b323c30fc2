//! Server binaries: fetched once with Maven, checked, unpacked into a cache, used offline after.
//!
//! Everything is pinned by version and by SHA-256, so every machine tests against the same bytes.
//! Maven is called by artifact name and follows its own settings, mirrors included.
//!
//! A cache entry is made in a temporary directory and renamed into place when it is complete, under
//! a lock: test processes that start together make it once, and a killed one leaves no half of it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail, ensure};
use sha2::{Digest, Sha256};

use crate::process::{own_uid, require};

/// The majors that the lab can start.
pub const POSTGRES_MAJORS: [u16; 5] = [14, 15, 16, 17, 18];

/// One jar with the binaries of one Postgres for one processor.
#[derive(Clone, Copy, Debug)]
struct PostgresJar {
    major: u16,
    /// As `std::env::consts::ARCH` has it.
    arch: &'static str,
    version: &'static str,
    sha256: &'static str,
}

const fn jar(
    major: u16,
    arch: &'static str,
    version: &'static str,
    sha256: &'static str,
) -> PostgresJar {
    PostgresJar { major, arch, version, sha256 }
}

#[rustfmt::skip]
const POSTGRES_JARS: [PostgresJar; 10] = [
    jar(14, "x86_64", "14.24.0", "2722d05eb22c671104c9918d59d8ba9f5656898f5452a0207bb4cce21eef5dc4"),
    jar(15, "x86_64", "15.19.0", "95f0b66fe72d4ca66c815773c44cb1196ea38552463e89a35f18114b3ed1565f"),
    jar(16, "x86_64", "16.15.0", "653abc065c682b85d3da50168fb95dc524bd85426cdec9ce3695a550ef431df2"),
    jar(17, "x86_64", "17.11.0", "0dd7b72b6f335b8ecfb355fa24c5781e8a93edd09880bb77eb52ebbf29b3e96d"),
    jar(18, "x86_64", "18.6.0", "008ee189eaa7ca2b58bd01dd950291e638b998392cf982297acd4779ec898ac1"),
    jar(14, "aarch64", "14.23.0", "a55b93f67051a602be033b298461709f88789dccee925236f2fb5a4eaf9dd526"),
    jar(15, "aarch64", "15.19.0", "95baf4bd4af31b91b3050118df59388ed0064756b556b850669e0300aa7b9911"),
    jar(16, "aarch64", "16.15.0", "f846a9989d686b7977d6eca9bc9d8b2b69e3f70c7eb60e032197d9c574a6136c"),
    jar(17, "aarch64", "17.11.0", "8b042e0ea418b1927d95399207950da0734d27fe01e29503ade3bdc464ad4c2b"),
    jar(18, "aarch64", "18.6.0", "5f54e016723afa6213925a8acb939bac52944b1d348f65c7a20f0cd2928c31be"),
];

const KAFKA_VERSION: &str = "4.3.1";

/// Over the lines `SHA256  FILE`, sorted by file, of every jar that Kafka needs.
const KAFKA_SHA256: &str = "c3ab63209f2582ea037a108aee3ae58bd3b639a4816f72600e678629e15f8369";

const DEBEZIUM_VERSION: &str = "3.6.0.Final";

/// Of the archive.
const DEBEZIUM_SHA256: &str = "901ce7b0b75b4dafaac4aa57dac6dfcad5937f96fb7159e25d22759bbf5192e4";

const APICURIO_VERSION: &str = "2.6.13.Final";

/// Of the archive.
const APICURIO_SHA256: &str = "3cda1b34aa020fb4ac4dd6a66018d757e81e437f97e20a1f92d366b70091c6ba";

/// Programs and the Debian packages that have them.
const FETCHERS: &[(&str, &str)] = &[("mvn", "maven"), ("java", "default-jre-headless")];

const MAVEN_COPY: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies";

const MAVEN_COPY_ONE: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy";

/// Where the servers are kept: `$WALRELAY_LAB_CACHE`, or `walrelay-lab` in the user's cache.
///
/// Root's cache is `/var/cache`, because the servers run as nobody then, who may not enter root's
/// home directory.
pub fn cache_dir() -> Result<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(cache) = variable("WALRELAY_LAB_CACHE") {
        return Ok(std::path::absolute(cache)?);
    }
    let user_cache = match (variable("XDG_CACHE_HOME"), variable("HOME")) {
        (Some(cache), _) => PathBuf::from(cache),
        (None, _) if own_uid()? == 0 => PathBuf::from("/var/cache"),
        (None, Some(home)) => Path::new(&home).join(".cache"),
        (None, None) => bail!("set WALRELAY_LAB_CACHE, XDG_CACHE_HOME or HOME"),
    };
    Ok(user_cache.join("walrelay-lab"))
}

/// Fetches everything now, so that nothing needs the network later.
pub fn all() -> Result<()> {
    for major in POSTGRES_MAJORS {
        postgres(major)?;
    }
    kafka().map(drop)
}

/// The directory of one Postgres: `bin/postgres`, `bin/initdb`, and `lib` with pgoutput.
pub fn postgres(major: u16) -> Result<PathBuf> {
    let arch = std::env::consts::ARCH;
    let jar = POSTGRES_JARS
        .iter()
        .find(|jar| jar.major == major && jar.arch == arch)
        .with_context(|| format!("the lab has no Postgres {major} for {arch}"))?;
    let name = format!("postgres-{}", jar.version);
    provide(&name, jar.sha256, |folder| unpack_postgres(*jar, folder))
        .with_context(|| format!("get Postgres {}", jar.version))
}

/// The directory of Kafka's jars, all of them one class path.
pub fn kafka() -> Result<PathBuf> {
    provide(&format!("kafka-{KAFKA_VERSION}"), KAFKA_SHA256, fetch_kafka)
        .with_context(|| format!("get Kafka {KAFKA_VERSION}"))
}

/// The directory of Debezium Server, 780 MB of download, for what is run by hand only: the
/// benchmark, and the comparison with walrelay.
pub fn debezium() -> Result<PathBuf> {
    provide(&format!("debezium-{DEBEZIUM_VERSION}"), DEBEZIUM_SHA256, fetch_debezium)
        .with_context(|| format!("get Debezium Server {DEBEZIUM_VERSION}"))
        .map(|folder| folder.join("debezium-server"))
}

/// The jar of Apicurio Registry, 142 MB of download.
pub fn apicurio() -> Result<PathBuf> {
    provide(&format!("apicurio-{APICURIO_VERSION}"), APICURIO_SHA256, fetch_apicurio)
        .with_context(|| format!("get Apicurio Registry {APICURIO_VERSION}"))
        .map(|folder| folder.join(format!("apicurio-registry-app-{APICURIO_VERSION}-runner.jar")))
}

/// The directory `name` of the cache, made by `make` unless it is there with the same `pin`.
pub(crate) fn provide(
    name: &str,
    pin: &str,
    make: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let cache = cache_dir()?;
    let folder = cache.join(name);
    let complete = || fs::read_to_string(folder.join(".complete")).is_ok_and(|text| text == pin);
    if complete() {
        return Ok(folder);
    }
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let lock = File::create(cache.join(format!("{name}.lock")))?;
    lock.lock().with_context(|| format!("lock {name} in {}", cache.display()))?;
    if complete() {
        return Ok(folder);
    }
    let unfinished = cache.join(format!("{name}.unfinished"));
    remove(&unfinished)?;
    remove(&folder)?;
    fs::create_dir_all(&unfinished)?;
    make(&unfinished)?;
    fs::write(unfinished.join(".complete"), pin)?;
    fs::rename(&unfinished, &folder).with_context(|| format!("name {}", folder.display()))?;
    Ok(folder)
}

/// An error unless every user may enter `folder`: servers that run as nobody live in it.
pub(crate) fn ensure_open_to_all(folder: &Path) -> Result<()> {
    for ancestor in folder.ancestors() {
        let mode = fs::metadata(ancestor)?.permissions().mode();
        ensure!(
            mode & 0o001 != 0,
            "Postgres runs as nobody, who may not enter {} (mode {:o}); set WALRELAY_LAB_CACHE to \
             another directory",
            ancestor.display(),
            mode & 0o7777
        );
    }
    Ok(())
}

fn unpack_postgres(wanted: PostgresJar, folder: &Path) -> Result<()> {
    let unpackers = [("unzip", "unzip"), ("tar", "tar"), ("xz", "xz-utils")];
    require(&[FETCHERS, unpackers.as_slice()].concat())?;
    let processor = if wanted.arch == "aarch64" { "arm64v8" } else { "amd64" };
    let artifact = format!("embedded-postgres-binaries-linux-{processor}");
    let downloads = folder.join("download");
    copy_dependencies(&[("io.zonky.test.postgres", &artifact, wanted.version)], &downloads)?;
    let jar = downloads.join(format!("{artifact}-{}.jar", wanted.version));
    expect_sha256(&artifact, wanted.sha256, &sha256_of_file(&jar)?)?;
    run(Command::new("unzip").arg("-q").arg(&jar).args(["*.txz", "-d"]).arg(&downloads))?;
    let archive = files_of(&downloads)?
        .into_iter()
        .find(|path| path.extension().is_some_and(|extension| extension == "txz"))
        .context("the jar holds no archive")?;
    run(Command::new("tar").args(["--no-same-owner", "-xJf"]).arg(&archive).arg("-C").arg(folder))?;
    remove(&downloads)
}

fn fetch_kafka(folder: &Path) -> Result<()> {
    let artifacts = [
        ("org.apache.kafka", "kafka_2.13", KAFKA_VERSION),
        ("org.apache.kafka", "kafka-tools", KAFKA_VERSION),
        // Without it Kafka writes no log at all, not even why it could not start.
        ("org.slf4j", "slf4j-simple", "1.7.36"),
    ];
    copy_dependencies(&artifacts, folder)?;
    let mut listing = String::new();
    for jar in files_of(folder)? {
        let name = jar.file_name().unwrap_or_default().to_string_lossy().into_owned();
        listing.push_str(&format!("{}  {name}\n", sha256_of_file(&jar)?));
    }
    let found = hex(&Sha256::digest(&listing));
    expect_sha256("Kafka's jars", KAFKA_SHA256, &found).with_context(|| listing)
}

fn fetch_debezium(folder: &Path) -> Result<()> {
    require(&[FETCHERS, &[("tar", "tar"), ("gzip", "gzip")]].concat())?;
    let (downloads, repository) = (folder.join("download"), folder.join("repository"));
    // Maven reads an artifact's description with its parent's, and the parent of this one was never
    // published. A parent that says nothing is as good, in a repository that only this call sees.
    let parent = repository.join("io/debezium/debezium-server").join(DEBEZIUM_VERSION);
    fs::create_dir_all(&parent)?;
    let description = format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>io.debezium</groupId>\
         <artifactId>debezium-server</artifactId><version>{DEBEZIUM_VERSION}</version>\
         <packaging>pom</packaging></project>"
    );
    fs::write(parent.join(format!("debezium-server-{DEBEZIUM_VERSION}.pom")), description)?;
    let artifact = format!("io.debezium:debezium-server-dist:{DEBEZIUM_VERSION}:tar.gz");
    run(
        copy_one(&artifact, &downloads).arg(format!("-Dmaven.repo.local={}", repository.display()))
    )?;
    let archive = downloads.join(format!("debezium-server-dist-{DEBEZIUM_VERSION}.tar.gz"));
    expect_sha256("Debezium Server", DEBEZIUM_SHA256, &sha256_of_file(&archive)?)?;
    run(Command::new("tar").args(["--no-same-owner", "-xzf"]).arg(&archive).arg("-C").arg(folder))?;
    remove(&downloads)?;
    remove(&repository)
}

fn fetch_apicurio(folder: &Path) -> Result<()> {
    require(&[FETCHERS, &[("tar", "tar"), ("gzip", "gzip")]].concat())?;
    let downloads = folder.join("download");
    let artifact = format!("io.apicurio:apicurio-registry-app:{APICURIO_VERSION}:tar.gz:all");
    run(&mut copy_one(&artifact, &downloads))?;
    let archive = downloads.join(format!("apicurio-registry-app-{APICURIO_VERSION}-all.tar.gz"));
    expect_sha256("Apicurio Registry", APICURIO_SHA256, &sha256_of_file(&archive)?)?;
    run(Command::new("tar").args(["--no-same-owner", "-xzf"]).arg(&archive).arg("-C").arg(folder))?;
    remove(&downloads)
}

/// The call of Maven that copies one artifact, and nothing that it depends on, into `folder`.
fn copy_one(artifact: &str, folder: &Path) -> Command {
    let mut command = Command::new("mvn");
    command
        .args(["--batch-mode", "--quiet", "-Dstyle.color=never", MAVEN_COPY_ONE])
        .arg(format!("-Dartifact={artifact}"))
        .arg(format!("-DoutputDirectory={}", folder.display()));
    command
}

/// Lets Maven copy the artifacts and all that they depend on into `folder`.
fn copy_dependencies(artifacts: &[(&str, &str, &str)], folder: &Path) -> Result<()> {
    require(FETCHERS)?;
    let dependencies: String = artifacts
        .iter()
        .map(|(group, artifact, version)| {
            format!(
                "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
                 <version>{version}</version></dependency>"
            )
        })
        .collect();
    let project = format!(
        "<project><modelVersion>4.0.0</modelVersion><groupId>lab</groupId>\
         <artifactId>lab</artifactId><version>1</version><packaging>pom</packaging>\
         <dependencies>{dependencies}</dependencies></project>"
    );
    let project_folder = folder.with_extension("maven");
    fs::create_dir_all(&project_folder)?;
    let project_file = project_folder.join("pom.xml");
    fs::write(&project_file, project)?;
    run(Command::new("mvn")
        .args(["--batch-mode", "--quiet", "-Dstyle.color=never", "--file"])
        .arg(&project_file)
        .arg(MAVEN_COPY)
        .arg(format!("-DoutputDirectory={}", folder.display())))?;
    remove(&project_folder)
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {program}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(anyhow!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&said)))
}

/// The files directly in `folder`, sorted by name.
fn files_of(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", folder.display()))
        }
        _ => Ok(()),
    }
}

fn sha256_of_file(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    Ok(hex(&Sha256::digest(bytes)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn expect_sha256(what: &str, expected: &str, found: &str) -> Result<()> {
    ensure!(expected == found, "{what}: SHA-256 is {found}, the lab expects {expected}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_major_is_pinned_once_for_each_processor() {
        for major in POSTGRES_MAJORS {
            for arch in ["x86_64", "aarch64"] {
                let jars = POSTGRES_JARS.iter().filter(|j| (j.major, j.arch) == (major, arch));
                let versions: Vec<&str> = jars.map(|jar| jar.version).collect();
                assert_eq!(versions.len(), 1, "{major} {arch}");
                assert!(versions[0].starts_with(&format!("{major}.")));
            }
        }
    }

    #[test]
    fn other_bytes_than_the_pinned_ones_are_refused() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(hex(&Sha256::digest("")), empty);
        assert!(expect_sha256("nothing", empty, &hex(&Sha256::digest("x"))).is_err());
    }
}
