"""rdask and its peers in turns: `bench/compare --help`. Standard library only."""
