//! Pretraining methods, one file each.

pub mod advcl;
pub mod adversarial_training;
pub mod simclr;
