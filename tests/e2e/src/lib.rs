//! Tests of the whole system on the lab.
