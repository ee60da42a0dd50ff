//! What was measured against what was aimed at.

use lightship_e2e::figures::table;

use super::measure::Figures;

/// Longest time for all to be addressed, beyond what the status writes alone take (s).
const BEYOND: f64 = 3.0;
/// Longest time for one more Service among any number, the median of them (ms).
const SINGLE: f64 = 50.0;
/// Up to so many Services, so much memory at most (MiB).
const MEMORY: [(usize, f64); 2] = [(1000, 40.0), (10_000, 60.0)];

/// One line for each aim and number of Services.
pub(super) fn text(all: &[Figures]) -> String {
    let rows: Vec<Vec<String>> = all.iter().flat_map(rows).collect();
    format!(
        "**Against the aims**:\n\n{}",
        table(&["N", "aim", "measured", "verdict"], &rows)
    )
}

fn rows(f: &Figures) -> Vec<Vec<String>> {
    let row = |aim: String, measured: String, met: bool| {
        let verdict = if met { "met" } else { "missed" };
        vec![f.services.to_string(), aim, measured, verdict.to_owned()]
    };
    let beyond = f.waiting - f.status_writes;
    let both = f.waiting - f.both_writes;
    let one = f.single[0];
    let mut rows = vec![
        row(
            format!("all addressed at most {BEYOND} s beyond the status writes"),
            format!("{beyond:.2} s"),
            beyond <= BEYOND,
        ),
        row(
            "the same beyond both kinds of write that an address takes, at the same time"
                .to_owned(),
            format!(
                "{both:.2} s, {:.2} times as long",
                f.waiting / f.both_writes
            ),
            both <= BEYOND,
        ),
        row(
            format!("one more in under {SINGLE} ms, and no other object written"),
            format!("{one:.1} ms, {} written", f.touched),
            one < SINGLE && f.touched == 0,
        ),
        row(
            "nothing written by a restart".to_owned(),
            format!("{} written", f.restart_writes),
            f.restart_writes == 0,
        ),
    ];
    if let Some((_, most)) = MEMORY.iter().find(|(services, _)| f.services <= *services) {
        let highest = f.memory[2];
        rows.push(row(
            format!("memory under {most} MiB at its highest"),
            format!("{highest:.1} MiB"),
            highest < *most,
        ));
    }
    rows
}
