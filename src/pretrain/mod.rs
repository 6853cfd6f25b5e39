//! Pretraining methods, one file each.

pub mod advcl;
pub mod simclr;
