//! The cache's directory and its key: readable and writable by the host's user alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

type Key = [u8; blake3::KEY_LEN];

/// Creates or checks the directory and gives its key.
pub(super) fn prepare(dir: &Path) -> Result<Key, String> {
    match DirBuilder::new().mode(0o700).recursive(true).create(dir) {
        Ok(()) => {}
        Err(error) => return Err(format!("it can't be created: {error}")),
    }
    let probe = dir.join(format!("probe-{:016x}", rand::random::<u64>()));
    let user = owner_of_new_file(&probe).map_err(|error| {
        format!("it can't be written to: {error}. Name another directory, or run without a cache")
    })?;
    check(dir, user)?;
    read_or_create_key(&dir.join("key"), user)
}

fn check(path: &Path, user: u32) -> Result<(), String> {
    let shown = path.display();
    let found = fs::symlink_metadata(path).map_err(|error| format!("{shown}: {error}"))?;
    if found.file_type().is_symlink() {
        return Err(format!(
            "{shown} is a symbolic link: name the directory itself"
        ));
    }
    if found.uid() != user {
        return Err(format!(
            "{shown} belongs to user {}, and this process is user {user}: whoever owns it could \
             run code in the host. Name a directory of the host's own",
            found.uid()
        ));
    }
    if found.mode() & 0o022 != 0 {
        return Err(format!(
            "others may write to {shown}, and so could run code in the host. Type `chmod go-w \
             {shown}`, and delete what is in it"
        ));
    }
    Ok(())
}

/// Which user this process is, by what a file of its own belongs to.
fn owner_of_new_file(path: &Path) -> io::Result<u32> {
    let file = create_new(path)?;
    let owner = file.metadata().map(|metadata| metadata.uid());
    fs::remove_file(path)?;
    owner
}

fn read_or_create_key(path: &Path, user: u32) -> Result<Key, String> {
    if !path.exists() {
        let key: Key = rand::random();
        // Another host may do the same at this moment: the first link wins.
        let made = write_new(path, &key);
        if let Err(error) = made
            && error.kind() != ErrorKind::AlreadyExists
        {
            return Err(format!("its key can't be written: {error}"));
        }
    }
    check(path, user)?;
    let mut key = Key::default();
    let mut file = File::open(path).map_err(|error| format!("its key can't be read: {error}"))?;
    match file.read_exact(&mut key) {
        Ok(()) => Ok(key),
        Err(_) => Err(format!(
            "its key {} is damaged: delete the directory, it is filled again",
            path.display()
        )),
    }
}

/// Writes a file so that it is there whole or not at all, for this user alone.
pub(super) fn write_privately(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_temporary(path, bytes)?;
    fs::rename(&temporary, path).inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// As [`write_privately`], but never in place of a file that is there.
fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = write_temporary(path, bytes)?;
    let linked = fs::hard_link(&temporary, path);
    fs::remove_file(&temporary)?;
    linked
}

fn write_temporary(path: &Path, bytes: &[u8]) -> io::Result<std::path::PathBuf> {
    let temporary = path.with_extension(format!("new-{:016x}", rand::random::<u64>()));
    let mut file = create_new(&temporary)?;
    match file.write_all(bytes).and_then(|()| file.sync_all()) {
        Ok(()) => Ok(temporary),
        Err(error) => {
            drop(fs::remove_file(&temporary));
            Err(error)
        }
    }
}

fn create_new(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
}
