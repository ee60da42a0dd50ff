//! Figures with a limit: a line each, which says whether it is kept.

use lightship_e2e::figures::table;

/// What a figure has to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Limit {
    AtLeast(f64),
    AtMost(f64),
}

/// A figure that is judged.
pub(super) struct Judged {
    pub(super) what: String,
    pub(super) value: f64,
    pub(super) unit: &'static str,
    pub(super) limit: Limit,
}

impl Judged {
    pub(super) fn new(
        what: impl Into<String>,
        value: f64,
        unit: &'static str,
        limit: Limit,
    ) -> Self {
        Judged {
            what: what.into(),
            value,
            unit,
            limit,
        }
    }

    /// A figure that is none keeps no limit.
    pub(super) fn kept(&self) -> bool {
        match self.limit {
            Limit::AtLeast(limit) => self.value >= limit,
            Limit::AtMost(limit) => self.value <= limit,
        }
    }
}

/// All of them as a table.
pub(super) fn lines(all: &[Judged]) -> String {
    let rows: Vec<Vec<String>> = all
        .iter()
        .map(|judged| {
            let unit = judged.unit;
            // Without the tail that products of decimal fractions have.
            let round = |limit: f64| (limit * 1e3).round() / 1e3;
            let limit = match judged.limit {
                Limit::AtLeast(limit) => format!("≥ {} {unit}", round(limit)),
                Limit::AtMost(limit) => format!("≤ {} {unit}", round(limit)),
            };
            let verdict = if judged.kept() { "pass" } else { "**FAIL**" };
            vec![
                judged.what.clone(),
                format!("{:.2} {unit}", judged.value).trim_end().to_owned(),
                limit.trim_end().to_owned(),
                verdict.to_owned(),
            ]
        })
        .collect();
    table(&["", "measured", "limit", ""], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_kept_or_not_and_a_missing_figure_keeps_none() {
        let kept = |value, limit| Judged::new("x", value, "", limit).kept();
        assert!(kept(0.95, Limit::AtLeast(0.95)) && !kept(0.94, Limit::AtLeast(0.95)));
        assert!(kept(2.0, Limit::AtMost(2.0)) && !kept(2.1, Limit::AtMost(2.0)));
        assert!(!kept(f64::NAN, Limit::AtMost(2.0)) && !kept(f64::NAN, Limit::AtLeast(0.0)));
    }

    #[test]
    fn the_lines_say_it() {
        let text = lines(&[
            Judged::new("CPU", 1.234, "%", Limit::AtMost(2.0)),
            Judged::new("speed", 0.5, "", Limit::AtLeast(0.95)),
            Judged::new("three nodes", 2.9, "×", Limit::AtLeast(0.95 * 3.0)),
        ]);
        assert!(text.contains("≥ 2.85 ×"));
        assert!(text.contains("1.23 %") && text.contains("≤ 2 %") && text.contains("pass"));
        assert!(text.contains("0.50") && text.contains("**FAIL**"));
    }
}
