#!/usr/bin/env bash
# Compiles for fuzz/run.sh: rustc, with counters of coverage in the crates that see an input's bytes. libFuzzer goes through all
# counters after every input; those of tensors, kernels and thread pools would take most of its time and say nothing.
set -euo pipefail
rustc="$1"
shift
parsers=" advcl crc32fast csv csv_core fast_image_resize fax fdeflate flate2 gif image image_webp miniz_oxide png safetensors serde_core"
parsers+=" serde_json tar tiff toml toml_datetime toml_parser unicode_normalization weezl winnow zip zlib_rs zune_core zune_jpeg "
# Of what runs in the target: a build script is not linked with libFuzzer, and has no `--target`.
name='' is_target='' previous=''
for argument in "$@"; do
    [ "$previous" = --crate-name ] && name="$argument"
    [ "$argument" = --target ] && is_target=1
    previous="$argument"
done
# Coverage as cargo-fuzz asks for it, without what was compared with what: a third of the time, and the corpus has the magic numbers.
coverage=(-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters
    -Cllvm-args=-sanitizer-coverage-pc-table)
if [ -n "$is_target" ] && [ -n "$name" ] && [[ "$parsers" == *" $name "* ]]; then
    set -- "$@" "${coverage[@]}"
fi
exec "$rustc" "$@"
