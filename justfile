# Usual commands. `just` lists them; https://just.systems. Each is one or two lines that can be copied too.

set shell := ["bash", "-euo", "pipefail", "-c"]

advcl := "target/release/advcl"

# List the commands
default:
    @just --list --unsorted

# Build the program
build *options:
    cargo build --release {{ options }}

# Run the program, e.g. `just run run smoke`
run *arguments: build
    {{ advcl }} {{ arguments }}

# The whole pipeline in seconds
smoke: build
    {{ advcl }} run smoke

# Unit tests of the library: the fast subset
test-fast *filter:
    cargo test --release --lib {{ filter }}

# Everything that Rust tests
test *arguments:
    cargo test --release --workspace {{ arguments }}

# Integration tests by their names, e.g. `just test-it methods::simclr`
test-it *filter:
    cargo test --release --test it -- {{ filter }}

# Formatting, warnings, and the fast tests: before every commit
check: fmt-check lint test-fast

# Format
fmt:
    cargo fmt --all

# Whether everything is formatted
fmt-check:
    cargo fmt --all --check

# Warnings are errors
lint:
    cargo clippy --workspace --all-targets -- -D warnings

# Licences and advisories of dependencies; needs cargo-deny
deny:
    cargo deny check

# Spelling, shell scripts, workflows, the Dockerfile, licences of dependencies
public:
    scripts/check_public.sh --dependencies

# Whether the crates and the Python package can be published
packages:
    scripts/check_package.sh
    scripts/check_wheel.sh

# Golden vectors inside the program
selftest: build
    {{ advcl }} selftest

# Snapshots of the program's output, written again; read the difference
snapshots:
    INSTA_UPDATE=always cargo test --release --test it transcript
    git diff --stat tests/it/snapshots

# Documentation of the library
doc:
    cargo doc --no-deps --open

# Check the book and build it, in target/book
book: build
    scripts/check_book.sh

# Write the book's page of keys again
keys: build
    docs/book/make_keys.sh

# Types and tests of the Python module
test-python: build
    scripts/check_python.sh

# What other people's programs see: TensorBoard, PyTorch, onnxruntime, Chromium
outside:
    scripts/check_outside.sh
    scripts/check_export.sh
    scripts/walk.sh
    scripts/check_report.sh

# GPUs, on a software driver
gpu *options:
    scripts/check_gpu.sh {{ options }}

# The kernels under AddressSanitizer and in Miri
sanitize:
    scripts/sanitize.sh
    scripts/miri.sh

# Kills and faults of a run
reliability:
    scripts/kill.sh
    scripts/faults.sh --sample 20

# Everything that must hold before a change lands
ci:
    .ci/run
