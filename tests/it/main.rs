//! Integration tests of the library's public interface and of the built program.

mod any_model;
mod as_found;
mod attacks;
mod bad_data;
mod bad_input;
mod bad_models;
mod bad_runs;
mod begun;
mod bench_recipe;
mod cache;
mod cli;
mod compare;
mod embed;
mod evaluation;
mod evaluator;
mod export;
mod files;
mod folder;
mod harness;
mod import;
mod imports;
mod inspect;
mod measures;
mod methods;
mod modes;
mod networks;
#[cfg(target_os = "linux")]
mod odd_names;
mod other_formats;
mod own_images;
mod own_output;
mod page;
mod parity;
mod ranks;
mod reading;
mod recipe_keys;
mod recipes;
mod report;
mod resume;
mod routes;
#[cfg(unix)]
mod signals;
mod soundness;
mod strangers;
mod suites;
mod supervised;
mod tools;
mod transcript;
mod transfer;
mod unbalanced;
mod watch;

use files::{contents, copy, get, png, put, without_checksum};
use harness::{Answer, advcl, answer, command_line, program};
use networks::{
    advcl_settings, backbone, classifier, device, encoder, end_to_end, images, labeled, plan,
    pseudo_labels, supervised_settings,
};
use recipes::{TINY, TINY_SUPERVISED, folder, folder_after, only_simclr};
use transcript::Transcript;
