//! Directions of a descriptor.

use std::ops::BitOr;

/// A set of directions: those watched, or those ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interest(u8);

impl Interest {
    /// No direction.
    pub(crate) const NONE: Self = Self(0);
    /// Reading.
    pub(crate) const READ: Self = Self(1);
    /// Writing.
    pub(crate) const WRITE: Self = Self(2);

    /// Whether a direction is in both sets.
    pub(crate) const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the set is empty.
    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl BitOr for Interest {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// One direction of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// Bytes come in, or a connection.
    Read,
    /// Bytes go out, or a connection was made.
    Write,
}

impl From<Direction> for Interest {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Read => Self::READ,
            Direction::Write => Self::WRITE,
        }
    }
}
