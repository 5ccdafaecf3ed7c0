//! Where the entries of a ZIP archive are, as PyTorch writes it: stored, never compressed.
//! Format: PKWARE's APPNOTE.TXT, sections 4.3 and 4.5.3.
//!
//! Law: every range that is returned lies inside the file.

use std::collections::HashMap;
use std::ops::Range;

/// What is wrong with the file.
type Parsed<T> = Result<T, String>;

/// Stands for a number that is kept in the 64-bit extra field.
const ELSEWHERE: u64 = u32::MAX as u64;

/// Entries by name.
pub fn entries(file: &[u8]) -> Parsed<HashMap<String, Range<usize>>> {
    let (mut at, count) = directory(file)?;
    let mut entries = HashMap::new();
    for _ in 0..count {
        if bytes(file, at, 4)? != b"PK\x01\x02" {
            return Err(damaged(at));
        }
        let [name_len, extra_len, comment_len] = [28, 30, 32].map(|field| number(file, at + field, 2));
        let (name_len, extra_len, comment_len) = (name_len? as usize, extra_len? as usize, comment_len? as usize);
        let name = String::from_utf8_lossy(bytes(file, at + 46, name_len)?).into_owned();
        if number(file, at + 10, 2)? != 0 {
            return Err(format!("entry {name} is compressed, which PyTorch never does"));
        }
        let mut wide = Wide::of(bytes(file, at + 46 + name_len, extra_len)?);
        let _whole = wide.or(number(file, at + 24, 4)?)?;
        let (stored, header) = (wide.or(number(file, at + 20, 4)?)?, wide.or(number(file, at + 42, 4)?)?);
        let header = usize::try_from(header).map_err(|e| e.to_string())?;
        let skip = 30 + number(file, offset(header, 26)?, 2)? + number(file, offset(header, 28)?, 2)?;
        let start = offset(header, skip as usize)?;
        let len = usize::try_from(stored).map_err(|e| e.to_string())?;
        bytes(file, start, len)?;
        entries.insert(name, start..start + len);
        at += 46 + name_len + extra_len + comment_len;
    }
    Ok(entries)
}

/// Start of the list of entries and their number.
fn directory(file: &[u8]) -> Parsed<(usize, u64)> {
    let from = file.len().saturating_sub(22 + 0xffff);
    let end = file[from..].windows(4).rposition(|window| window == b"PK\x05\x06");
    let end = from + end.ok_or("is no ZIP archive, as PyTorch has written since 1.6; convert it to safetensors")?;
    let (mut count, mut start) = (number(file, end + 10, 2)?, number(file, end + 16, 4)?);
    let locator = end.checked_sub(20).filter(|&at| file[at..].starts_with(b"PK\x06\x07"));
    if let Some(locator) = locator {
        let wide = usize::try_from(number(file, locator + 8, 8)?).map_err(|e| e.to_string())?;
        (count, start) = (number(file, offset(wide, 32)?, 8)?, number(file, offset(wide, 48)?, 8)?);
    }
    Ok((usize::try_from(start).map_err(|e| e.to_string())?, count))
}

/// The 64-bit extra field, whose numbers stand for those that did not fit, in order.
struct Wide<'a>(&'a [u8]);

impl<'a> Wide<'a> {
    fn of(mut extra: &'a [u8]) -> Self {
        while let Some((&[id, id_high, len, len_high], rest)) = extra.split_first_chunk() {
            let len = usize::from(u16::from_le_bytes([len, len_high])).min(rest.len());
            if (id, id_high) == (1, 0) {
                return Wide(&rest[..len]);
            }
            extra = &rest[len..];
        }
        Wide(&[])
    }

    fn or(&mut self, narrow: u64) -> Parsed<u64> {
        if narrow != ELSEWHERE {
            return Ok(narrow);
        }
        let value = number(self.0, 0, 8)?;
        self.0 = &self.0[8..];
        Ok(value)
    }
}

fn offset(at: usize, by: usize) -> Parsed<usize> {
    at.checked_add(by).ok_or_else(|| damaged(at))
}

fn bytes(file: &[u8], at: usize, len: usize) -> Parsed<&[u8]> {
    file.get(at..).and_then(|rest| rest.get(..len)).ok_or_else(|| damaged(at))
}

/// A little-endian number of `len` bytes.
fn number(file: &[u8], at: usize, len: usize) -> Parsed<u64> {
    Ok(bytes(file, at, len)?.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn damaged(at: usize) -> String {
    format!("is cut off or damaged near byte {at}")
}
