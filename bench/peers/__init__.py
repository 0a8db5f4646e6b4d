"""The workloads of rdask-bench on other engines: `bench/peers/run --help`."""
