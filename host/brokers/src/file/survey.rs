//! What there is to say of files, which are neither read nor written.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

use semel_core::Finding;

use super::{FileError, FileName};

/// Looks at a file that is to be read.
pub fn examine_input(input: &FileName) -> Finding {
    let FileName::Path(path) = input else {
        return Finding::unchecked("file", "stdin is read when a host runs");
    };
    let refused = |source: io::Error| {
        let path = path.clone();
        Finding::failure("file", FileError::Input { path, source }.to_string())
            .advise("name another, or let this user read it")
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => refused(ErrorKind::IsADirectory.into()),
        Ok(metadata) if metadata.is_file() => match File::open(path) {
            Ok(_) => Finding::good(
                "file",
                format!("`{input}` can be read: {} bytes", metadata.len()),
            ),
            Err(error) => refused(error),
        },
        // To open a pipe is to wait for its other end.
        Ok(_) => Finding::unchecked("file", format!("`{input}` is no regular file")),
        Err(error) => refused(error),
    }
}

/// Looks at a file that is to be written.
pub fn examine_output(output: &FileName) -> Finding {
    let FileName::Path(path) = output else {
        return Finding::good("file", "what is published goes to stdout");
    };
    let refused = |source: io::Error| {
        let path = path.clone();
        Finding::failure("file", FileError::Output { path, source }.to_string())
            .advise("name another, or let this user write it")
    };
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => refused(ErrorKind::IsADirectory.into()),
        Ok(metadata) if metadata.is_file() => match OpenOptions::new().append(true).open(path) {
            Ok(_) => Finding::good("file", format!("`{output}` can be written")),
            Err(error) => refused(error),
        },
        Ok(_) => Finding::unchecked("file", format!("`{output}` is no regular file")),
        Err(error) if error.kind() == ErrorKind::NotFound && directory(path).is_dir() => {
            Finding::note("file", format!("`{output}` is made by the next run"))
        }
        Err(error) => refused(error),
    }
}

fn directory(file: &Path) -> &Path {
    match file.parent() {
        Some(directory) if directory != Path::new("") => directory,
        _ => Path::new("."),
    }
}
