//! What there is to say of a store's directory and file, which are only read.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use redb::{DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTableMetadata};
use semel_core::{Finding, PluginName};

use super::buckets::AllBuckets;
use super::reader::Reader;
use super::{Broken, FILE, FORMAT, tables};
use crate::examine::counts;

/// File systems whose locks or syncs reach over a network, as far as they keep what they promise.
const REMOTE: [&str; 9] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "9p",
    "ceph",
    "glusterfs",
    "fuse.sshfs",
    "afs",
];

/// File systems that are gone with the machine or the container.
const FLEETING: [&str; 3] = ["tmpfs", "ramfs", "overlay"];

pub(super) fn examine(directory: &Path, plugins: &[PluginName]) -> Vec<Finding> {
    let path = directory.join(FILE);
    let mut findings = vec![file(directory, &path)];
    findings.extend(file_system(directory));
    if path.exists() {
        findings.extend(content(&path, plugins));
    }
    findings.push(Finding::good(
        "clock",
        "this machine's own: there is no server",
    ));
    findings
}

fn file(directory: &Path, path: &Path) -> Finding {
    // Opened for writing, and not written to.
    let opened = OpenOptions::new().read(true).write(true).open(path);
    match opened.map_err(|error| error.kind()) {
        Ok(_) => Finding::good("file", format!("{} can be written", path.display())),
        Err(ErrorKind::NotFound) => match nearest(directory) {
            Some(above) if above.is_dir() => Finding::unchecked(
                "file",
                format!(
                    "there is no {} yet, and whether it can be made in {} shows when the first \
                     run makes it",
                    path.display(),
                    above.display()
                ),
            ),
            _ => Finding::failure("file", format!("{} can't be made", directory.display()))
                .advise("give another directory, as in `redb:./semel-data`"),
        },
        Err(kind) => Finding::failure(
            "file",
            format!("{} can't be opened for writing ({kind})", path.display()),
        )
        .advise("give its owner as the user of the host, or another directory"),
    }
}

/// The directory, or the first above it that is there.
fn nearest(directory: &Path) -> Option<PathBuf> {
    let directory = std::path::absolute(directory).ok()?;
    let mut above = directory.ancestors();
    above.find(|path| path.exists()).map(Path::to_owned)
}

/// What kind of file system the directory is on, where the system tells.
fn file_system(directory: &Path) -> Option<Finding> {
    const SUBJECT: &str = "file system";
    let place = nearest(directory)?.canonicalize().ok()?;
    let Ok(mounts) = fs::read_to_string("/proc/self/mounts") else {
        return Some(Finding::unchecked(SUBJECT, "this system does not tell"));
    };
    let kind = kind_of(&mounts, &place)?;
    Some(if REMOTE.contains(&kind) {
        Finding::warning(
            SUBJECT,
            format!("it is on {kind}, whose locks and syncs may not hold what redb rests on"),
        )
        .advise("take a disk of this machine, or Redis or a database as the store")
    } else if FLEETING.contains(&kind) {
        Finding::warning(
            SUBJECT,
            format!("it is on {kind}, and gone with this machine or container"),
        )
        .advise("take a disk, or a volume, that stays")
    } else {
        Finding::good(SUBJECT, format!("it is on {kind}"))
    })
}

/// The kind of file system at a place, by the last mount that is above it most closely.
fn kind_of<'m>(mounts: &'m str, place: &Path) -> Option<&'m str> {
    let mounts = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(1);
        // Blanks are written as octal numbers.
        let point = fields.next()?.replace("\\040", " ");
        let depth = Path::new(&point).components().count();
        place.starts_with(&point).then_some((depth, fields.next()?))
    });
    mounts.max_by_key(|(depth, _)| *depth).map(|(_, kind)| kind)
}

fn content(path: &Path, plugins: &[PluginName]) -> Vec<Finding> {
    const SUBJECT: &str = "content";
    let database = match ReadOnlyDatabase::open(path) {
        Ok(database) => database,
        Err(DatabaseError::DatabaseAlreadyOpen) => {
            return vec![
                Finding::warning(
                    "lock",
                    "another process has it open, as a running host does: a second one would be \
                     refused, and its content was not checked",
                )
                .advise("stop that one first to look inside or to start another"),
            ];
        }
        Err(DatabaseError::RepairAborted) => {
            return vec![Finding::unchecked(
                SUBJECT,
                "the last host was killed, and the next one puts the file in order when it opens it",
            )];
        }
        Err(error) => {
            return vec![
                Finding::failure(SUBJECT, format!("it can't be read: {error}"))
                    .advise("restore it from a backup, or give another directory"),
            ];
        }
    };
    match look(&database, plugins) {
        Ok(findings) => findings,
        Err(Broken::Redb(redb::Error::TableDoesNotExist(table))) => vec![Finding::unchecked(
            SUBJECT,
            format!("it has no table `{table}` yet: the next host makes it"),
        )],
        Err(broken) => vec![Finding::failure(SUBJECT, broken.to_string())],
    }
}

fn look(database: &ReadOnlyDatabase, plugins: &[PluginName]) -> Result<Vec<Finding>, Broken> {
    let transaction = database.begin_read()?;
    let format = transaction.open_table(tables::META)?.get("format")?;
    match format.map(|format| format.value()) {
        Some(FORMAT) => {}
        other => return Err(Broken::Format(other.unwrap_or(0))),
    }
    let dead = transaction.open_table(tables::DEAD)?.len()?;
    let reader = Reader {
        transaction,
        buckets: &AllBuckets::default(),
    };
    let parked = plugins
        .iter()
        .map(|plugin| Ok((plugin, reader.parked(plugin)?.0)))
        .collect::<Result<Vec<_>, Broken>>()?;
    let mut findings = vec![Finding::good(
        "format",
        format!("{FORMAT}, as this semel has it"),
    )];
    findings.extend(counts(reader.outbox_len()?, dead, &parked));
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_mount_counts() {
        let mounts = "\
/dev/a / ext4 rw 0 0
b /srv nfs4 rw 0 0
c /srv/my\\040disk xfs rw 0 0
d /srv tmpfs rw 0 0";
        let kind = |place| kind_of(mounts, Path::new(place));
        assert_eq!(kind("/home/x"), Some("ext4"));
        assert_eq!(kind("/srv/data"), Some("tmpfs"));
        assert_eq!(kind("/srv/my disk/data"), Some("xfs"));
        assert_eq!(kind("/srvx"), Some("ext4"));
    }
}
