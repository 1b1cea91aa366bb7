//! What befalls a host in a trial.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};

use crate::passage::Passage;

/// What befalls a host. Written as `kill commit.after:3`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Nothing; the crash points that it passes are recorded.
    None,
    /// It kills itself here; those that the next one passes are recorded.
    Recover(Passage),
    /// It kills itself here; started again, it kills itself at the next one.
    Kill(Vec<Passage>),
    /// It stops itself here until another host has done all the work.
    Pause(Passage),
    /// The store's reply to this request, counted from the start, is lost.
    LoseStoreReply(u64),
    /// The broker's reply to this request is lost.
    LoseBrokerReply(u64),
    /// The store dies under load, so many times.
    KillStore(u64),
    /// The broker dies under load, so many times.
    KillBroker(u64),
}

/// Faults as they are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Crash points are recorded.
    Recording,
    /// One kill.
    Kill,
    /// Two kills, the second while the host recovers from the first.
    DoubleKill,
    /// A zombie.
    Pause,
    /// A lost reply.
    LostReply,
    /// A store that dies.
    KilledStore,
    /// A broker that dies.
    KilledBroker,
}

impl Kind {
    /// Every one.
    pub const ALL: &[Self] = &[
        Self::Recording,
        Self::Kill,
        Self::DoubleKill,
        Self::Pause,
        Self::LostReply,
        Self::KilledStore,
        Self::KilledBroker,
    ];
}

impl Fault {
    /// What it counts as.
    pub fn kind(&self) -> Kind {
        match self {
            Self::None | Self::Recover(_) => Kind::Recording,
            Self::Kill(passages) if passages.len() == 1 => Kind::Kill,
            Self::Kill(_) => Kind::DoubleKill,
            Self::Pause(_) => Kind::Pause,
            Self::LoseStoreReply(_) | Self::LoseBrokerReply(_) => Kind::LostReply,
            Self::KillStore(_) => Kind::KilledStore,
            Self::KillBroker(_) => Kind::KilledBroker,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Recording => "recorded",
            Self::Kill => "killed",
            Self::DoubleKill => "killed twice",
            Self::Pause => "paused",
            Self::LostReply => "reply lost",
            Self::KilledStore => "store killed",
            Self::KilledBroker => "broker killed",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Recover(passage) => write!(f, "recover {passage}"),
            Self::Kill(passages) => {
                let passages: Vec<String> = passages.iter().map(ToString::to_string).collect();
                write!(f, "kill {}", passages.join(","))
            }
            Self::Pause(passage) => write!(f, "pause {passage}"),
            Self::LoseStoreReply(request) => write!(f, "lose-store-reply {request}"),
            Self::LoseBrokerReply(request) => write!(f, "lose-broker-reply {request}"),
            Self::KillStore(times) => write!(f, "kill-store {times}"),
            Self::KillBroker(times) => write!(f, "kill-broker {times}"),
        }
    }
}

impl FromStr for Fault {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
        let number = || {
            let number = rest.parse::<u64>();
            number.with_context(|| format!("`{text}`: a number must follow `{name}`"))
        };
        Ok(match name {
            "none" => Self::None,
            "recover" => Self::Recover(rest.parse()?),
            "kill" => Self::Kill(Passage::list(rest)?),
            "pause" => Self::Pause(rest.parse()?),
            "lose-store-reply" => Self::LoseStoreReply(number()?),
            "lose-broker-reply" => Self::LoseBrokerReply(number()?),
            "kill-store" => Self::KillStore(number()?),
            "kill-broker" => Self::KillBroker(number()?),
            _ => bail!("`{text}` is no fault such as `kill commit.after:3`"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_as_they_are_written() {
        for text in [
            "none",
            "recover commit.before:4",
            "kill commit.after:3",
            "kill commit.after:3,check.before:1",
            "pause publish.before:2",
            "lose-store-reply 17",
            "lose-broker-reply 4",
            "kill-store 3",
            "kill-broker 2",
        ] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
        for wrong in ["", "kill", "kill x:1", "pause", "kill-store many"] {
            assert!(wrong.parse::<Fault>().is_err(), "{wrong}");
        }
    }
}
