# What developers type. CI runs the same: `.ci/run` calls tests/run and check.

# everything that has to hold before a commit
default: check test

check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- --deny warnings
    RUSTDOCFLAGS="--deny warnings" cargo doc --workspace --no-deps --locked

test:
    tests/run

# a field server on this machine, with faults, in about a minute
demo:
    cargo run --release --example demo

# the Debian package; and, as root, the same in booted Debians
package:
    packaging/deb/build

install:
    tests/install

# generated files: the sample configuration and its schema
generate:
    cargo run --quiet --example schema > config/sideline.schema.json.new && mv config/sideline.schema.json.new config/sideline.schema.json
    cargo run --quiet -- config defaults > config/sideline.toml.new && mv config/sideline.toml.new config/sideline.toml

# one fuzz target for so many seconds (nightly compiler, `cargo install cargo-fuzz --locked`); new inputs go to fuzz/found
fuzz TARGET SECONDS="300":
    mkdir -p fuzz/found/{{TARGET}} fuzz/crashes/{{TARGET}}
    cargo +nightly fuzz run --sanitizer none {{TARGET}} \
        fuzz/found/{{TARGET}} fuzz/corpus/{{TARGET}} fuzz/crashes/{{TARGET}} \
        -- -max_total_time={{SECONDS}} -timeout=10

bench:
    cargo bench --bench judge --bench camera_memory --bench latency
    tests/bench/footprint

# the end of an outage of two weeks, and what a quiet node writes to its disk
bench-outbox:
    tests/bench/outage
    tests/bench/writes

# 500 kills at random moments while broker and CloudWatch fail, and the proof that nothing was lost untold
crash:
    tests/bench/crash
