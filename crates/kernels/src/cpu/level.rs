//! Which vector instructions are used, decided once at start.
//!
//! The law: one binary runs everywhere; a level is only used on a machine that has all its instructions.

use super::simd::Isa;
use crate::device::{DeviceError, Result};
use std::fmt;
use std::str::FromStr;

/// A set of vector instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// None: plain loops.
    Scalar,
    /// AArch64's Advanced SIMD.
    Neon,
    /// The same and dot products of bytes.
    NeonDotprod,
    /// AVX2, FMA and F16C.
    Avx2,
    /// The same and AVX-VNNI (dot products of bytes).
    AvxVnni,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
    /// The same and VNNI (dot products of bytes).
    Avx512Vnni,
    /// The same and AMX (products of whole tiles of bytes), on Linux.
    Amx,
}

/// Names as in `SGLANG_SIMD`.
const NAMES: [(Level, &str); 8] = [
    (Level::Scalar, "scalar"),
    (Level::Neon, "neon"),
    (Level::NeonDotprod, "neon-dotprod"),
    (Level::Avx2, "avx2"),
    (Level::AvxVnni, "avxvnni"),
    (Level::Avx512, "avx512"),
    (Level::Avx512Vnni, "avx512vnni"),
    (Level::Amx, "amx"),
];

impl Level {
    /// The levels of this machine, from the plainest to the best.
    pub fn available() -> Vec<Level> {
        NAMES.iter().map(|n| n.0).filter(|l| l.is_available()).collect()
    }

    /// `wanted` where the machine has it, else the best it has.
    pub(super) fn resolve(wanted: Option<Level>) -> Result<Level> {
        let available = Level::available();
        match wanted {
            None => Ok(available[available.len() - 1]),
            Some(level) if available.contains(&level) => Ok(level),
            Some(level) => {
                let names: Vec<String> = available.iter().map(Level::to_string).collect();
                let message = format!("this machine has no {level}; it has {}", names.join(", "));
                Err(DeviceError::Unsupported(message))
            }
        }
    }

    /// Whether BF16 weights are multiplied as such.
    pub(super) fn has_half_tiles(self) -> bool {
        self == Level::Amx
    }

    fn is_available(self) -> bool {
        Isa::detect(self).is_some()
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|n| n.0 == *self).map_or("", |n| n.1);
        f.pad(name)
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(name: &str) -> std::result::Result<Level, String> {
        let found = NAMES.iter().find(|n| n.1.eq_ignore_ascii_case(name)).map(|n| n.0);
        found.ok_or_else(|| {
            let names: Vec<&str> = NAMES.iter().map(|n| n.1).collect();
            format!("unknown SIMD level {name:?}; known are {}", names.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_levels_are_one_to_one() {
        for (level, name) in NAMES {
            assert_eq!((level.to_string().as_str(), name.parse()), (name, Ok(level)));
        }
        let error = "sse9".parse::<Level>().unwrap_err();
        assert_eq!(
            error,
            "unknown SIMD level \"sse9\"; known are scalar, neon, neon-dotprod, avx2, avxvnni, avx512, avx512vnni, amx"
        );
    }

    #[test]
    fn the_best_available_level_is_taken() {
        let available = Level::available();
        assert_eq!(available[0], Level::Scalar);
        assert_eq!(Level::resolve(None).ok(), available.last().copied());
    }

    #[test]
    fn an_absent_level_is_refused() {
        let absent = NAMES.iter().map(|n| n.0).find(|l| !l.is_available()).expect("no machine has all");
        let error = Level::resolve(Some(absent)).unwrap_err().to_string();
        assert!(error.starts_with(&format!("this machine has no {absent}; it has scalar")), "{error}");
    }
}
