"""Do many runs at once, and compare them: runner, statistics, comparisons and studies."""
