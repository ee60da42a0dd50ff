//! The lightship.dev API types and the CRDs generated from them.
