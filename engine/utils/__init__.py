"""Console, files that appear whole, threads, optional packages: what every folder needs."""
