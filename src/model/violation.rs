//! What is counted when somebody is refused what isolation forbids.

/// A kind of violation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A protected table was used without a tenant, or with one of an earlier transaction.
    MissingContext,
    /// A tenant came from a source that may not set it, or is not in service.
    RefusedContext,
    /// A transaction or connection tried to turn to another tenant.
    SecondTenant,
    /// A row was written for another tenant.
    ForeignWrite,
    /// The fence stopped what row security would have let pass.
    Fence,
    /// A statement would have taken the protection off a table.
    Ddl,
}

impl Violation {
    pub const ALL: [Self; 6] =
        [Self::MissingContext, Self::RefusedContext, Self::SecondTenant, Self::ForeignWrite, Self::Fence, Self::Ddl];

    /// The name in `tenancy.violations`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MissingContext => "missing_context",
            Self::RefusedContext => "refused_context",
            Self::SecondTenant => "second_tenant",
            Self::ForeignWrite => "foreign_write",
            Self::Fence => "fence",
            Self::Ddl => "ddl",
        }
    }

    /// Its place among the counters.
    pub fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_has_its_own_counter() {
        let places: Vec<usize> = Violation::ALL.into_iter().map(Violation::index).collect();
        assert_eq!(places, (0..Violation::ALL.len()).collect::<Vec<_>>());
    }
}
