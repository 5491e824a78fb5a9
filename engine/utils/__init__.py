"""Console, atomic files, threads, optional packages: shared by all folders."""
