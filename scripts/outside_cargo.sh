# To be sourced: `outside_cargo NAME VERSION [OPTION…]` installs a program of a crate below target/, where that version is not there yet, and
# sets `installed` to its path. Compiled without optimization: what it does here takes seconds all the same.
outside_cargo() {
    local name=$1 version=$2 folder=target/outside/$1
    shift 2
    installed=$folder/bin/$name
    if ! "$installed" --version 2>/dev/null | grep -qE " v?${version//./\\.}$"; then
        CARGO_PROFILE_DEV_DEBUG=0 CARGO_TARGET_DIR="$folder/build" \
            cargo install -q "$name" --version "=$version" --locked --debug --no-default-features --root "$folder" "$@"
        rm -r "$folder/build"
    fi
}
