//! Yes, no, or not to be said: what one look tells of a statement.

/// What a look tells of a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Truth {
    /// It is so.
    Yes,
    /// It is not so.
    No,
    /// Whoever would have to say it did not answer.
    Unknown,
}

impl Truth {
    /// Of what is known.
    pub fn of(known: bool) -> Self {
        if known { Truth::Yes } else { Truth::No }
    }

    /// Whether it is certainly so.
    pub fn is_yes(self) -> bool {
        self == Truth::Yes
    }

    /// The opposite; of what is unknown, unknown.
    pub(super) fn not(self) -> Self {
        match self {
            Truth::Yes => Truth::No,
            Truth::No => Truth::Yes,
            Truth::Unknown => Truth::Unknown,
        }
    }

    /// Both: one that is not so decides.
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Truth::No, _) | (_, Truth::No) => Truth::No,
            (Truth::Yes, Truth::Yes) => Truth::Yes,
            _ => Truth::Unknown,
        }
    }

    /// One of them: one that is so decides.
    pub(super) fn or(self, other: Self) -> Self {
        self.not().and(other.not()).not()
    }

    /// All of them; of none, yes.
    pub(super) fn all(parts: impl IntoIterator<Item = Self>) -> Self {
        parts.into_iter().fold(Truth::Yes, Self::and)
    }
}

#[cfg(test)]
mod tests {
    use super::Truth::{No, Unknown, Yes};

    #[test]
    fn what_is_unknown_decides_nothing() {
        for (a, b, and, or) in [
            (Yes, Unknown, Unknown, Yes),
            (No, Unknown, No, Unknown),
            (Unknown, Unknown, Unknown, Unknown),
            (Yes, No, No, Yes),
            (Yes, Yes, Yes, Yes),
            (No, No, No, No),
        ] {
            assert_eq!(
                (a.and(b), b.and(a), a.or(b), b.or(a)),
                (and, and, or, or),
                "{a:?} {b:?}"
            );
        }
        assert_eq!([Yes, No, Unknown].map(super::Truth::not), [No, Yes, Unknown]);
    }
}
