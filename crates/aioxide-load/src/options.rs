//! The command line: pairs of `--name value`.

#[cfg(test)]
mod tests;

use std::{collections::HashMap, error::Error, path::PathBuf, str::FromStr};

/// What a command ends with. An error is told to whoever started the program.
pub(crate) type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Where the other end is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Address {
    /// Host and port of a TCP server.
    Tcp(String),
    /// The path of a Unix stream socket.
    Unix(PathBuf),
    /// Host and port of a UDP socket.
    Udp(String),
}

/// The pairs.
#[derive(Debug)]
pub(crate) struct Options(HashMap<String, String>);

impl Options {
    /// Takes the command line apart.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let mut pairs = HashMap::new();
        while let Some(name) = arguments.next() {
            let Some(key) = name.strip_prefix("--") else {
                return Err(format!("{name:?} is no option").into());
            };
            let Some(value) = arguments.next() else {
                return Err(format!("{name} needs a value").into());
            };
            pairs.insert(key.to_owned(), value);
        }
        Ok(Self(pairs))
    }

    /// The value of an option that may be left out.
    pub(crate) fn optional<T: FromStr>(&self, name: &str) -> Outcome<Option<T>> {
        let Some(text) = self.0.get(name) else {
            return Ok(None);
        };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(format!("--{name} {text} makes no sense").into()),
        }
    }

    /// The value of an option, or `usual`.
    pub(crate) fn or<T: FromStr>(&self, name: &str, usual: T) -> Outcome<T> {
        Ok(self.optional(name)?.unwrap_or(usual))
    }

    /// The one address.
    pub(crate) fn address(&self) -> Outcome<Address> {
        let text = |name: &str| self.0.get(name).cloned();
        match (text("tcp"), text("unix"), text("udp")) {
            (Some(address), None, None) => Ok(Address::Tcp(address)),
            (None, Some(path), None) => Ok(Address::Unix(path.into())),
            (None, None, Some(address)) => Ok(Address::Udp(address)),
            _ => Err("one of --tcp, --unix and --udp is needed".into()),
        }
    }
}
