//! What a look at Postgres or Kafka comes to: all is well, or what is wrong and what mends it.

use std::fmt;

/// Something that is not as it must be, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What was found.
    pub what: String,
    /// SQL to run or a setting to change, as a sentence.
    pub remedy: String,
    /// Whether it also stops a relay that has a slot already, because rows are lost by it. Other
    /// problems show at the rows they concern, and those before them can still be sent.
    pub loses: bool,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// What came of it.
    pub verdict: Verdict,
}

/// What came of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// All is well: this was found.
    Passed(String),
    /// The relay runs, but somebody should know.
    Doubtful(Problem),
    /// The relay halts, or will.
    Failed(Problem),
}

impl Check {
    /// Passed or failed.
    pub fn new(name: impl Into<String>, found: Result<String, Problem>) -> Check {
        let verdict = found.map_or_else(Verdict::Failed, Verdict::Passed);
        Check { name: name.into(), verdict }
    }

    /// The problem that lets it fail.
    pub fn failure(&self) -> Option<&Problem> {
        match &self.verdict {
            Verdict::Failed(problem) => Some(problem),
            Verdict::Passed(_) | Verdict::Doubtful(_) => None,
        }
    }
}

/// A problem that shows at a row, if at all.
pub fn problem(what: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem { what: what.into(), remedy: remedy.into(), loses: false }
}

/// A problem that loses rows.
pub fn loss(what: impl Into<String>, remedy: impl Into<String>) -> Problem {
    Problem { loses: true, ..problem(what, remedy) }
}
