//! ARP and NDP frames.
