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

# generated files: the sample configuration and its schema
generate:
    cargo run --quiet -- config defaults > config/sideline.toml.new && mv config/sideline.toml.new config/sideline.toml
    cargo run --quiet -- config schema > config/sideline.schema.json.new && mv config/sideline.schema.json.new config/sideline.schema.json

bench:
    cargo bench
    tests/bench/footprint
