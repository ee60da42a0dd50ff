//! Pure address allocation.
