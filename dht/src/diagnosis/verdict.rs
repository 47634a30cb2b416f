//! [`Verdict`]: what a diagnosis comes to.

/// What was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Worst first.
    pub findings: Vec<Finding>,
}

/// One thing that was found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// A name for programs, which never changes its meaning.
    pub code: &'static str,
    /// How bad it is.
    pub severity: Severity,
    /// What is the case.
    pub text: String,
    /// What to do about it; empty where there is nothing to do.
    pub advice: &'static str,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Nobody answers at all.
    Silence,
    /// Peers are not found, or late and few.
    Problem,
    /// Something is not as it should be, but peers are found.
    Warning,
    /// Good to know.
    Note,
}

impl Verdict {
    /// The worst that was found.
    pub fn severity(&self) -> Severity {
        self.findings.first().map_or(Severity::Note, |finding| finding.severity)
    }

    /// Whether peers can be found.
    pub fn is_healthy(&self) -> bool {
        self.severity() >= Severity::Warning
    }
}
