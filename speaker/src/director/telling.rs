//! What the director tells of its turns. Pure.
//!
//! A node whose director fails hands all its VIPs over. One failed turn is no reason for that: a
//! request that the kernel did not answer in time, say, is tried again half a second later, and what
//! the kernel holds serves meanwhile. Two in a row are.

use lightship_core::core::DirectorReport;

/// Failed turns in a row that are told.
const TOLD: u32 = 2;

/// The last good report, and how many turns have failed since.
#[derive(Debug)]
pub(super) struct Telling {
    last: DirectorReport,
    failures: u32,
}

impl Telling {
    /// `last`: what holds before the first turn.
    pub(super) fn new(last: DirectorReport) -> Self {
        Self { last, failures: 0 }
    }

    /// Takes the outcome of a turn and returns what is to be told. What was in place stays so when
    /// a turn fails.
    pub(super) fn of<E: ToString>(&mut self, turn: Result<DirectorReport, E>) -> DirectorReport {
        match turn {
            Ok(report) => {
                self.failures = 0;
                self.last = report;
                self.last.clone()
            }
            Err(error) => {
                self.failures += 1;
                let told = self.failures >= TOLD;
                DirectorReport {
                    healthy: self.last.healthy && !told,
                    error: if told {
                        Some(error.to_string())
                    } else {
                        self.last.error.clone()
                    },
                    ..self.last.clone()
                }
            }
        }
    }

    /// Whether the last turn failed, so that the next one should follow soon.
    pub(super) fn failed(&self) -> bool {
        self.failures > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> DirectorReport {
        DirectorReport {
            healthy: true,
            applied: 7,
            programmed: ["192.0.2.200".parse().unwrap()].into(),
            digest: 5,
            ..DirectorReport::default()
        }
    }

    #[test]
    fn one_failed_turn_is_not_told_and_two_are_without_forgetting_what_is_in_place() {
        let mut telling = Telling::new(DirectorReport::default());
        assert_eq!(telling.of(Ok::<_, String>(good())), good());
        assert_eq!(telling.of(Err("timeout")), good());
        assert!(telling.failed());
        let told = DirectorReport {
            healthy: false,
            error: Some("timeout".into()),
            ..good()
        };
        assert_eq!(telling.of(Err("timeout")), told);
        assert_eq!(telling.of(Ok::<_, String>(good())), good());
        assert!(!telling.failed());
        assert_eq!(telling.of(Err("timeout")), good(), "counted anew");
    }
}
