//! Sockets, netlink, network namespaces and sysctls.
