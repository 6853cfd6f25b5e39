//! Features as files, images that look alike, and images to label next, with the built program.

use std::fs;
use std::path::Path;

use crate::harness::*;
