#!/usr/bin/env bash
# Builds every example into plugins/NAME.wasm, and the test plugins into a directory of theirs.
#
#   scripts/build-plugins.sh [TEST_PLUGINS_DIR]
#
# TEST_PLUGINS_DIR is $SEMEL_TEST_PLUGINS, or else test-plugins in cargo's target directory.
# SEMEL_PLUGINS takes the place of plugins/.
#
# SEMEL_WASM_ROUTE chooses the compiler: `rustup` (components for wasm32-wasip2), `debian`
# (core modules for wasm32-unknown-unknown, with Debian's compiler and a standard library
# built on the spot), or `auto`, which is the first of them that works.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

route=${SEMEL_WASM_ROUTE:-auto}
target_dir=${CARGO_TARGET_DIR:-$PWD/target}
test_plugins=${1:-${SEMEL_TEST_PLUGINS:-$target_dir/test-plugins}}
plugins=${SEMEL_PLUGINS:-plugins}
debian_packages=(rustc-web cargo-web rust-web-src rust-web-llvm lld)

say() { echo "build-plugins: $*"; }
fail() {
    printf 'build-plugins: %s\n' "$@" >&2
    exit 1
}

# The names of the crates in the directories below $1.
crates_in() {
    local manifest
    for manifest in "$1"/*/Cargo.toml; do
        [[ -e $manifest ]] && basename "$(dirname "$manifest")"
    done
}

# Whether rustup's compiler has the target, or can get it.
have_wasip2() {
    local library
    library=$(rustc --print target-libdir --target wasm32-wasip2 2>/dev/null) || return 1
    compgen -G "$library/libstd-*.rlib" >/dev/null && return 0
    if ! command -v rustup >/dev/null; then
        say "rustc lacks the target wasm32-wasip2, and there is no rustup to add it"
        return 1
    fi
    say "adding the target: rustup target add wasm32-wasip2"
    rustup target add wasm32-wasip2
}

# Installs those of Debian's packages that are missing.
install_debian_packages() {
    local package missing=() sudo=()
    for package in "${debian_packages[@]}"; do
        dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
            missing+=("$package")
    done
    ((${#missing[@]})) || return 0
    if ((EUID != 0)); then
        command -v sudo >/dev/null || fail \
            "missing Debian packages: ${missing[*]}" \
            "as root: apt-get install --no-install-recommends ${missing[*]}"
        sudo=(sudo)
    fi
    say "installing Debian's compiler: ${missing[*]}"
    if ! apt-cache show "${missing[@]}" >/dev/null 2>&1; then
        "${sudo[@]}" apt-get update -qq || say "apt-get update failed; trying what it knows"
    fi
    DEBIAN_FRONTEND=noninteractive "${sudo[@]}" \
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || fail \
        "could not install ${missing[*]} (Debian 12 and later have them)" \
        "either make 'rustup target add wasm32-wasip2' work, or install them by hand"
}

# Puts a rust-lld on the path: rustup's own, or Debian's lld under that name.
find_linker() {
    command -v rust-lld >/dev/null && return 0
    local linker bin=$target_dir/rust-lld
    linker=$(compgen -G "$(rustc --print sysroot)/lib/rustlib/*/bin/rust-lld" | head -n 1) ||
        linker=$(command -v lld) || fail \
        "there is no linker for WebAssembly: neither rust-lld nor lld is installed" \
        "as root: apt-get install --no-install-recommends lld"
    mkdir -p "$bin"
    ln -sf "$linker" "$bin/rust-lld"
    PATH=$bin:$PATH
}

case $route in
auto)
    if have_wasip2; then
        route=rustup
    elif command -v apt-get >/dev/null; then
        say "wasm32-wasip2 can't be had from rustup; falling back on Debian's compiler"
        route=debian
    else
        fail "the target wasm32-wasip2 is missing, and this is no Debian to fall back on" \
            "type: rustup target add wasm32-wasip2"
    fi
    ;;
rustup)
    have_wasip2 || fail "the target wasm32-wasip2 is missing" \
        "type: rustup target add wasm32-wasip2"
    ;;
debian)
    command -v apt-get >/dev/null || fail "SEMEL_WASM_ROUTE=debian needs Debian's apt-get"
    ;;
*) fail "SEMEL_WASM_ROUTE is '$route': use auto, rustup or debian" ;;
esac

if [[ $route == rustup ]]; then
    target=wasm32-wasip2
    cargo=(cargo build)
else
    target=wasm32-unknown-unknown
    install_debian_packages
    find_linker
    # Debian has no standard library for the target: build it, which takes unstable options.
    export RUSTC_BOOTSTRAP=1 RUSTC=/usr/bin/rustc
    cargo=(/usr/bin/cargo build "-Zbuild-std=std,panic_abort")
fi

mapfile -t examples < <(crates_in examples)
mapfile -t tests < <(crates_in tests/plugins)
packages=()
for name in "${examples[@]}" "${tests[@]}"; do
    packages+=(-p "$name")
done

say "compiling ${examples[*]} ${tests[*]} for $target"
CARGO_TARGET_DIR=$target_dir "${cargo[@]}" --profile plugin --target "$target" "${packages[@]}"

# Copies a built plugin if it changed, in one step: a host may be watching the directory.
deliver() {
    local name=$1 directory=$2
    local built=$target_dir/$target/plugin/${name//-/_}.wasm
    mkdir -p "$directory"
    cmp -s "$built" "$directory/$name.wasm" && return 0
    cp "$built" "$directory/.$name.wasm.new"
    mv "$directory/.$name.wasm.new" "$directory/$name.wasm"
    say "wrote $directory/$name.wasm ($(stat -c %s "$built") bytes)"
}

for name in "${examples[@]}"; do deliver "$name" "$plugins"; done
for name in "${tests[@]}"; do deliver "$name" "$test_plugins"; done
say "up to date: ${examples[*]} in $plugins, ${tests[*]} in $test_plugins"
