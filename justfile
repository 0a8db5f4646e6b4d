# What CI runs.
check:
    .ci/run

# The tests alone.
test:
    cargo test --workspace

# More random graphs against the naive model, and more peers that say anything.
soak cases="20000":
    PROPTEST_CASES={{cases}} cargo test --profile sim -p rdask-core

# More clusters in virtual time.
simulate seeds="10000" first="0":
    cargo run --profile sim -p rdask-sim -- --seeds {{seeds}} --first-seed {{first}}

# Bugs planted in the core one by one, and after how many seeds each is found: half an hour.
bugs:
    cargo run --profile sim -p rdask-sim -- bugs

# The tutorial's experiments, by criterion.
bench:
    cargo bench -p rdask-bench

# rdask beside Dask, HyperQueue, Ray and rayon, in some minutes; all of it takes an hour.
compare *arguments="--quick":
    bench/compare {{arguments}}

# The tutorial on a real Slurm, on this machine.
tutorial:
    slurm/lab/run-tutorial

# Real processes, killed, frozen and cut off.
chaos times="1":
    cargo run --release -p rdask-chaos -- run --all --times {{times}}

doc:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --document-private-items

deny:
    cargo deny check licenses bans sources
