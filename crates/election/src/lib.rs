//! Pure per-VIP ownership election.
