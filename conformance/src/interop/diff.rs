//! What differs between two lists of lines.

/// A line that only one side has.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Change {
    /// It was expected, and is not there.
    Missing(String),
    /// It is there, and was not expected.
    Extra(String),
}

impl Change {
    /// The line itself.
    pub(super) fn line(&self) -> &str {
        match self {
            Self::Missing(line) | Self::Extra(line) => line,
        }
    }
}

/// What has to be taken away and added; the fewest lines that explain the difference, so that a line that moved is both.
pub(super) fn changes(expected: &[String], observed: &[String]) -> Vec<Change> {
    let same = expected.iter().zip(observed).take_while(|(a, b)| a == b).count();
    let (expected, observed) = (
        expected.get(same..).unwrap_or_default(),
        observed.get(same..).unwrap_or_default(),
    );
    let lengths = common_lengths(expected, observed);
    let common = |i: usize, j: usize| lengths.get(i).and_then(|row| row.get(j)).copied().unwrap_or(0);
    let (mut i, mut j) = (0, 0);
    let mut found = Vec::new();
    loop {
        match (expected.get(i), observed.get(j)) {
            (None, None) => return found,
            (Some(a), Some(b)) if a == b => (i, j) = (i + 1, j + 1),
            (Some(a), other) if other.is_none() || common(i + 1, j) >= common(i, j + 1) => {
                found.push(Change::Missing(a.clone()));
                i += 1;
            }
            (_, Some(b)) => {
                found.push(Change::Extra(b.clone()));
                j += 1;
            }
            (Some(_), None) => i += 1,
        }
    }
}

/// For each two places, how many lines the rests have in common.
fn common_lengths(expected: &[String], observed: &[String]) -> Vec<Vec<usize>> {
    let mut rows = vec![vec![0; observed.len() + 1]];
    for a in expected.iter().rev() {
        let below = rows.last().cloned().unwrap_or_default();
        let mut row = vec![0; observed.len() + 1];
        for (j, b) in observed.iter().enumerate().rev() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(0);
            let best = if a == b {
                at(&below, j + 1) + 1
            } else {
                at(&below, j).max(at(&row, j + 1))
            };
            if let Some(cell) = row.get_mut(j) {
                *cell = best;
            }
        }
        rows.push(row);
    }
    rows.reverse();
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(expected: &str, observed: &str) -> String {
        let lines = |text: &str| text.chars().map(String::from).collect::<Vec<_>>();
        let sign = |change| match change {
            Change::Missing(line) => format!("-{line}"),
            Change::Extra(line) => format!("+{line}"),
        };
        changes(&lines(expected), &lines(observed))
            .into_iter()
            .map(sign)
            .collect()
    }

    #[test]
    fn what_is_missing_extra_replaced_or_moved_is_told() {
        for (expected, observed, difference) in [
            ("abc", "abc", ""),
            ("abc", "ac", "-b"),
            ("ac", "abc", "+b"),
            ("abc", "axc", "-b+x"),
            ("abcd", "bcda", "-a+a"),
            ("", "a", "+a"),
            ("a", "", "-a"),
        ] {
            assert_eq!(told(expected, observed), difference, "{expected} {observed}");
        }
    }
}
