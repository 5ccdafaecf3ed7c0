//! The key/value part of a GGUF file.
//!
//! Law: a key that is absent is `None`; a key of the wrong type is an error that names it.

use crate::{Error, Result};
use std::collections::HashMap;
use std::path::PathBuf;

/// One value. The many number types of the format are read into the widest of their kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Any integer; beyond i64 it is i64::MAX, which no key means literally.
    Int(i64),
    /// f32 or f64.
    Float(f64),
    /// A truth value.
    Bool(bool),
    /// Text; invalid UTF-8 is replaced.
    Text(String),
    /// An array of integers or truth values.
    Ints(Vec<i64>),
    /// An array of floats.
    Floats(Vec<f32>),
    /// An array of texts.
    Texts(Vec<String>),
}

/// All keys of one file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// The file, for messages.
    pub file: PathBuf,
    /// The keys, e.g. `llama.block_count`.
    pub values: HashMap<String, Value>,
}

impl Metadata {
    /// An error about this file.
    pub fn error(&self, what: impl std::fmt::Display) -> Error {
        Error::load(format!("{}: {what}", self.file.display()))
    }

    /// Makes an absent key an error.
    pub fn need<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(format_args!("key {key} is missing")))
    }

    /// A whole number ≥ 0.
    pub fn size(&self, key: &str) -> Result<Option<usize>> {
        self.read(key, "a whole number ≥ 0", |v| match v {
            Value::Int(n) => usize::try_from(*n).ok(),
            _ => None,
        })
    }

    /// A token id.
    pub fn token(&self, key: &str) -> Result<Option<u32>> {
        self.read(key, "a token id", |v| match v {
            Value::Int(n) => u32::try_from(*n).ok(),
            _ => None,
        })
    }

    /// A number.
    pub fn float(&self, key: &str) -> Result<Option<f32>> {
        self.read(key, "a number", |v| match v {
            Value::Float(x) => Some(*x as f32),
            Value::Int(n) => Some(*n as f32),
            _ => None,
        })
    }

    /// A truth value.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.read(key, "true or false", |v| match v {
            Value::Bool(b) => Some(*b),
            _ => None,
        })
    }

    /// Text.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.read(key, "text", |v| match v {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A list of texts.
    pub fn texts(&self, key: &str) -> Result<Option<&[String]>> {
        self.read(key, "a list of texts", |v| match v {
            Value::Texts(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    /// A list of integers.
    pub fn ints(&self, key: &str) -> Result<Option<&[i64]>> {
        self.read(key, "a list of integers", |v| match v {
            Value::Ints(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    /// A list of numbers.
    pub fn floats(&self, key: &str) -> Result<Option<&[f32]>> {
        self.read(key, "a list of numbers", |v| match v {
            Value::Floats(list) => Some(list.as_slice()),
            _ => None,
        })
    }

    fn read<'a, T>(&'a self, key: &str, kind: &str, as_kind: impl Fn(&'a Value) -> Option<T>) -> Result<Option<T>> {
        let wrong = || self.error(format_args!("key {key} must be {kind}"));
        self.values.get(key).map(|value| as_kind(value).ok_or_else(wrong)).transpose()
    }
}
