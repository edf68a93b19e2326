//! What authors of stores share.
