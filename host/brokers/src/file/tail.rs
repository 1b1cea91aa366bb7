//! The end of an output file: what a killed process left there.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use super::record::id_of;

const BLOCK: u64 = 64 * 1024;

/// Removes what follows the last line's end: a line that was being written when the process
/// was killed. Returns how many bytes that was.
pub(super) fn mend(file: &mut File) -> io::Result<u64> {
    let length = file.metadata()?.len();
    let whole = line_start(file, length, 0)?;
    if whole < length {
        file.set_len(whole)?;
        file.sync_data()?;
    }
    Ok(length - whole)
}

/// The ids of the last `count` lines, oldest first, of a file that ends in a whole line.
pub(super) fn last_ids(file: &mut File, count: usize) -> io::Result<Vec<String>> {
    let length = file.metadata()?.len();
    let start = line_start(file, length, count)?;
    file.seek(SeekFrom::Start(start))?;
    let mut lines = BufReader::with_capacity(BLOCK as usize, file);
    let mut ids = Vec::new();
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line)? > 0 {
        ids.extend(id_of(&line));
        line.clear();
    }
    Ok(ids)
}

/// Where the last `count` whole lines before `end` start; with 0, where the last of them ends.
fn line_start(file: &mut File, end: u64, count: usize) -> io::Result<u64> {
    let mut newlines = count + 1;
    let mut block = vec![0; BLOCK as usize];
    let mut block_end = end;
    while block_end > 0 {
        let start = block_end.saturating_sub(BLOCK);
        let bytes = &mut block[..(block_end - start) as usize];
        file.seek(SeekFrom::Start(start))?;
        file.read_exact(bytes)?;
        for at in memchr::memrchr_iter(b'\n', bytes) {
            newlines -= 1;
            if newlines == 0 {
                return Ok(start + at as u64 + 1);
            }
        }
        block_end = start;
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn content(file: &mut File) -> Vec<u8> {
        let mut content = Vec::new();
        file.seek(SeekFrom::Start(0)).unwrap();
        file.read_to_end(&mut content).unwrap();
        content
    }

    #[test]
    fn only_a_torn_line_is_removed() {
        let long = vec![b'x'; 3 * BLOCK as usize];
        let cases: [(Vec<u8>, usize); 6] = [
            (b"".to_vec(), 0),
            (b"a\n".to_vec(), 2),
            (b"a\nb\n".to_vec(), 4),
            (b"a\nb".to_vec(), 2),
            (b"torn".to_vec(), 0),
            ([b"a\n".as_slice(), &long].concat(), 2),
        ];
        for (before, kept) in cases {
            let mut file = file(&before);
            assert_eq!(mend(&mut file).unwrap(), (before.len() - kept) as u64);
            assert_eq!(content(&mut file), before[..kept]);
        }
    }

    #[test]
    fn the_last_ids_are_found_across_blocks() {
        let line = |n: usize| format!("{{\"id\":\"{n}\",\"body\":\"{}\"}}\n", "x".repeat(n % 300));
        let all: String = (0..2000).map(line).collect();
        let mut file = file(all.as_bytes());
        for count in [0, 1, 999, 2000, 5000] {
            let ids = last_ids(&mut file, count).unwrap();
            let first = 2000_usize.saturating_sub(count);
            let expected: Vec<_> = (first..2000).map(|n| n.to_string()).collect();
            assert_eq!(ids, expected);
        }
    }

    #[test]
    fn lines_without_an_id_are_passed_over() {
        let mut file = file(b"hello\n{\"id\":\"1\"}\n\n{\"id\":2}\n");
        assert_eq!(last_ids(&mut file, 10).unwrap(), ["1"]);
    }
}
