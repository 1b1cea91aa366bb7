//! Where the built binary and plugins are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The directory of the build that this executable belongs to: `target/release`.
pub fn build_dir() -> Result<PathBuf> {
    let executable = env::current_exe().context("this executable has no path")?;
    let mut dir = executable.parent().context("it is in no directory")?;
    // Tests are one directory below what is built for users.
    if dir.file_name().is_some_and(|name| name == "deps") {
        dir = dir.parent().context("`deps` is in no directory")?;
    }
    Ok(dir.to_owned())
}

/// The host: `target/release/semel`.
pub fn semel() -> Result<PathBuf> {
    program("semel")
}

/// The host with its crash points armed: `target/release/semel-under-test`.
pub fn semel_under_test() -> Result<PathBuf> {
    program("semel-under-test")
}

fn program(name: &str) -> Result<PathBuf> {
    let path = build_dir()?.join(name);
    ensure!(
        path.is_file(),
        "there is no host to run at {}: build it with `make build`",
        path.display()
    );
    Ok(path)
}

/// An example's plugin file: `plugins/NAME.wasm`, or in `$SEMEL_PLUGINS`.
pub fn plugin(name: &str) -> Result<PathBuf> {
    let dir = env::var_os("SEMEL_PLUGINS").map_or_else(|| repository().join("plugins"), rooted);
    file_in(&dir, name)
}

/// A test plugin's file: `target/test-plugins/NAME.wasm`, or in `$SEMEL_TEST_PLUGINS`.
pub fn test_plugin(name: &str) -> Result<PathBuf> {
    let dir = match env::var_os("SEMEL_TEST_PLUGINS") {
        Some(dir) => rooted(dir),
        None => {
            let build = build_dir()?;
            let target = build.parent().context("the build is in no directory")?;
            target.join("test-plugins")
        }
    };
    file_in(&dir, name)
}

/// The top of the repository.
pub fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests.parent().unwrap_or(tests).to_owned()
}

/// The build script takes relative paths from the top of the repository, and so do we.
fn rooted(dir: impl AsRef<Path>) -> PathBuf {
    repository().join(dir)
}

fn file_in(dir: &Path, name: &str) -> Result<PathBuf> {
    let path = dir.join(format!("{name}.wasm"));
    ensure!(
        path.is_file(),
        "there is no plugin at {}: build it with `make plugins`",
        path.display()
    );
    Ok(path)
}
