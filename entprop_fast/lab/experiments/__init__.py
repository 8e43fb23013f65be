"""Many runs at once, the statistics of their results, comparisons and studies."""
