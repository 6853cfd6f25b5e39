//! Robust image encoders from unlabeled data.
#![doc = include_str!("../ARCHITECTURE.md")]

pub mod attack;
pub mod bench;
pub mod check;
pub mod cluster;
pub mod compare;
pub mod criterion;
pub mod data;
pub mod device;
pub mod error;
pub mod evaluate;
pub mod experiment;
pub mod files;
pub mod finetune;
pub mod import;
pub mod interval;
pub mod logits;
pub mod loss;
pub mod nn;
pub mod pixels;
pub mod pretrain;
pub mod preview;
pub mod probe;
pub mod random;
pub mod recipe;
pub mod report;
pub mod run;
pub mod selftest;
pub mod session;
pub mod tables;
pub mod tensor;
pub mod train;
pub mod view;
pub mod weights;

pub use error::{Error, Result};
