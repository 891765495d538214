//! The parts that a node may play.

use std::{fmt, ops};

/// A set of parts that a node may play in circuits.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// No part.
    pub const NONE: Self = Self(0);
    /// To relay for others.
    pub const HOP: Self = Self(1);
    /// To be reached through relays.
    pub const STOP: Self = Self(2);
    /// To dial through relays.
    pub const CLIENT: Self = Self(4);
    /// All parts.
    pub const ALL: Self = Self(7);

    /// Whether all of `roles` are in the set.
    pub const fn contains(self, roles: Self) -> bool {
        self.0 & roles.0 == roles.0
    }

    /// Both sets together.
    pub const fn with(self, roles: Self) -> Self {
        Self(self.0 | roles.0)
    }

    /// What is left without `roles`.
    pub const fn without(self, roles: Self) -> Self {
        Self(self.0 & !roles.0)
    }
}

impl ops::BitOr for Roles {
    type Output = Self;

    fn bitor(self, roles: Self) -> Self {
        self.with(roles)
    }
}

impl fmt::Debug for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = [(Self::HOP, "HOP"), (Self::STOP, "STOP"), (Self::CLIENT, "CLIENT")];
        let names: Vec<_> =
            names.into_iter().filter(|(role, _)| self.contains(*role)).map(|(_, name)| name).collect();
        f.write_str(if names.is_empty() { "NONE" } else { "" })?;
        f.write_str(&names.join("|"))
    }
}
