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

# lines per second from a file to alerts, every detector on: `just bench-path`, or with a log of HDFS
bench-path *log:
    cargo bench --bench path -- {{log}}

# review changed goldens
golden:
    cargo insta review

demo:
    cargo run --release -- demo
