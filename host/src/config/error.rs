//! A configuration that can't be used, shown with the line that is to blame.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What is wrong, by byte offsets.
#[derive(Debug)]
pub struct Fault {
    /// What.
    pub message: String,
    /// Where in the text.
    pub span: Option<Range<usize>>,
}

impl From<toml::de::Error> for Fault {
    fn from(error: toml::de::Error) -> Self {
        Self {
            message: error.message().to_owned(),
            span: error.span(),
        }
    }
}

/// What is wrong, as people look for it.
#[derive(Debug)]
pub struct ConfigError {
    path: PathBuf,
    message: String,
    place: Option<Place>,
}

/// Lines and columns count from 1, columns in characters.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    line: usize,
    column: usize,
    width: usize,
    text: String,
}

impl ConfigError {
    /// Of a fault in `text`, which was read from `path`.
    pub fn new(path: &Path, text: &str, fault: Fault) -> Self {
        Self {
            path: path.to_owned(),
            message: fault.message,
            place: fault.span.map(|span| Place::find(text, &span)),
        }
    }
}

impl Place {
    fn find(text: &str, span: &Range<usize>) -> Self {
        let start = text.floor_char_boundary(span.start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let end = text.floor_char_boundary(span.end.clamp(start, line_end));
        Self {
            line: text[..line_start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            width: text[start..end].chars().count().max(1),
            text: text[line_start..line_end].trim_end_matches('\r').to_owned(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let Some(place) = &self.place else {
            return write!(f, "{path}: {}", self.message);
        };
        let (line, column) = (place.line, place.column);
        let gutter = " ".repeat(line.to_string().len());
        // Tabs are kept under the line, so that the marker stands where a terminal puts it.
        let indent: String = place
            .text
            .chars()
            .take(column - 1)
            .map(|c| if c == '\t' { '\t' } else { ' ' })
            .collect();
        writeln!(f, "{path}:{line}:{column}: {}", self.message)?;
        writeln!(f, "{gutter} |")?;
        writeln!(f, "{line} | {}", place.text)?;
        write!(f, "{gutter} | {indent}{}", "^".repeat(place.width))
    }
}

impl std::error::Error for ConfigError {}
