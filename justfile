# For us; the README needs only cargo.

# fmt, clippy with warnings denied, quick tests
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings
    cargo test --workspace --lib

# what CI runs
ci:
    bash .ci/run

# speed, one crate at a time: `just bench parsers`
bench crate:
    cargo bench -p faultline-{{crate}}

# review changed goldens
golden:
    cargo insta review

demo:
    cargo run --release -- demo
