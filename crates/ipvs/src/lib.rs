//! IPVS generic-netlink codec, client and diff.
